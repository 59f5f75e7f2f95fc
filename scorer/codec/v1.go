package codec

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"

	"sluice.dev/accel/tensor"
)

// column is one input of a request by rows, of which each row brings a piece.
type column struct {
	name  []byte
	data  []byte
	nest  nest // of the rows; its first dimension is theirs
	count int64
	rows  int64

	// Of examples:
	from    int    // in data: where the last row begins
	row     int    // elements of a row
	context []byte // the row of those that lack one
	common  bool   // there is one
}

// decodeV1 reads KServe's and TensorFlow Serving's JSON: {"instances": […]}, with a
// row per element, or {"inputs": …}, with whole tensors; either named or, for a
// model with one input, not. {"b64": …} is an element of type BYTES.
func (r *Infer) decodeV1(sig *tensor.Signature, model string, body []byte) error {
	s := scanner{b: body, b64: true}
	if s.peek() == 0 {
		s.syntax("The document is empty.")
	} else if !s.take('{') {
		s.fail("the request's body is not a JSON object; send {\"instances\": […]} or {\"inputs\": …}")
	}
	seen := 0
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		switch string(name) {
		case "instances":
			seen++
			r.byRow = true
			r.v1Instances(&s, sig, model)
		case "inputs":
			seen++
			r.v1Inputs(&s, sig, model)
		default:
			s.skip(2)
		}
		if seen > 1 {
			s.fail("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
		}
	}
	s.end()
	if s.err != nil {
		return s.err
	}
	if seen == 0 {
		return bad("Missing 'inputs' or 'instances' key")
	}
	return r.assemble(sig, model)
}

// named reports whether what is next is an object of names and values, and not an
// element or the only input's tensor.
func (s *scanner) named(sig *tensor.Signature) bool {
	if s.peek() != '{' {
		return false
	}
	ahead := *s
	ahead.i++
	key, _ := ahead.key(true)
	return string(key) != "b64" || sig.Input("b64") >= 0
}

// unnamed is the index of the only input; -1 where there are more.
func unnamed(s *scanner, sig *tensor.Signature, model string) int {
	if len(sig.Inputs) != 1 {
		s.fail("model '%s' has %d inputs; name them, as in {\"%s\": …}", model, len(sig.Inputs), sig.Inputs[0].Name)
		return -1
	}
	return 0
}

// v1Inputs reads whole tensors.
func (r *Infer) v1Inputs(s *scanner, sig *tensor.Signature, model string) {
	if !s.named(sig) {
		if i := unnamed(s, sig, model); i >= 0 {
			r.given = append(r.given, r.amlTensor(s, i, &sig.Inputs[i], false))
		}
		return
	}
	s.i++
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		i := index(sig.Inputs, name)
		if i < 0 {
			s.fail("unexpected inference input '%.64s' for model '%s'", name, model)
			return
		}
		in := r.amlTensor(s, i, &sig.Inputs[i], false)
		if err := r.take(sig, model, name, in); err != nil && s.err == nil {
			s.err = err
		}
	}
}

// v1Instances reads rows.
func (r *Infer) v1Instances(s *scanner, sig *tensor.Signature, model string) {
	if !s.begin('[') {
		s.fail("Expecting 'instances' to be an list/array")
		return
	}
	r.columns = slices.Grow(r.columns[:0], len(sig.Inputs))[:len(sig.Inputs)]
	for i := range r.columns {
		c := &r.columns[i]
		c.name, c.data, c.count, c.rows = append(c.name[:0], sig.Inputs[i].Name...), c.data[:0], 0, 0
		c.nest.strict, c.nest.depth = true, 1
	}
	rows := int64(0)
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		rows++
		if !s.named(sig) {
			if i := unnamed(s, sig, model); i >= 0 {
				r.columns[i].read(s, sig.Inputs[i].DType)
			}
			continue
		}
		r.v1Row(s, sig, model, rows)
	}
	if rows == 0 {
		s.fail("No values in 'instances' array")
	}
	if s.err != nil {
		return
	}
	for i := range r.columns {
		c := &r.columns[i]
		in := input{index: i, dtype: sig.Inputs[i].DType, raw: -1, found: true, data: c.data, count: c.count}
		in.shape[0] = len(r.shapes)
		r.shapes = append(r.shapes, rows)
		for _, d := range c.nest.dims[1:c.nest.depth] {
			r.shapes = append(r.shapes, max(d, 0))
		}
		in.shape[1] = len(r.shapes)
		r.given = append(r.given, in)
	}
}

// v1Row reads one row with named inputs.
func (r *Infer) v1Row(s *scanner, sig *tensor.Signature, model string, row int64) {
	s.i++
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		i := index(sig.Inputs, name)
		switch {
		case i < 0:
			s.fail("unexpected inference input '%.64s' for model '%s'", name, model)
		case r.columns[i].rows == row:
			s.fail("input '%s' already exists in instance %d", sig.Inputs[i].Name, row-1)
		default:
			r.columns[i].read(s, sig.Inputs[i].DType)
		}
	}
	for i := range r.columns {
		if r.columns[i].rows != row {
			s.fail("Missing named input: %s in instance %d", sig.Inputs[i].Name, row-1)
		}
	}
}

