package codec

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec/wire"
)

// The fields of a Feature: which of its lists it has. The numbers of other fields
// are in gateway/grpcapi/tfservingpb.
const (
	bytesList = 1 + iota
	floatList
	int64List
)

// listNames are TF's names of what the lists hold.
var listNames = [...]string{bytesList: "string", floatList: "float", int64List: "int64"}

// listOf is the list that an input of type t takes; 0 for one that takes none.
func listOf(t tensor.DType) protowire.Number {
	switch t {
	case tensor.Bytes:
		return bytesList
	case tensor.Float32, tensor.Float64:
		return floatList
	case tensor.Float16, tensor.BFloat16:
		return 0
	}
	return int64List
}

// maxShared bounds the bytes that the examples of a request have from their context,
// which it holds once.
const maxShared = 16 << 20

// callable says whether a model can be called by Classify or Regress, which take
// examples, rows of named features, and starts the columns that they are read into.
// Such a model
//
//   - has the rows as the first dimension of each input, whose other dimensions are
//     fixed. An input takes the feature of its own name, with as many values as a row
//     has: one input [-1,64] takes examples with one feature of 64 values, inputs [-1]
//     or [-1,1] are columns. float_list is for FP32 and FP64, int64_list for integers
//     and BOOL, bytes_list for BYTES; in JSON it is as in other requests. Features that
//     no input is named after are passed over;
//   - for Classify, has outputs "classes" (BYTES or integers, which are labels) and
//     "scores" (floats) or one of these, or a single output of either type;
//   - for Regress, has an output "outputs", or a single one, of floats.
//
// Outputs are [-1,K], or [-1] where K is 1, which it must be for Regress.
func (r *Infer) callable(sig *tensor.Signature, model string) error {
	method, why := "Classify", r.classifies(sig)
	if r.kind == scorer.TFRegress || r.kind == scorer.V1Regress {
		method, why = "Regress", r.regresses(sig)
	}
	r.columns, r.shared = slices.Grow(r.columns[:0], len(sig.Inputs))[:len(sig.Inputs)], 0
	for i := range sig.Inputs {
		info, c := &sig.Inputs[i], &r.columns[i]
		c.name, c.data, c.context, c.rows, c.common = append(c.name[:0], info.Name...), c.data[:0], c.context[:0], 0, false
		var fixed bool
		switch c.row, fixed = rowOf(info.Shape); {
		case listOf(info.DType) == 0:
			why = "no feature can be its input '" + info.Name + "' of type " + info.DType.String()
		case !fixed:
			why = "its input '" + info.Name + "' of shape " + dims(info.Shape) + " is not of rows of a fixed size"
		}
	}
	if why != "" {
		return bad("model '%s' cannot be called by %s: %s; call Predict", model, method, why)
	}
	return nil
}

// rowOf is how many elements a row has; false: it has no rows, or they vary.
func rowOf(shape []int64) (int, bool) {
	if len(shape) == 0 || shape[0] >= 0 {
		return 0, false
	}
	n, ok := tensor.Elements(shape[1:])
	return int(n), ok && n < math.MaxInt32
}

// classifies finds the outputs of Classify, or says why there are none.
func (r *Infer) classifies(sig *tensor.Signature) string {
	r.classes, r.scores = sig.Output("classes"), sig.Output("scores")
	if len(sig.Outputs) == 1 {
		if r.classes, r.scores = 0, -1; isFloat(&sig.Outputs[0]) {
			r.classes, r.scores = -1, 0
		}
	}
	ok := r.classes >= 0 || r.scores >= 0
	if r.classes >= 0 {
		o := &sig.Outputs[r.classes]
		ok = len(o.Shape) <= 2 && o.DType != tensor.Bool && !isFloat(o)
	}
	if r.scores >= 0 {
		o := &sig.Outputs[r.scores]
		ok = ok && len(o.Shape) <= 2 && isFloat(o)
	}
	if ok {
		return ""
	}
	return "it needs an output 'classes' of BYTES or integers, or 'scores' of floats, or both, or a single output of either, [-1,K] or [-1], and has " + outputsOf(sig)
}

// regresses finds the output of Regress, or says why there is none.
func (r *Infer) regresses(sig *tensor.Signature) string {
	r.classes, r.scores = -1, sig.Output("outputs")
	if len(sig.Outputs) == 1 {
		r.scores = 0
	}
	if r.scores >= 0 {
		o := &sig.Outputs[r.scores]
		if isFloat(o) && (len(o.Shape) == 1 || len(o.Shape) == 2 && (o.Shape[1] == 1 || o.Shape[1] < 0)) {
			return ""
		}
	}
	return "it needs an output 'outputs', or a single one, of floats, [-1] or [-1,1], and has " + outputsOf(sig)
}

func isFloat(o *tensor.Info) bool { return o.DType >= tensor.Float16 && o.DType <= tensor.Float64 }

