// Package codec turns the bodies of scoring requests into tensors, and tensors
// into the bodies of answers.
//
// Open Inference Protocol (scorer.OIP, scorer.Raw): the JSON of
// https://github.com/kserve/open-inference-protocol with the binary tensor
// extension in both directions. Error texts are Triton's where it has one, since
// clients match on them; what Triton answers with 500 or lets wrap is refused.
//
// Azure ML (scorer.AML): the conventions of its entry scripts. A body is a JSON
// object with
//
//   - one member per model input, named as the input is; or
//   - "data", for a model with one input; or
//   - "Inputs", an object with either of the above or such an array itself, and
//     perhaps "GlobalParameters", which is read over.
//
// A value is nested arrays of the input's shape. Where they have one dimension
// less, they are one row. The answer has a member per output with nested arrays,
// within "Results" where the request had "Inputs".
//
// KServe's first protocol and TensorFlow Serving's JSON (scorer.V1): see decodeV1.
//
// Protobuf (scorer.GRPC, scorer.TFServing): the Open Inference Protocol's
// ModelInferRequest and TF Serving's PredictRequest, read where they stand. Fields
// may come in any order, several times and in parts, as protobuf allows; the texts
// of errors are Triton's and TF Serving's.
//
// TF Serving's Classify and Regress, in protobuf and JSON: see Infer.callable.
package codec

