// Package auth is the contract of whoever decides who may call an endpoint.
package auth

import (
	"errors"
	"fmt"
)

// The refusals.
var (
	ErrMissing     = errors.New("no credential")
	ErrInvalid     = errors.New("the credential is not valid")
	ErrForm        = fmt.Errorf("%w: not a token", ErrInvalid)
	ErrEnded       = fmt.Errorf("%w: expired or revoked", ErrInvalid)
	ErrSeveral     = errors.New("more than one credential")
	ErrForbidden   = errors.New("the credential is valid, and not for this")
	ErrBusy        = errors.New("too many credentials are being verified")
	ErrUnavailable = errors.New("there is nothing yet to verify credentials with")
)

// Lacking is ErrForbidden of a token without a scope.
type Lacking struct{ Scope string }

// Error implements error.
func (l *Lacking) Error() string { return "the token lacks the scope " + l.Scope }

// Is makes it an ErrForbidden.
func (l *Lacking) Is(target error) bool { return target == ErrForbidden }

// Priority is how a caller's requests stand in a full queue.
type Priority int8

// The priorities. Who may be High may ask to be less, and so on.
const (
	Low Priority = iota - 1
	Normal
	High
)

// Principal is who calls. Immutable.
type Principal struct {
	ID          string   // for logs and limits, never a secret; empty for anybody
	MayPin      bool     // choose a version
	MayMirror   bool     // choose whether a request is mirrored
	MaxPriority Priority // the highest that it may ask for
}

// Authenticator checks the credential of a request. Safe for concurrent use; the
// credential is lent for the call. Nothing is allocated and nothing blocks when
// the credential is good.
type Authenticator interface {
	Authenticate(credential []byte) (*Principal, error)
}

// Open lets everybody in.
type Open struct{}

var anybody = &Principal{MayPin: true}

// Authenticate implements Authenticator.
func (Open) Authenticate([]byte) (*Principal, error) { return anybody, nil }
