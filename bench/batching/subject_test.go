package main

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench/stats"
)

// scarce is a model that can be bound once.
type scarce struct {
	accel.Instance
	bound, closed int
}

var errScarce = errors.New("no more")

func (s *scarce) Signature() *tensor.Signature { return &tensor.Signature{} }

func (s *scarce) Bind(_, _ []tensor.Tensor) (accel.Call, error) {
	if s.bound == 1 {
		return nil, errScarce
	}
	s.bound++
	return scarceCall{s}, nil
}

type scarceCall struct{ *scarce }

func (scarceCall) Run() error                   { return nil }
func (scarceCall) Terminate()                   {}
func (scarceCall) Output(int) (_ tensor.Tensor) { return }
func (c scarceCall) Close() error               { c.closed++; return nil }

// What was bound before a slot that cannot be is closed, and nothing runs on.
func TestALoopThatCannotBeginLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	model := &scarce{}
	m := &bareModel{model, &subject{}, 2}
	if _, err := m.loop(1, time.Minute); !errors.Is(err, errScarce) {
		t.Errorf("error %v", err)
	}
	if model.closed != 1 {
		t.Errorf("%d of %d calls are closed", model.closed, model.bound)
	}
}

func TestAMissIsToldFromNoise(t *testing.T) {
	for _, c := range []struct {
		low, mid, high, goal float64
		most                 bool
		want                 string
	}{
		{0.9, 0.96, 1.1, 0.95, false, "reached"},
		{0.9, 0.94, 1.1, 0.95, false, "open"},
		{0.9, 0.92, 0.94, 0.95, false, "missed"},
		{0.9, 0.99, 1.1, 1, true, "reached"},
		{0.9, 1.05, 1.1, 1, true, "open"},
		{1.02, 1.05, 1.1, 1, true, "missed"},
	} {
		if got := judge(stats.Interval{Low: c.low, Mid: c.mid, High: c.high}, c.goal, c.most); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