func outputsOf(sig *tensor.Signature) string {
	list := make([]string, len(sig.Outputs))
	for i := range sig.Outputs {
		o := &sig.Outputs[i]
		list[i] = "'" + o.Name + "' " + o.DType.String() + " " + dims(o.Shape)
	}
	return strings.Join(list, ", ")
}

// begin begins row n, anew where it began before: of two features with a name the
// later is meant.
func (c *column) begin(n int64) {
	if c.rows != n {
		c.rows, c.from = n, len(c.data)
	}
	c.data = c.data[:c.from]
}

// ended checks that a row has count values.
func (c *column) ended(count int, t tensor.DType) error {
	if count == c.row {
		return nil
	}
	return bad("Key: %s. Number of %s values != expected. values size: %d but output shape: [%d]", c.name, listNames[listOf(t)], count, c.row)
}

// share keeps what was read as row 1 for the rows that lack it.
func (r *Infer) share() {
	for i := range r.columns {
		c := &r.columns[i]
		c.context, c.common = append(c.context, c.data...), c.rows == 1
		c.data, c.rows = c.data[:0], 0
	}
}

// complete gives row n what it lacks.
func (r *Infer) complete(sig *tensor.Signature, n int64) error {
	for i := range r.columns {
		c := &r.columns[i]
		if c.rows == n {
			continue
		}
		if !c.common {
			return bad("Feature: %s (data type: %s) is required but could not be found.", c.name, listNames[listOf(sig.Inputs[i].DType)])
		}
		if r.shared += len(c.context); r.shared > maxShared {
			return bad("the examples have more than %d bytes from their context; send the features with the examples, or fewer examples", maxShared)
		}
		c.begin(n)
		c.data = append(c.data, c.context...)
	}
	return nil
}

// assembleRows makes Inputs of the columns.
func (r *Infer) assembleRows(sig *tensor.Signature, model string, rows int64) error {
	if rows == 0 {
		return bad("Input is empty.")
	}
	for i := range r.columns {
		info := &sig.Inputs[i]
		in := input{index: i, dtype: info.DType, raw: -1, found: true, data: r.columns[i].data, count: -1}
		in.shape[0] = len(r.shapes)
		r.shapes = append(append(r.shapes, rows), info.Shape[1:]...)
		in.shape[1] = len(r.shapes)
		r.given = append(r.given, in)
	}
	return r.assemble(sig, model)
}

// decodeTFExamples reads a ClassificationRequest or a RegressionRequest, which differ
// in name only.
func (r *Infer) decodeTFExamples(sig *tensor.Signature, model string, body []byte) error {
	err := fields(body, func(num protowire.Number, spec []byte) error {
		if num == 1 {
			return tfSignature(spec)
		}
		return nil
	})
	if err == nil {
		err = r.callable(sig, model)
	}
	if err == nil {
		err = examples(body, contextField, func(e []byte) error { return r.example(sig, e, 1) })
	}
	if err != nil {
		return err
	}
	r.share()
	rows := int64(0)
	err = examples(body, examplesField, func(e []byte) error {
		rows++
		if err := r.example(sig, e, rows); err != nil {
			return err
		}
		return r.complete(sig, rows)
	})
	if err != nil {
		return err
	}
	return r.assembleRows(sig, model, rows)
}