import (
	"bytes"
	"math"
	"slices"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Infer is one decoded request. It is reused for request after request, and then
// allocates nothing for numeric tensors.
type Infer struct {
	// Inputs has one tensor per input, in signature order. Data points into the
	// body or into memory of the Infer, until the next Decode.
	Inputs []tensor.Tensor
	// Rows is the first dimension of all inputs where the model is batchable,
	// else 1.
	Rows int
	// Reach is what requests may refer to; the caller's. Nil is nothing.
	Reach *Reach
	// Timeout is how long the request may wait for its run to start; 0 does not
	// say. Source: Triton's parameter "timeout", in microseconds.
	Timeout time.Duration
	// Priority is the request's, 1 the highest; 0 does not say. Source: Triton's
	// parameter "priority".
	Priority uint32

	kind    scorer.Kind
	results bool   // the answer goes into "Results"
	byRow   bool   // the answer is predictions
	id      []byte // as it stands between its quotes; nil if there was none
	binary  bool   // outputs are raw unless they say otherwise
	wanted  []output
	given   []input

	memory  []byte   // decoded data
	shapes  []int64  // shapes of the inputs
	raws    [][]byte // raw tensors of a protobuf request, in its inputs' order
	columns []column // inputs of a request by rows, or by examples
	shared  int      // bytes that examples have from their context
	classes int      // the output that names classes; -1 for none
	scores  int      // the output that has scores, or values; -1 for none

	concluded []tensor.Tensor // of wanted, where some are not just the model's outputs
}

// input is where one input's data and shape are.
type input struct {
	index  int // in the signature; -1 for a free place
	dtype  tensor.DType
	shape  [2]int // in shapes: from, to
	raw    int    // bytes of raw data that follow the JSON; -1 if it has none
	data   []byte // raw data, in the body; nil if it is decoded
	memory [2]int // decoded data in memory: from, to
	count  int64  // elements in JSON; -1 for another form
	found  bool   // has data of its own
	at     place  // of data in shared memory
}

// output is one output that the request asks for.
type output struct {
	index   int
	binary  bool
	classes int   // as many, instead of the data; 0 wants the data
	at      place // where the data goes
}

// Size is the memory in bytes that r keeps between requests.
func (r *Infer) Size() int {
	n := cap(r.memory)
	for i := range r.columns {
		n += cap(r.columns[i].data) + cap(r.columns[i].context)
	}
	return n
}

// Decode reads body, which stays lent for as long as Inputs is used and until
// Append. model and version name what is called, for messages. Errors are
// *scorer.Error.
func (r *Infer) Decode(kind scorer.Kind, sig *tensor.Signature, model, version string, headLength int, body []byte) error {
	r.kind, r.results, r.byRow, r.id, r.binary, r.Rows, r.Timeout, r.Priority = kind, false, false, nil, false, 1, 0, 0
	r.wanted, r.given = r.wanted[:0], r.given[:0]
	r.memory, r.shapes, r.raws = r.memory[:0], r.shapes[:0], r.raws[:0]
	var err error
	switch kind {
	case scorer.OIP:
		err = r.decodeOIP(sig, model, headLength, body)
	case scorer.Raw:
		err = r.decodeRaw(sig, model, body)
	case scorer.AML:
		err = r.decodeAML(sig, model, body)
	case scorer.V1:
		err = r.decodeV1(sig, model, body)
	case scorer.GRPC:
		err = r.decodeGRPC(sig, model, body)
	case scorer.TFServing:
		err = r.decodeTF(sig, model, body)
	case scorer.TFClassify, scorer.TFRegress:
		err = r.decodeTFExamples(sig, model, body)
	case scorer.V1Classify, scorer.V1Regress:
		err = r.decodeV1Examples(sig, model, body)
	default:
		err = scorer.Errorf(scorer.Unsupported, "this scorer does not know the request's encoding; update it")
	}
	if err != nil {
		return err
	}
	return r.checkRows(sig, model)
}

// place makes Inputs as long as the signature's, empty.
func (r *Infer) place(sig *tensor.Signature) {
	r.Inputs = slices.Grow(r.Inputs[:0], len(sig.Inputs))[:len(sig.Inputs)]
	clear(r.Inputs)
}

// decodeOIP reads JSON of headLength bytes, or all of body where that is 0, and
// the raw tensors behind it.
func (r *Infer) decodeOIP(sig *tensor.Signature, model string, headLength int, body []byte) error {
	if headLength < 0 || headLength > len(body) {
		return scorer.Errorf(scorer.InvalidArgument, "inference header size should be in range (0, %d), got: %d", len(body), headLength)
	}
	head, tail := body, []byte(nil)
	if headLength > 0 {
		head, tail = body[:headLength], body[headLength:]
	}
	s := scanner{b: head}
	if s.peek() == 0 {
		s.syntax("The document is empty.")
	} else if !s.take('{') {
		s.fail("failed to get request params.: attempt to get members for non-object")
	}
	seen := false
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		switch string(name) {
		case "id":
			r.readID(&s)
		case "parameters":
			r.parameters(&s)
		case "inputs":
			if seen {
				s.fail("the request has 'inputs' twice")
			}
			seen = true
			r.readInputs(&s, sig, model)
		case "outputs":
			r.readOutputs(&s, sig, model)
		default:
			s.skip(1)
		}
	}
	s.end()
	if s.err != nil {
		return s.err
	}
	if !seen {
		return scorer.Errorf(scorer.InvalidArgument, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'")
	}
	if err := r.spread(sig, model, tail, headLength > 0); err != nil {
		return err
	}
	return r.assemble(sig, model)
}

func (r *Infer) readID(s *scanner) {
	if s.peek() != '"' {
		s.fail("Unable to parse 'id': attempt to access JSON non-string as string")
		return
	}
	from := s.i + 1
	s.text()
	if s.err == nil {
		r.id = s.b[from : s.i-1]
	}
}

// parameters reads those of the request.
func (r *Infer) parameters(s *scanner) {
	r.members(s, func(name []byte) {
		switch {
		case string(name) == "binary_data_output":
			r.binary = readFlag(s, "binary_data_output")
		case string(name) == "timeout":
			r.Timeout = microseconds(readNatural(s, "timeout", "a number of microseconds", math.MaxUint64))
		case string(name) == "priority":
			r.Priority = level(readNatural(s, "priority", "a whole number, 1 for the highest", math.MaxUint64))
		case bytes.HasPrefix(name, []byte("triton_")):
			s.fail("%v", errReserved)
		default:
			s.skip(2)
		}
	})
}

// microseconds are n of them, or as many as there can be.
func microseconds(n uint64) time.Duration {
	const most = math.MaxInt64 / uint64(time.Microsecond)
	return time.Duration(min(n, most)) * time.Microsecond
}

// level is a priority, or the lowest that there can be.
func level(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

var errReserved = scorer.Errorf(scorer.InvalidArgument, "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")

// members calls each for every member of a parameters object, whose value it reads.
func (r *Infer) members(s *scanner, each func(name []byte)) {
	if !s.begin('{') {
		s.fail("Unable to parse 'parameters': attempt to access JSON non-object as object")
		return
	}
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		each(name)
	}
}

func readFlag(s *scanner, name string) bool {
	v, ok := s.boolean()
	if !ok {
		s.fail("Unable to parse '%s': attempt to access JSON non-boolean as boolean", name)
	}
	return v
}

// readNatural reads a whole number of at most most.
func readNatural(s *scanner, name, what string, most uint64) uint64 {
	n, ok := s.natural()
	if !ok || n > most {
		s.fail("Unable to parse '%s': it must be %s", name, what)
		return 0
	}
	return n
}

func (r *Infer) readInputs(s *scanner, sig *tensor.Signature, model string) {
	if !s.begin('[') {
		s.fail("Unable to parse 'inputs': attempt to access JSON non-array as array")
		return
	}
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		r.readInput(s, sig, model)
	}
}

