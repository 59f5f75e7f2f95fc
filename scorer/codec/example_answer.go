package codec

import (
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec/wire"
)

// results are what the outputs say of examples, from the first on.
type results struct {
	columns         int // of each example
	classes, scores tensor.Tensor
	text            []byte
}

// resultsOf checks that the outputs have a row for each example.
func (r *Infer) resultsOf(out []tensor.Tensor) (v results, err error) {
	rows := r.Inputs[0].Shape[0]
	v.columns = -1
	take := func(i int, into *tensor.Tensor) {
		if i < 0 || err != nil {
			return
		}
		t, n := out[i], 1
		if len(t.Shape) == 2 {
			n = int(t.Shape[1])
		}
		if len(t.Shape) == 0 || len(t.Shape) > 2 || t.Shape[0] != rows || v.columns >= 0 && n != v.columns {
			err = bad("the model's outputs do not fit its %d examples, or each other: one is %s; call Predict", rows, dims(t.Shape))
			return
		}
		*into, v.columns = t, n
	}
	take(r.classes, &v.classes)
	take(r.scores, &v.scores)
	return v, err
}

// label is the next class's; empty where classes have none. Valid until the next.
func (v *results) label() []byte {
	t := &v.classes
	var element []byte
	switch t.DType {
	case tensor.Invalid:
		return nil
	case tensor.Bytes:
		element, t.Data = tensor.Cut(tensor.Bytes, t.Data, 1)
		return element[4:]
	}
	v.text = appendClass(v.text[:0], t.DType, t.Data)
	t.Data = t.Data[t.DType.Size():]
	return v.text
}

// score is the next one.
func (v *results) score() float32 {
	t := &v.scores
	if t.DType == tensor.Invalid {
		return 0
	}
	f := number(t.DType, t.Data)
	t.Data = t.Data[t.DType.Size():]
	return float32(f)
}

// appendResults answers requests with examples.
func (r *Infer) appendResults(dst []byte, sig *tensor.Signature, model, version string, out []tensor.Tensor) ([]byte, error) {
	v, err := r.resultsOf(out)
	if err != nil {
		return dst, err
	}
	regress := r.kind == scorer.TFRegress || r.kind == scorer.V1Regress
	if regress && v.columns != 1 {
		return dst, bad("output '%s' has %d values for an example, not one; call Predict", sig.Outputs[r.scores].Name, v.columns)
	}
	rows := int(r.Inputs[0].Shape[0])
	if r.kind == scorer.V1Classify || r.kind == scorer.V1Regress {
		return v.appendV1(dst, rows, regress)
	}
	at := len(dst)
	for range rows {
		if regress {
			dst = enclose(appendScore(dst, 1, v.score()), len(dst), 1)
			continue
		}
		row := len(dst)
		for range v.columns {
			class := len(dst)
			if r.classes >= 0 {
				dst = wire.AppendBytes(dst, 1, v.label())
			}
			if r.scores >= 0 {
				dst = appendScore(dst, 2, v.score())
			}
			dst = enclose(dst, class, 1)
		}
		dst = enclose(dst, row, 1)
	}
	dst = enclose(dst, at, 1)
	var spec [256]byte // more than names usually take
	return wire.AppendBytes(dst, 2, AppendModelSpec(spec[:0], model, version)), nil
}

func appendScore(dst []byte, num protowire.Number, f float32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(dst, num, protowire.Fixed32Type), math.Float32bits(f))
}

// enclose makes a field of what dst has from at on.
func enclose(dst []byte, at int, num protowire.Number) []byte {
	var head [16]byte
	return slices.Insert(dst, at, wire.AppendLength(head[:0], num, len(dst)-at)...)
}

// appendV1 writes the results as JSON: of an example its value, or its classes as
// [LABEL, SCORE].
func (v *results) appendV1(dst []byte, rows int, regress bool) ([]byte, error) {
	start := len(dst)
	dst = append(dst, `{"results":`...)
	var err error
	for row := range rows {
		dst = append(dst, separator(row, '['))
		if regress {
			dst = appendFloat(dst, float64(v.score()), 32)
			continue
		}
		for k := range v.columns {
			dst = append(append(dst, separator(k, '[')), '[')
			if dst, err = appendText(dst, v.label()); err != nil {
				return dst[:start], err
			}
			dst = append(appendFloat(append(dst, ','), float64(v.score()), 32), ']')
		}
		if v.columns == 0 {
			dst = append(dst, '[')
		}
		dst = append(dst, ']')
	}
	return append(dst, "]}"...), nil
}

func appendText(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, bad("a class is not UTF-8 text; call Classify over gRPC")
	}
	return appendQuoted(dst, text), nil
}