// fields calls each with the fields of a message that hold bytes.
func fields(message []byte, each func(num protowire.Number, b []byte) error) error {
	m := wire.Read(message)
	for m.Next() {
		if m.Type != protowire.BytesType {
			continue
		}
		if err := each(m.Num, m.Bytes); err != nil {
			return err
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return nil
}

// The fields of an ExampleListWithContext, whose first is the only one of an
// ExampleList.
const (
	examplesField = 1
	contextField  = 2
)

// examples calls each with the examples of a request, or with their context.
func examples(body []byte, field protowire.Number, each func(example []byte) error) error {
	var kind protowire.Number // of the list: 2 is one with context
	return fields(body, func(num protowire.Number, in []byte) error {
		if num != 2 {
			return nil
		}
		return fields(in, func(num protowire.Number, list []byte) error {
			switch {
			case num > 2:
				return nil
			case kind > 0 && num != kind:
				return bad("the input has examples with and without context; send one list")
			}
			kind = num
			return fields(list, func(num protowire.Number, e []byte) error {
				if num != field || field == contextField && kind == 1 {
					return nil
				}
				return each(e)
			})
		})
	})
}

// example reads an Example as row n.
func (r *Infer) example(sig *tensor.Signature, e []byte, n int64) error {
	return fields(e, func(num protowire.Number, features []byte) error {
		if num != 1 {
			return nil
		}
		return fields(features, func(num protowire.Number, entry []byte) error {
			if num != 1 {
				return nil
			}
			return r.feature(sig, entry, n)
		})
	})
}

// feature reads an entry of a map of features into row n. Of the lists of a Feature
// the last is meant; one without a list is none.
func (r *Infer) feature(sig *tensor.Signature, entry []byte, n int64) error {
	i := -1
	err := fields(entry, func(num protowire.Number, key []byte) error {
		if num == 1 {
			i = index(sig.Inputs, key)
		}
		return nil
	})
	if err != nil || i < 0 {
		return err
	}
	c, t := &r.columns[i], sig.Inputs[i].DType
	c.begin(n)
	count, kind := 0, protowire.Number(0)
	err = fields(entry, func(num protowire.Number, feature []byte) error {
		if num != 2 {
			return nil
		}
		return fields(feature, func(num protowire.Number, list []byte) error {
			if num > int64List {
				return nil
			}
			if num != kind {
				c.begin(n)
				count, kind = 0, num
			}
			if num != listOf(t) {
				return nil
			}
			return c.values(list, t, &count)
		})
	})
	switch {
	case err != nil:
		return err
	case kind == 0:
		c.rows = n - 1
		return nil
	case kind != listOf(t):
		return bad("Key: %s. Data types don't match. Expected type: %s", c.name, listNames[listOf(t)])
	}
	return c.ended(count, t)
}

// values appends those of a list that a row takes, and counts all.
func (c *column) values(list []byte, t tensor.DType, count *int) error {
	m := wire.Read(list)
	for m.Next() {
		switch {
		case m.Num != 1:
		case t == tensor.Bytes:
			if m.Type != protowire.BytesType {
				continue
			}
			if *count++; *count <= c.row {
				c.data = appendElement(c.data, m.Bytes)
			}
		case t == tensor.Float32 || t == tensor.Float64:
			chunk, ok := m.Fixed(4)
			if !ok {
				return ErrCut
			}
			for ; len(chunk) > 0; chunk = chunk[4:] {
				if *count++; *count <= c.row {
					c.data = appendBits(c.data, t, float64(math.Float32frombits(binary.LittleEndian.Uint32(chunk))))
				}
			}
		default:
			if err := c.integers(m.Varints(), t, count); err != nil {
				return err
			}
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return nil
}

func (c *column) integers(v wire.Varints, t tensor.DType, count *int) error {
	for x, ok := v.Next(); ok; x, ok = v.Next() {
		if *count++; *count > c.row {
			continue
		}
		if t == tensor.Bool {
			c.data = append(c.data, b2u(x != 0))
			continue
		}
		b := &ranges[t]
		if negative := int64(x) < 0; negative && -x > b.negative || !negative && x > b.positive {
			return bad("Key: %s. %d is out of range for an input of type %v", c.name, int64(x), t)
		}
		c.data = appendInteger(c.data, b.size, x)
	}
	if v.Bad() {
		return ErrCut
	}
	return nil
}

// decodeV1Examples reads TensorFlow Serving's JSON of examples:
//
//	{"context": {NAME: VALUE, …}, "examples": [{NAME: VALUE or [VALUE, …], …}, …]}
//
// of which the context may be missing, or come last.
func (r *Infer) decodeV1Examples(sig *tensor.Signature, model string, body []byte) error {
	s := scanner{b: body, b64: true}
	context, list := -1, -1
	if s.peek() == 0 {
		s.syntax("The document is empty.")
	} else if !s.take('{') {
		s.fail("the request's body is not a JSON object; send {\"examples\": […]}")
	}
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		s.peek()
		switch string(name) {
		case "context":
			context = s.i
		case "examples":
			list = s.i
		}
		s.skip(2)
	}
	s.end()
	if s.err != nil {
		return s.err
	}
	if list < 0 {
		return bad("When method is classify, key 'examples' is expected and was not found")
	}
	if err := r.callable(sig, model); err != nil {
		return err
	}
	if context >= 0 {
		s.i = context
		r.v1Example(&s, sig, 1)
	}
	r.share()
	rows := int64(0)
	if s.i = list; !s.begin('[') {
		s.fail("Expecting 'examples' value to be an list/array")
	}
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		rows++
		if r.v1Example(&s, sig, rows); s.err == nil {
			s.err = r.complete(sig, rows)
		}
	}
	if s.err != nil {
		return s.err
	}
	return r.assembleRows(sig, model, rows)
}

// v1Example reads an example as row n.
func (r *Infer) v1Example(s *scanner, sig *tensor.Signature, n int64) {
	if !s.begin('{') {
		s.fail("an example is an object of features")
	}
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		i := index(sig.Inputs, name)
		if i < 0 {
			s.skip(3)
			continue
		}
		c, t := &r.columns[i], sig.Inputs[i].DType
		c.begin(n)
		var nested nest
		count := int64(1)
		if s.peek() == '[' {
			c.data, count = s.array(c.data, t, name, &nested, 0)
		} else {
			c.data = s.value(c.data, t, name)
		}
		if nested.depth > 1 {
			s.fail("feature '%.64s' is a value or a list of values, not a list of lists", name)
		}
		if err := c.ended(int(count), t); err != nil && s.err == nil {
			s.err = err
		}
	}
}