// read reads the next row's piece.
func (c *column) read(s *scanner, t tensor.DType) {
	nested := s.peek() == '['
	if c.rows > 0 && nested != (c.nest.depth > 1) {
		s.fail("the rows of '%s' mix values and arrays", c.name)
		return
	}
	if c.rows++; nested {
		var n int64
		c.data, n = s.array(c.data, t, c.name, &c.nest, 1)
		c.count += n
		return
	}
	c.data = s.value(c.data, t, c.name)
	c.count++
}

// base64Value appends a BYTES element that is written as {"b64": TEXT}.
func (s *scanner) base64Value(dst []byte) []byte {
	s.i++
	key, _ := s.key(true)
	text := s.text()
	if string(key) != "b64" {
		s.fail("an element of type BYTES is a string, or {\"b64\": \"…\"}")
	}
	at := len(dst)
	dst, err := base64.StdEncoding.AppendDecode(append(dst, 0, 0, 0, 0), text)
	if err != nil {
		s.fail("Unable to base64 decode: the value of b64 is not base64")
		return dst
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	s.want('}', "Missing a comma or } after an object member.")
	return dst
}

// appendV1 writes predictions by row, or outputs as whole tensors, as the request was.
func (r *Infer) appendV1(dst []byte, sig *tensor.Signature, out []tensor.Tensor) ([]byte, error) {
	start := len(dst)
	var err error
	switch {
	case !r.byRow:
		dst, err = appendNamed(append(dst, `{"outputs":`...), sig, out)
	case len(out) == 1:
		dst, err = appendV1Tensor(append(dst, `{"predictions":`...), sig.Outputs[0].Name, &out[0])
	default:
		dst, err = appendRows(append(dst, `{"predictions":`...), sig, out)
	}
	if err != nil {
		return dst[:start], err
	}
	return append(dst, '}'), nil
}

// appendNamed writes an output by itself, several as an object.
func appendNamed(dst []byte, sig *tensor.Signature, out []tensor.Tensor) (_ []byte, err error) {
	if len(out) == 1 {
		return appendV1Tensor(dst, sig.Outputs[0].Name, &out[0])
	}
	for i := range out {
		dst = append(AppendString(append(dst, separator(i, '{')), sig.Outputs[i].Name), ':')
		if dst, err = appendV1Tensor(dst, sig.Outputs[i].Name, &out[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// separator is what comes before element i of what begins with begin.
func separator(i int, begin byte) byte {
	if i == 0 {
		return begin
	}
	return ','
}

// appendRows writes an object of all outputs per row.
func appendRows(dst []byte, sig *tensor.Signature, out []tensor.Tensor) (_ []byte, err error) {
	for i := range out {
		if len(out[i].Shape) == 0 || out[i].Shape[0] != out[0].Shape[0] {
			return dst, bad("the outputs of this model have no rows in common; send 'inputs' instead of 'instances'")
		}
	}
	rest := make([]tensor.Tensor, len(out))
	copy(rest, out)
	for row := range int(out[0].Shape[0]) {
		dst = append(dst, separator(row, '['))
		for i := range rest {
			t := tensor.Tensor{DType: out[i].DType, Shape: out[i].Shape[1:]}
			n, _ := tensor.Elements(t.Shape)
			t.Data, rest[i].Data = tensor.Cut(t.DType, rest[i].Data, int(n))
			dst = append(AppendString(append(dst, separator(i, '{')), sig.Outputs[i].Name), ':')
			if dst, err = appendV1Tensor(dst, sig.Outputs[i].Name, &t); err != nil {
				return dst, err
			}
		}
		dst = append(dst, '}')
	}
	if out[0].Shape[0] == 0 {
		dst = append(dst, '[')
	}
	return append(dst, ']'), nil
}

// appendV1Tensor writes nested arrays; the elements of an output whose name ends in
// _bytes as {"b64": …}.
func appendV1Tensor(dst []byte, name string, t *tensor.Tensor) (_ []byte, err error) {
	if t.DType == tensor.Bytes && strings.HasSuffix(name, "_bytes") {
		dst, _ = appendEncoded(dst, t.Data, t.Shape)
		return dst, nil
	}
	dst, _, err = appendNested(dst, name, t.DType, t.Data, t.Shape)
	return dst, err
}

// appendEncoded writes nested arrays of {"b64": …}, and returns what follows them.
func appendEncoded(dst, data []byte, shape []int64) ([]byte, []byte) {
	if len(shape) == 0 {
		element, rest := tensor.Cut(tensor.Bytes, data, 1)
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"b64":"`...), element[4:])
		return append(dst, `"}`...), rest
	}
	dst = append(dst, '[')
	for k := range shape[0] {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst, data = appendEncoded(dst, data, shape[1:])
	}
	return append(dst, ']'), data
}
