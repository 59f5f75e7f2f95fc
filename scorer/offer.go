package scorer

import (
	"encoding/json"

	"sluice.dev/accel/tensor"
)

// Offer says what a scorer process can run: one version of one model.
type Offer struct {
	Endpoint  string           `json:"endpoint"`
	Version   string           `json:"version"`
	Platform  string           `json:"platform,omitempty"` // such as onnxruntime_onnx
	Digest    string           `json:"digest,omitempty"`   // of the model's file, such as sha256:…
	Window    int              `json:"window"`             // requests that may be in flight; 0 takes none
	Signature tensor.Signature `json:"signature"`
	Kinds     int              `json:"kinds,omitempty"`  // of requests that the scorer knows; 0 is the first three
	Config    json.RawMessage  `json:"config,omitempty"` // as JSON of Triton's ModelConfig
}

// Knows reports whether the scorer can read requests of a kind.
func (o *Offer) Knows(k Kind) bool {
	if o.Kinds == 0 {
		return k < firstKinds
	}
	return int(k) < o.Kinds
}

// Region is a piece of a shared-memory object that a client has registered.
type Region struct {
	Name   string `json:"name"`
	Key    string `json:"key"` // of the object, as shm_open has it
	Offset uint64 `json:"offset"`
	Size   uint64 `json:"byte_size"`
}
