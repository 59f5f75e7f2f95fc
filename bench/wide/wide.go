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

// message is a protocol buffer that is written. Field numbers are those of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
type message []byte

func (m *message) number(field int, v uint64) {
	*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3), v)
}

func (m *message) bytes(field int, v []byte) {
	*m = append(binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3|2), uint64(len(v))), v...)
}

func (m *message) text(field int, v string) { m.bytes(field, []byte(v)) }

const float = 1 // TensorProto.DataType

func model() []byte {
	var graph, opset, m message
	rng := rand.New(rand.NewPCG(1024, 256))
	at := "x"
	for i := range len(layers) - 1 {
		w, b, mm, sum := fmt.Sprint("w", i), fmt.Sprint("b", i), fmt.Sprint("mm", i), fmt.Sprint("sum", i)
		graph.bytes(5, weights(rng, w, layers[i], layers[i+1]))
		graph.bytes(5, weights(rng, b, layers[i+1]))
		graph.bytes(1, node("MatMul", mm, at, w))
		if at = sum; i == len(layers)-2 {
			at = "y"
		}
		graph.bytes(1, node("Add", at, mm, b))
		if at != "y" {
			graph.bytes(1, node("Relu", sum+"r", at))
			at = sum + "r"
		}
	}
	graph.text(2, "wide")
	graph.bytes(11, value("x", Inputs))
	graph.bytes(12, value("y", Outputs))
	opset.text(1, "")
	opset.number(2, 17)
	m.number(1, 8) // IR version
	m.bytes(8, opset)
	m.bytes(7, graph)
	return m
}

func node(op, out string, in ...string) []byte {
	var m message
	for _, name := range in {
		m.text(1, name)
	}
	m.text(2, out)
	m.text(4, op)
	return m
}

// weights is a tensor of values small enough to keep activations in range.
func weights(rng *rand.Rand, name string, dims ...int) []byte {
	var m message
	n := 1
	for _, d := range dims {
		m.number(1, uint64(d))
		n *= d
	}
	raw := make([]byte, 0, 4*n)
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits((rng.Float32()-0.5)/16))
	}
	m.number(2, float)
	m.text(8, name)
	m.bytes(9, raw)
	return m
}

// value declares FP32 [N,width].
func value(name string, width int) []byte {
	var rows, columns, shape, tensor, kind, m message
	rows.text(2, "N")
	columns.number(1, uint64(width))
	shape.bytes(1, rows)
	shape.bytes(1, columns)
	tensor.number(1, float)
	tensor.bytes(2, shape)
	kind.bytes(1, tensor)
	m.text(1, name)
	m.bytes(2, kind)
	return m
}
