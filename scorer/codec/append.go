package codec

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Append writes the answer of out, one tensor per output in signature order, to
// dst. It returns the extended dst and, where raw tensors follow the JSON, the
// JSON's length in bytes, else 0. Errors are *scorer.Error.
func (r *Infer) Append(dst []byte, sig *tensor.Signature, model, version string, out []tensor.Tensor) ([]byte, int, error) {
	switch r.kind {
	case scorer.AML:
		dst, err := r.appendAML(dst, sig, out)
		return dst, 0, err
	case scorer.V1:
		dst, err := r.appendV1(dst, sig, out)
		return dst, 0, err
	case scorer.TFClassify, scorer.TFRegress, scorer.V1Classify, scorer.V1Regress:
		dst, err := r.appendResults(dst, sig, model, version, out)
		return dst, 0, err
	}
	if len(r.wanted) == 0 {
		for i := range out {
			r.wanted = append(r.wanted, output{index: i, binary: r.binary})
		}
	}
	if err := r.conclude(sig, out); err != nil {
		return dst, 0, err
	}
	switch r.kind {
	case scorer.GRPC:
		return r.appendGRPC(dst, sig, model, version, out), 0, nil
	case scorer.TFServing:
		return r.appendTF(dst, sig, model, version, out), 0, nil
	}
	start := len(dst)
	dst = append(dst, `{"model_name":`...)
	dst = AppendString(dst, model)
	dst = append(dst, `,"model_version":`...)
	dst = AppendString(dst, version)
	if len(r.id) > 0 {
		dst = append(append(append(dst, `,"id":"`...), r.id...), '"')
	}
	dst = append(dst, `,"outputs":[`...)
	raw := 0
	for k, w := range r.wanted {
		if k > 0 {
			dst = append(dst, ',')
		}
		var err error
		t := r.result(k, out)
		if dst, err = appendOutput(dst, &sig.Outputs[w.index], t, &r.wanted[k]); err != nil {
			return dst[:start], 0, err
		}
		if w.binary {
			raw += len(t.Data)
		}
	}
	dst = append(dst, "]}"...)
	if raw == 0 {
		return dst, 0, nil
	}
	head := len(dst) - start
	for k, w := range r.wanted {
		if w.binary {
			dst = append(dst, r.result(k, out).Data...)
		}
	}
	return dst, head, nil
}

