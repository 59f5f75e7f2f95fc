package models_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench/wide"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/model"
)

// ran passes on how each run ended.
type ran chan batch.Run

func (r ran) Ran(run batch.Run) {
	select {
	case r <- run:
	default:
	}
}

// told is a driver that tells when a run begins.
type told struct {
	accel.Driver
	began chan struct{}
}

func (d told) Open(m accel.Model, o accel.Options) (accel.Instance, error) {
	i, err := d.Driver.Open(m, o)
	return toldInstance{i, d.began}, err
}

type toldInstance struct {
	accel.Instance
	began chan struct{}
}

func (i toldInstance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	c, err := i.Instance.Bind(in, out)
	return toldCall{c, i.began}, err
}

type toldCall struct {
	accel.Call
	began chan struct{}
}

func (c toldCall) Run() error {
	select {
	case c.began <- struct{}{}:
	default:
	}
	return c.Call.Run()
}

// A request that takes long leaves its device when its caller leaves: the run is
// terminated, and the next request does not wait for it.
func TestALongRunEndsWhenItsCallerLeaves(t *testing.T) {
	lib, err := library.Find(library.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := ort.NewCPU(ort.Config{Library: lib, Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "wide.onnx")
	if err := wide.Write(path); err != nil {
		t.Fatal(err)
	}
	runs := make(ran, 100)
	began := make(chan struct{}, 1)
	set := model.NewSet([]accel.Driver{told{cpu, began}}, func(model.Key) batch.Observer { return runs }, slog.New(slog.DiscardHandler))
	defer set.Close()
	const rows = 2048
	stage, err := set.Stage(context.Background(), []model.Config{{Endpoint: "e", Version: "v", Path: path, MaxBatch: rows, Batching: &batch.Policy{Fixed: true}}}) // in one run
	if err != nil {
		t.Fatal(err)
	}
	stage.Commit()
	<-began // warm-up
	v := stage.Versions()[model.Key{Endpoint: "e", Version: "v"}]
	body := fmt.Appendf(nil, `{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,%d],"data":[%s0]}]}`, rows, wide.Inputs, strings.Repeat("0,", rows*wide.Inputs-1))
	score := func(left bool) *scorer.Response {
		req := scorer.Request{Kind: scorer.OIP, Body: body, Deadline: scorer.Now().Add(time.Hour), Wait: scorer.NewWaiter()}
		resp := &scorer.Response{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			v.Score(&req, resp)
		}()
		if left {
			<-began
			req.Wait.Abandon()
		}
		<-done
		return resp
	}
	if r := score(false); r.Status != scorer.OK {
		t.Fatalf("%v %s", r.Status, r.Body)
	}
	<-began
	if r := score(true); r.Status != scorer.Canceled {
		t.Fatalf("a request whose caller left: %v %s", r.Status, r.Body)
	}
	limit := time.After(10 * time.Second)
	for ended := false; !ended; {
		select {
		case r := <-runs: // those of the request before are there, too
			ended = r.Failed
		case <-limit:
			t.Fatal("the run went on to its end")
		}
	}
	if r := score(false); r.Status != scorer.OK {
		t.Errorf("the request after it: %v %s", r.Status, r.Body)
	}
}
