// Package onnx writes models for benchmarks and tests. Field numbers are those of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
package onnx

import (
	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
)

// Types are ONNX's numbers of the element types that can be written.
var Types = map[tensor.DType]uint64{
	tensor.Float32: 1, tensor.Uint8: 2, tensor.Int8: 3, tensor.Uint16: 4, tensor.Int16: 5, tensor.Int32: 6, tensor.Int64: 7,
	tensor.Bytes: 8, tensor.Bool: 9, tensor.Float64: 11, tensor.Uint32: 12, tensor.Uint64: 13,
}

// message is a protocol buffer that is written.
type message []byte

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) bytes(field protowire.Number, v []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), v)
}

func (m message) text(field protowire.Number, v string) message { return m.bytes(field, []byte(v)) }

// Graph is what a model computes. The zero value is empty.
type Graph struct{ m message }

// Node adds an operation with one output.
func (g *Graph) Node(op, out string, in ...string) {
	var m message
	for _, name := range in {
		m = m.text(1, name)
	}
	g.m = g.m.bytes(1, m.text(2, out).text(4, op))
}

// Weights adds a constant of little-endian elements.
func (g *Graph) Weights(name string, t tensor.DType, raw []byte, dims ...int) {
	var m message
	for _, d := range dims {
		m = m.number(1, uint64(d))
	}
	g.m = g.m.bytes(5, m.number(2, Types[t]).text(8, name).bytes(9, raw))
}

// Input declares an input [N,width].
func (g *Graph) Input(name string, t tensor.DType, width int) {
	g.m = g.m.bytes(11, value(name, t, width))
}

// Output declares an output [N,width].
func (g *Graph) Output(name string, t tensor.DType, width int) {
	g.m = g.m.bytes(12, value(name, t, width))
}

func value(name string, t tensor.DType, width int) message {
	shape := message(nil).bytes(1, message(nil).text(2, "N")).bytes(1, message(nil).number(1, uint64(width)))
	return message(nil).text(1, name).bytes(2, message(nil).bytes(1, message(nil).number(1, Types[t]).bytes(2, shape)))
}

// Model is the whole file, of IR version 8 and operators of version 17.
func (g *Graph) Model(name string) []byte {
	operators := message(nil).text(1, "").number(2, 17)
	return message(nil).number(1, 8).bytes(8, operators).bytes(7, g.m.text(2, name))
}
