// Package wide generates a model on which batching pays: a perceptron of
// 1024-2048-2048-256 whose weights, 27 MB, are read once per run however many
// rows it has.
package wide

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"

	"sluice.dev/accel/tensor"
	"sluice.dev/bench/onnx"
)

// The model's input "x" is FP32 [N,Inputs], its output "y" FP32 [N,Outputs].
const (
	Inputs  = 1024
	Outputs = 256
)

var layers = []int{Inputs, 2048, 2048, Outputs}

// Write generates the model at path, always the same.
func Write(path string) error {
	if err := os.WriteFile(path, model(), 0o644); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

func model() []byte {
	var g onnx.Graph
	rng := rand.New(rand.NewPCG(1024, 256))
	at := "x"
	for i := range len(layers) - 1 {
		w, b, mm, sum := fmt.Sprint("w", i), fmt.Sprint("b", i), fmt.Sprint("mm", i), fmt.Sprint("sum", i)
		g.Weights(w, tensor.Float32, weights(rng, layers[i]*layers[i+1]), layers[i], layers[i+1])
		g.Weights(b, tensor.Float32, weights(rng, layers[i+1]), layers[i+1])
		g.Node("MatMul", mm, at, w)
		if at = sum; i == len(layers)-2 {
			at = "y"
		}
		g.Node("Add", at, mm, b)
		if at != "y" {
			g.Node("Relu", sum+"r", at)
			at = sum + "r"
		}
	}
	g.Input("x", tensor.Float32, Inputs)
	g.Output("y", tensor.Float32, Outputs)
	return g.Model("wide")
}

// weights are n values small enough to keep activations in range.
func weights(rng *rand.Rand, n int) []byte {
	raw := make([]byte, 0, 4*n)
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits((rng.Float32()-0.5)/16))
	}
	return raw
}
