// Package auth is the contract of whoever decides who may call an endpoint.
package auth

import "errors"

// The refusals. Both are told to the client in the same words, so that a guess
// learns nothing.
var (
	ErrMissing = errors.New("no credential")
	ErrInvalid = errors.New("the credential is not valid")
)

// The other refusals.
var (
	ErrForbidden   = errors.New("the credential is valid, and not for this")
	ErrBusy        = errors.New("too many credentials are being verified")
	ErrUnavailable = errors.New("there is nothing yet to verify credentials with")
)

// Principal is who calls. Immutable.
type Principal struct {
	ID     string // for logs and limits, never a secret; empty for anybody
	MayPin bool   // choose a version
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