// readInput reads one input object. Data that comes before its type is read when
// the type is known.
func (r *Infer) readInput(s *scanner, sig *tensor.Signature, model string) {
	in := input{index: -1, raw: -1}
	var name []byte
	later, shaped := -1, false
	if !s.begin('{') {
		s.fail("Unable to parse 'inputs': attempt to access JSON non-object as object")
	}
	for key, more := s.key(true); more && s.err == nil; key, more = s.key(false) {
		switch string(key) {
		case "name":
			name = readText(s, "name")
		case "datatype":
			text := readText(s, "datatype")
			var ok bool
			if in.dtype, ok = tensor.ParseDType(text); !ok {
				s.fail("invalid datatype '%.32s' for input '%.64s'", text, name)
			}
		case "shape":
			r.readShape(s, &in)
			shaped = true
		case "parameters":
			r.inputParameters(s, &in)
		case "data":
			if in.found || later >= 0 {
				s.fail("input '%.64s' has 'data' twice", name)
			} else if in.dtype == tensor.Invalid {
				s.peek()
				later = s.i
				s.skip(3)
			} else {
				r.readData(s, &in, name)
			}
		default:
			s.skip(3)
		}
	}
	if later >= 0 && s.err == nil && in.dtype != tensor.Invalid {
		again := scanner{b: s.b, i: later}
		r.readData(&again, &in, name)
		if again.err != nil {
			s.err, s.i = again.err, len(s.b)
		}
	}
	if s.err == nil {
		s.err = r.addInput(sig, model, name, in, shaped)
	}
}

// readText reads a member that must be a string.
func readText(s *scanner, member string) []byte {
	if s.peek() != '"' {
		s.fail("Unable to parse '%s': attempt to access JSON non-string as string", member)
		return nil
	}
	return s.text()
}

func (r *Infer) readShape(s *scanner, in *input) {
	in.shape[0] = len(r.shapes)
	if !s.begin('[') {
		s.fail("Unable to parse 'shape': attempt to access JSON non-array as array")
		return
	}
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		if len(r.shapes)-in.shape[0] == maxDims {
			s.fail("a shape has at most %d dimensions", maxDims)
			return
		}
		m, ok := s.natural()
		if !ok || m > math.MaxInt64 {
			s.fail("Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer")
			return
		}
		r.shapes = append(r.shapes, int64(m))
	}
	in.shape[1] = len(r.shapes)
}

func (r *Infer) inputParameters(s *scanner, in *input) {
	r.members(s, func(name []byte) {
		switch string(name) {
		case "binary_data_size":
			if n := readNatural(s, "binary_data_size", "a number of bytes", math.MaxInt32); s.err == nil {
				in.raw = int(n)
			}
		default:
			if !in.at.read(s, name) {
				s.skip(4)
			}
		}
	})
}

