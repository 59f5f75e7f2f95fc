package scorer

import "sluice.dev/accel/tensor"

// Offer says what a scorer process can run: one version of one model.
type Offer struct {
	Endpoint  string           `json:"endpoint"`
	Version   string           `json:"version"`
	Platform  string           `json:"platform,omitempty"` // such as onnxruntime_onnx
	Digest    string           `json:"digest,omitempty"`   // of the model's file, such as sha256:…
	Window    int              `json:"window"`             // requests that may be in flight; 0 takes none
	Signature tensor.Signature `json:"signature"`
}
