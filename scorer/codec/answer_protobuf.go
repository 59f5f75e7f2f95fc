package codec

import (
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer/codec/wire"
)

// readGRPC reads a ModelInferResponse with raw outputs.
func readGRPC(body []byte) (Answer, error) {
	var answer Answer
	var types []tensor.DType
	var raws [][]byte
	m := wire.Read(body)
	for m.Next() {
		switch {
		case m.Is(5):
			o, dtype, err := readGRPCOutput(m.Bytes)
			if err != nil {
				return nil, err
			}
			answer, types = append(answer, o), append(types, dtype)
		case m.Is(6):
			raws = append(raws, m.Bytes)
		}
	}
	if m.Bad() || len(raws) != len(answer) {
		return nil, ErrCut
	}
	for i := range answer {
		answer[i].decode(types[i], raws[i])
	}
	return answer, nil
}

func readGRPCOutput(b []byte) (o Result, dtype tensor.DType, err error) {
	var shape Infer
	m := wire.Read(b)
	for m.Next() {
		switch {
		case m.Is(1):
			o.Name = string(m.Bytes)
		case m.Is(2):
			dtype, _ = tensor.ParseDType(m.Bytes)
		case m.Num == 3:
			if err := shape.grpcShape(m.Varints(), 0); err != nil {
				return o, dtype, err
			}
		}
	}
	if m.Bad() {
		return o, dtype, ErrCut
	}
	o.shaped(shape.shapes)
	return o, dtype, nil
}

func (o *Result) shaped(shape []int64) {
	if o.Dims = len(shape); o.Dims > 0 {
		o.Row = int(shape[o.Dims-1])
	}
}

// readTF reads a PredictResponse: its outputs are tensors as a request's inputs are.
func readTF(body []byte) (Answer, error) {
	var answer Answer
	m := wire.Read(body)
	for m.Next() {
		if !m.Is(1) {
			continue
		}
		var r Infer
		in, name, number, err := r.tfTensor(m.Bytes)
		if err != nil {
			return nil, err
		}
		for in.dtype = tensor.Bool; in.dtype <= tensor.Bytes && tfTypes[in.dtype].number != number; in.dtype++ {
		}
		if in.dtype > tensor.Bytes {
			return nil, ErrCut
		}
		if _, err := r.tfValues(m.Bytes, &in, name); err != nil {
			return nil, err
		}
		o := Result{Name: string(name)}
		o.shaped(r.shapes)
		data := in.data
		if data == nil {
			data = r.memory
		}
		o.decode(in.dtype, data)
		answer = append(answer, o)
	}
	if m.Bad() {
		return nil, ErrCut
	}
	return answer, nil
}
