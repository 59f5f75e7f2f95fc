package triton

import "sluice.dev/scorer"

// Regions is the system shared memory that clients have registered. Safe for
// concurrent use; errors are *scorer.Error.
type Regions interface {
	// Register names bytes [offset, offset+size) of the shared-memory object key.
	Register(name, key string, offset, size uint64) error
	// Unregister forgets a region; one that is not there is no error. An empty name
	// forgets all.
	Unregister(name string)
	// Status tells of one region, or of all where name is empty.
	Status(name string) ([]scorer.Region, error)
}

// Memory is the system shared memory, or the error that says that there is none.
func (x *Extensions) Memory() (Regions, error) {
	if x.config.Regions == nil {
		return nil, errorf(scorer.Unsupported, "shared memory of clients is not allowed; start the server with --allow-client-shm, on a machine whose users trust each other")
	}
	return x.config.Regions, nil
}

// ErrDeviceMemory is what calls about CUDA shared memory are answered.
var ErrDeviceMemory = errorf(scorer.Unsupported, "CUDA shared memory is not supported; use system shared memory, or send the tensors with the request")