// appendOutput writes one output's object.
func appendOutput(dst []byte, info *tensor.Info, t *tensor.Tensor, w *output) ([]byte, error) {
	dst = append(dst, `{"name":`...)
	dst = AppendString(dst, info.Name)
	dst = append(append(append(dst, `,"datatype":"`...), t.DType.String()...), `","shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, d, 10)
	}
	dst = append(dst, ']')
	if w.at.region != "" { // with parameters, Triton's client in C++ would look for raw data
		return append(dst, '}'), nil
	}
	if w.binary {
		dst = append(dst, `,"parameters":{"binary_data_size":`...)
		dst = strconv.AppendInt(dst, int64(len(t.Data)), 10)
		return append(dst, "}}"...), nil
	}
	dst = append(dst, `,"data":[`...)
	dst, _, err := appendValues(dst, info.Name, t.DType, t.Data, -1)
	return append(dst, "]}"...), err
}

// appendValues writes the first n elements of data, or all where n is negative,
// separated by commas, and returns what follows them.
func appendValues(dst []byte, name string, t tensor.DType, data []byte, n int64) ([]byte, []byte, error) {
	le := binary.LittleEndian
	for k := int64(0); len(data) > 0 && k != n; k++ {
		if k > 0 {
			dst = append(dst, ',')
		}
		switch t {
		case tensor.Float32:
			dst = appendFloat(dst, float64(math.Float32frombits(le.Uint32(data))), 32)
		case tensor.Float64:
			dst = appendFloat(dst, math.Float64frombits(le.Uint64(data)), 64)
		case tensor.Int64:
			dst = strconv.AppendInt(dst, int64(le.Uint64(data)), 10)
		case tensor.Int32:
			dst = strconv.AppendInt(dst, int64(int32(le.Uint32(data))), 10)
		case tensor.Int16:
			dst = strconv.AppendInt(dst, int64(int16(le.Uint16(data))), 10)
		case tensor.Int8:
			dst = strconv.AppendInt(dst, int64(int8(data[0])), 10)
		case tensor.Uint64:
			dst = strconv.AppendUint(dst, le.Uint64(data), 10)
		case tensor.Uint32:
			dst = strconv.AppendUint(dst, uint64(le.Uint32(data)), 10)
		case tensor.Uint16:
			dst = strconv.AppendUint(dst, uint64(le.Uint16(data)), 10)
		case tensor.Uint8:
			dst = strconv.AppendUint(dst, uint64(data[0]), 10)
		case tensor.Bool:
			dst = strconv.AppendBool(dst, data[0] != 0)
		case tensor.Bytes:
			end := 4 + int(le.Uint32(data))
			if !utf8.Valid(data[4:end]) {
				return dst, nil, bad("output '%s' is not UTF-8 text; ask for it with binary_data", name)
			}
			dst = appendQuoted(dst, data[4:end])
			data = data[end:]
			continue
		default:
			return dst, nil, bad("sending %v data via JSON is not supported. Please use the binary data format for output %s", t, name)
		}
		data = data[t.Size():]
	}
	return dst, data, nil
}

// appendAML writes nested arrays by output.
func (r *Infer) appendAML(dst []byte, sig *tensor.Signature, out []tensor.Tensor) ([]byte, error) {
	start := len(dst)
	if r.results {
		dst = append(dst, `{"Results":`...)
	}
	dst = append(dst, '{')
	for i := range out {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, sig.Outputs[i].Name)
		dst = append(dst, ':')
		var err error
		if dst, _, err = appendNested(dst, sig.Outputs[i].Name, out[i].DType, out[i].Data, out[i].Shape); err != nil {
			return dst[:start], err
		}
	}
	dst = append(dst, '}')
	if r.results {
		dst = append(dst, '}')
	}
	return dst, nil
}

// appendNested writes a tensor as nested arrays, a scalar as a value.
func appendNested(dst []byte, name string, t tensor.DType, data []byte, shape []int64) ([]byte, []byte, error) {
	if len(shape) == 0 {
		return appendValues(dst, name, t, data, 1)
	}
	dst = append(dst, '[')
	var err error
	if len(shape) == 1 {
		if shape[0] > 0 {
			dst, data, err = appendValues(dst, name, t, data, shape[0])
		}
		return append(dst, ']'), data, err
	}
	for k := int64(0); k < shape[0] && err == nil; k++ {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst, data, err = appendNested(dst, name, t, data, shape[1:])
	}
	return append(dst, ']'), data, err
}

// AppendMetadata writes the Open Inference Protocol's metadata of a model.
func AppendMetadata(dst []byte, model string, versions []string, platform string, sig *tensor.Signature) []byte {
	dst = append(AppendString(append(dst, `{"name":`...), model), `,"versions":[`...)
	for i, v := range versions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, v)
	}
	dst = append(AppendString(append(dst, `],"platform":`...), platform), `,"inputs":`...)
	dst = append(appendInfos(dst, sig.Inputs), `,"outputs":`...)
	return append(appendInfos(dst, sig.Outputs), '}')
}

func appendInfos(dst []byte, list []tensor.Info) []byte {
	dst = append(dst, '[')
	for i := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(append(dst, `{"name":`...), list[i].Name)
		dst = append(append(append(dst, `,"datatype":"`...), list[i].DType.String()...), `","shape":[`...)
		for k, d := range list[i].Shape {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, d, 10)
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, ']')
}

// AppendError writes the Open Inference Protocol's error body.
func AppendError(dst []byte, message string) []byte {
	return append(AppendString(append(dst, `{"error":`...), message), '}')
}

// AppendString writes text as a JSON string; what is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for i, c := range text {
		if c == utf8.RuneError {
			dst = utf8.AppendRune(dst, c)
			continue
		}
		dst = appendChar(dst, text[i:i+utf8.RuneLen(c)])
	}
	return append(dst, '"')
}

// appendQuoted writes valid UTF-8 as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for i := range text {
		dst = appendChar(dst, text[i:i+1])
	}
	return append(dst, '"')
}

// appendChar writes one character of a JSON string, or one byte of a longer one.
func appendChar[T string | []byte](dst []byte, c T) []byte {
	const digits = "0123456789abcdef"
	if len(c) > 1 || c[0] >= ' ' && c[0] != '"' && c[0] != '\\' {
		return append(dst, c...)
	}
	if c[0] >= ' ' {
		return append(dst, '\\', c[0])
	}
	return append(dst, '\\', 'u', '0', '0', digits[c[0]>>4], digits[c[0]&15])
}
