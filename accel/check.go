package accel

import (
	"fmt"

	"sluice.dev/accel/tensor"
)

// Check is what every driver's Bind refuses: memory that does not agree with the
// signature. Outputs with nil Data are the driver's to provide.
func Check(sig *tensor.Signature, in, out []tensor.Tensor) error {
	if len(in) != len(sig.Inputs) || len(out) != len(sig.Outputs) {
		return fmt.Errorf("bound %d inputs and %d outputs to a model with %d and %d", len(in), len(out), len(sig.Inputs), len(sig.Outputs))
	}
	for i := range in {
		if err := check(&sig.Inputs[i], &in[i]); err != nil {
			return err
		}
	}
	for i := range out {
		if out[i].Data == nil {
			continue
		}
		if err := check(&sig.Outputs[i], &out[i]); err != nil {
			return err
		}
	}
	return nil
}

func check(info *tensor.Info, t *tensor.Tensor) error {
	if t.DType != info.DType || !info.Accepts(t.Shape) {
		return fmt.Errorf("tensor %q is %v %v; bound %v %v", info.Name, info.DType, info.Shape, t.DType, t.Shape)
	}
	if t.DType == tensor.Bytes {
		return nil // as long as its content
	}
	if size, ok := tensor.ByteSize(t.DType, t.Shape); !ok || size != int64(len(t.Data)) || size == 0 {
		return fmt.Errorf("tensor %q of shape %v has %d bytes of data", info.Name, t.Shape, len(t.Data))
	}
	return nil
}
