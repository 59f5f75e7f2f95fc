package batch

import (
	"fmt"
	"slices"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// space is the memory in which one worker runs one model: a buffer per input
// into which a batch's rows are gathered and, where every shape is known, a
// buffer per output and one bound call per batch size, so that a run binds and
// allocates nothing. The buffers grow with the batches, by doubling: many models
// never get a large one. Owned by its worker.
//
// Rows are always copied, also for a batch of one: the copy is small beside a
// run, and it frees the request's memory before the run starts, so that a
// client that leaves never has to wait for the device.
type space struct {
	inst  accel.Instance
	sig   *tensor.Signature
	fixed bool      // all shapes known but for the rows
	fill  [][]byte  // per input, the element to fill up with; nil where shapes do not mix
	dims  [][]int64 // per input, the shape of a row where fill is set
	in    [][]byte
	out   [][]byte
	calls []accel.Call // by rows; nil where not bound yet
	limit int          // rows that a run may have
	room  int          // rows that the buffers have place for

	bound  []tensor.Tensor // scratch for Bind
	shapes []int64         // scratch for shapes
	open   accel.Call      // the last run's call where it is not kept
}

func newSpace(inst accel.Instance, limit int, p *Policy) *space {
	sig := inst.Signature()
	s := &space{inst: inst, sig: sig, fixed: sig.Batchable(), limit: limit}
	for _, list := range [][]tensor.Info{sig.Inputs, sig.Outputs} {
		for i := range list {
			s.fixed = s.fixed && rowSize(&list[i]) > 0
		}
	}
	s.in = make([][]byte, len(sig.Inputs))
	if !s.fixed {
		for i := range sig.Inputs {
			if p.Pad != nil {
				s.fill = append(s.fill, element(sig.Inputs[i].DType, p.Pad[sig.Inputs[i].Name]))
				s.dims = append(s.dims, nil)
			}
		}
		return s
	}
	s.out = make([][]byte, len(sig.Outputs))
	return s
}

// grow makes room for rows, where every shape is known. Calls over the buffers of
// before are freed; none runs.
func (s *space) grow(rows int) {
	if rows <= s.room {
		return
	}
	s.closeAll()
	s.room = min(max(rows, 2*s.room), s.limit)
	s.calls = make([]accel.Call, s.room+1)
	for i := range s.in {
		s.in[i] = make([]byte, s.room*rowSize(&s.sig.Inputs[i]))
	}
	for i := range s.out {
		s.out[i] = make([]byte, s.room*rowSize(&s.sig.Outputs[i]))
	}
}

// rowSize is the bytes of one row, 0 where that is not fixed.
func rowSize(i *tensor.Info) int {
	if len(i.Shape) == 0 {
		return 0
	}
	n, ok := tensor.ByteSize(i.DType, i.Shape[1:])
	if !ok {
		return 0
	}
	return int(n)
}

// begin makes room for a new batch: where shapes mix, of the largest of each
// dimension.
func (s *space) begin(run []Segment) {
	if s.fixed {
		rows := 0
		for i := range run {
			rows += run[i].Rows
		}
		s.grow(rows)
	}
	for i := range s.in {
		s.in[i] = s.in[i][:0]
		if s.fill == nil {
			continue
		}
		s.dims[i] = s.dims[i][:0]
		for m := range run {
			for k, d := range inner(&run[m].Job.In[i]) {
				if m == 0 {
					s.dims[i] = append(s.dims[i], d)
				}
				s.dims[i][k] = max(s.dims[i][k], d)
			}
		}
	}
}

// gather appends rows of j's inputs.
func (s *space) gather(seg *Segment) {
	for i := range s.in {
		in := &seg.Job.In[i]
		rows := rowsOf(in, seg.From, seg.Rows, seg.whole())
		if s.fill == nil || slices.Equal(inner(in), s.dims[i]) {
			s.in[i] = append(s.in[i], rows...)
			continue
		}
		one := len(rows) / seg.Rows
		for r := range seg.Rows {
			s.in[i] = appendPadded(s.in[i], rows[r*one:(r+1)*one], inner(in), s.dims[i], s.fill[i])
		}
	}
}

// call is the run of the gathered batch; like is any member, for the inner
// dimensions.
func (s *space) call(rows int, like *Job) (accel.Call, error) {
	if s.fixed {
		return s.fixedCall(rows)
	}
	s.close()
	s.bound, s.shapes = s.bound[:0], s.shapes[:0]
	for i := range s.in {
		from := len(s.shapes)
		s.shapes = append(s.shapes, like.In[i].Shape...)
		if s.sig.Batchable() {
			s.shapes[from] = int64(rows)
		}
		if s.fill != nil {
			s.shapes = append(s.shapes[:from+1], s.dims[i]...)
		}
		s.bound = append(s.bound, tensor.Tensor{DType: s.sig.Inputs[i].DType, Shape: s.shapes[from:len(s.shapes):len(s.shapes)], Data: s.in[i]})
	}
	call, err := s.inst.Bind(s.bound, make([]tensor.Tensor, len(s.sig.Outputs)))
	if err != nil {
		return nil, err
	}
	s.open = call
	return call, nil
}

func (s *space) fixedCall(rows int) (accel.Call, error) {
	if s.calls[rows] == nil {
		call, err := s.bind(rows)
		if err != nil {
			return nil, err
		}
		s.calls[rows] = call
	}
	return s.calls[rows], nil
}

// discard gives up the call of so many rows, which was terminated.
func (s *space) discard(rows int) {
	if !s.fixed {
		return // it is not kept
	}
	_ = s.calls[rows].Close() // frees memory only
	s.calls[rows] = nil
}

// bind prepares a call over the first rows of the buffers.
func (s *space) bind(rows int) (accel.Call, error) {
	view := func(list []tensor.Info, data [][]byte) []tensor.Tensor {
		t := make([]tensor.Tensor, len(list))
		for i := range list {
			shape := append([]int64{int64(rows)}, list[i].Shape[1:]...)
			t[i] = tensor.Tensor{DType: list[i].DType, Shape: shape, Data: data[i][:rows*rowSize(&list[i])]}
		}
		return t
	}
	return s.inst.Bind(view(s.sig.Inputs, s.in), view(s.sig.Outputs, s.out))
}

// close ends the loan of the buffers to a call that is not kept.
func (s *space) close() {
	if s.open != nil {
		_ = s.open.Close() // frees memory only
		s.open = nil
	}
}

// closeAll frees every call.
func (s *space) closeAll() {
	s.close()
	for _, c := range s.calls {
		if c != nil {
			_ = c.Close()
		}
	}
}

// rowsOf is the bytes of rows [from, from+n) of t, all of it where whole.
func rowsOf(t *tensor.Tensor, from, n int, whole bool) []byte {
	if whole {
		return t.Data
	}
	inner, _ := tensor.Elements(t.Shape[1:])
	_, rest := tensor.Cut(t.DType, t.Data, from*int(inner))
	rows, _ := tensor.Cut(t.DType, rest, n*int(inner))
	return rows
}

// checkRows makes sure that the model gave one row per row.
func (s *space) checkRows(call accel.Call, rows int) error {
	if s.fixed || !s.sig.Batchable() {
		return nil
	}
	for i := range s.sig.Outputs {
		if o := call.Output(i); len(o.Shape) == 0 || o.Shape[0] != int64(rows) {
			return fmt.Errorf("output %q has shape %v for %d rows: the model's rows are not independent; set maxBatchSize: 1",
				s.sig.Outputs[i].Name, o.Shape, rows)
		}
	}
	return nil
}