func (r *Infer) readData(s *scanner, in *input, name []byte) {
	in.found = true
	in.memory[0] = len(r.memory)
	var n nest
	r.memory, in.count = s.array(r.memory, in.dtype, name, &n, 0)
	in.memory[1] = len(r.memory)
}

// addInput takes an input that was read from JSON.
func (r *Infer) addInput(sig *tensor.Signature, model string, name []byte, in input, shaped bool) error {
	switch {
	case name == nil:
		return bad("Unable to parse 'name': attempt to access non-existing object member 'name'")
	case !shaped:
		return bad("Unable to parse 'shape': attempt to access non-existing object member 'shape'")
	case in.dtype == tensor.Invalid:
		return bad("Unable to parse 'datatype': attempt to access non-existing object member 'datatype'")
	}
	set, what := 0, ""
	for _, field := range [...]struct {
		is   bool
		name string
	}{{in.found, " 'data'"}, {in.raw >= 0, " 'binary_data_size'"}, {in.at.region != "", " 'shared_memory_region'"}} {
		if field.is {
			set++
			what += field.name
		}
	}
	switch {
	case set == 0:
		return bad("%s But no field is set", onlyOne)
	case set > 1:
		return bad("%s But set%s", onlyOne, what)
	case in.at.region != "":
		in.found, in.count = true, -1
	}
	return r.take(sig, model, name, in)
}

const onlyOne = "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'."

// take takes an input that was read, and checks that it belongs to the model.
func (r *Infer) take(sig *tensor.Signature, model string, name []byte, in input) error {
	if in.index = index(sig.Inputs, name); in.index < 0 {
		return bad("unexpected inference input '%.64s' for model '%s'", name, model)
	}
	if r.input(in.index) != nil {
		return bad("input '%s' already exists in request", name)
	}
	r.given = append(r.given, in)
	return nil
}

// input is what was read of input i; nil if nothing was.
func (r *Infer) input(i int) *input {
	for k := range r.given {
		if r.given[k].index == i {
			return &r.given[k]
		}
	}
	return nil
}

// want takes an output that the request asks for.
func (r *Infer) want(sig *tensor.Signature, model string, name []byte, o output) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.index = index(sig.Outputs, name); o.index < 0 {
		return bad("unexpected inference output '%.64s' for model '%s'", name, model)
	}
	if r.wants(o.index) {
		return bad("output '%s' already exists in request", name)
	}
	r.wanted = append(r.wanted, o)
	return nil
}

// wants reports whether output i was asked for.
func (r *Infer) wants(i int) bool {
	return slices.ContainsFunc(r.wanted, func(o output) bool { return o.index == i })
}

func index(list []tensor.Info, name []byte) int {
	for i := range list {
		if list[i].Name == string(name) {
			return i
		}
	}
	return -1
}

// readClasses reads how many classes are asked for.
func readClasses(s *scanner) int {
	n, ok := s.natural()
	if !ok {
		s.fail("Unable to set 'classification': attempt to access JSON non-unsigned-integer as unsigned-integer")
		return 0
	}
	return int(min(n, math.MaxInt32))
}

func (r *Infer) readOutputs(s *scanner, sig *tensor.Signature, model string) {
	if !s.begin('[') {
		s.fail("Unable to parse 'outputs': attempt to access JSON non-array as array")
		return
	}
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		if !s.begin('{') {
			s.fail("Unable to parse 'outputs': attempt to access JSON non-object as object")
			return
		}
		r.readOutput(s, sig, model)
	}
}

func (r *Infer) readOutput(s *scanner, sig *tensor.Signature, model string) {
	o := output{index: -1}
	var name []byte
	for key, more := s.key(true); more && s.err == nil; key, more = s.key(false) {
		switch string(key) {
		case "name":
			name = readText(s, "name")
		case "parameters":
			r.members(s, func(p []byte) {
				switch string(p) {
				case "binary_data":
					o.binary = readFlag(s, "binary_data")
				case "classification":
					o.classes = readClasses(s)
				default:
					if !o.at.read(s, p) {
						s.skip(4)
					}
				}
			})
		default:
			s.skip(3)
		}
	}
	if s.err == nil {
		s.err = r.want(sig, model, name, o)
	}
}
