package codec

import (
	"sluice.dev/accel/tensor"
)

// decodeAML reads Azure ML's JSON.
func (r *Infer) decodeAML(sig *tensor.Signature, model string, body []byte) error {
	s := scanner{b: body}
	if s.peek() == 0 {
		return bad("the request has no body; send JSON such as {\"data\": [[…]]}")
	}
	if !s.take('{') {
		return bad("the request's body is not a JSON object; send JSON such as {\"data\": [[…]]}")
	}
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		switch {
		case string(name) == "Inputs" && sig.Input("Inputs") < 0:
			r.results = true
			r.amlInputs(&s, sig)
		default:
			r.amlMember(&s, sig, name)
		}
	}
	s.end()
	if s.err != nil {
		return s.err
	}
	return r.assemble(sig, model)
}

// amlInputs reads the value of "Inputs".
func (r *Infer) amlInputs(s *scanner, sig *tensor.Signature) {
	if s.peek() == '[' {
		r.amlMember(s, sig, []byte("data"))
		return
	}
	if !s.want('{', "'Inputs' must be an object or an array.") {
		return
	}
	for name, more := s.key(true); more && s.err == nil; name, more = s.key(false) {
		r.amlMember(s, sig, name)
	}
}

// amlMember reads a member that may be an input, and passes over others.
func (r *Infer) amlMember(s *scanner, sig *tensor.Signature, name []byte) {
	i := index(sig.Inputs, name)
	if i < 0 && string(name) == "data" && len(sig.Inputs) == 1 {
		i = 0
	}
	if i < 0 {
		s.skip(2)
		return
	}
	if r.input(i) != nil {
		s.fail("input '%s' is given twice", sig.Inputs[i].Name)
		return
	}
	r.given = append(r.given, r.amlTensor(s, i, &sig.Inputs[i], sig.Batchable()))
}

// amlTensor reads nested arrays, or a plain value for a scalar, as input i.
func (r *Infer) amlTensor(s *scanner, i int, info *tensor.Info, batchable bool) input {
	in := input{index: i, dtype: info.DType, raw: -1, found: true}
	n := nest{strict: true}
	in.memory[0], in.shape[0] = len(r.memory), len(r.shapes)
	if s.peek() == '[' {
		r.memory, in.count = s.array(r.memory, info.DType, []byte(info.Name), &n, 0)
	} else {
		r.memory, in.count = s.value(r.memory, info.DType, []byte(info.Name)), 1
	}
	if n.depth == len(info.Shape)-1 && batchable {
		r.shapes = append(r.shapes, 1)
	}
	for _, d := range n.dims[:n.depth] {
		r.shapes = append(r.shapes, max(d, 0))
	}
	in.memory[1], in.shape[1] = len(r.memory), len(r.shapes)
	return in
}
