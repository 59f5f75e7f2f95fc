package scorer

import (
	"errors"
	"fmt"
)

// Status says how a request ended. The names and their gRPC numbers follow
// google.golang.org/grpc/codes where it has them.
type Status uint8

// The statuses. One switch in the gateway turns them into HTTP.
const (
	OK               Status = iota
	Canceled                // the client left
	InvalidArgument         // the request is wrong; its sender must change it
	DeadlineExceeded        // no answer in time
	NotFound                // no such endpoint, version or path
	Unauthenticated         // no credential, or a wrong one
	PermissionDenied        // the credential does not allow this
	Exhausted               // a limit of the caller's is used up
	Overloaded              // the queue is full, or the wait in it was too long
	Unavailable             // no ready replica
	TooLarge                // the body exceeds the limit
	Unsupported             // understood, but not offered
	MethodNotAllowed        // the path exists, the method does not fit
	ModelFailed             // the model failed or its process ended
	Internal                // our fault
	statuses                // count
)

var statusNames = [...]string{
	"OK", "Canceled", "InvalidArgument", "DeadlineExceeded", "NotFound", "Unauthenticated", "PermissionDenied",
	"Exhausted", "Overloaded", "Unavailable", "TooLarge", "Unsupported", "MethodNotAllowed", "ModelFailed", "Internal",
}

// Statuses is how many there are; they count from 0.
const Statuses = int(statuses)

// String is the status's name, such as Overloaded.
func (s Status) String() string {
	if s >= statuses {
		return fmt.Sprintf("Status(%d)", uint8(s))
	}
	return statusNames[s]
}

// Valid reports whether s is a status that this release knows.
func (s Status) Valid() bool { return s < statuses }

// Error is an error with a status, and a message that may be shown to clients.
type Error struct {
	Status  Status
	Message string
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(s Status, format string, args ...any) *Error {
	return &Error{Status: s, Message: fmt.Sprintf(format, args...)}
}

// Known is err's *Error; anything else is our fault, of which a client learns nothing.
func Known(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{Status: Internal, Message: "the request could not be answered"}
}
