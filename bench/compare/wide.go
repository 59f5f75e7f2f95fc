package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench"
	"sluice.dev/bench/local"
	"sluice.dev/bench/wide"
)

const wideName = "wide"

// wideBench is a server of the wide model, an echo that runs it, and the model.
type wideBench struct {
	server, echo *target
	bare         *bareModel
}

// wideRound is what one round found.
type wideRound struct {
	rate, batch float64 // rows per second of the bare loop at its best batch, and that
	share       float64 // of it, with many connections
	lone, floor float64 // µs of a lone request beside the model's own time: of the server, of the echo
	errors      int64
}

// wideModel compares rows per second with the bare runtime at its best batch, and
// a lone request with the model's own time, on one inference thread each.
func wideModel(ctx context.Context, p *local.Processes, dir string, w io.Writer) (err error) {
	path := filepath.Join(dir, "wide.onnx")
	if err := wide.Write(path); err != nil {
		return err
	}
	var b wideBench
	if b.server, err = serve(p, dir, wideName, path, "--cpu-slots", "1"); err != nil {
		return err
	}
	if b.bare, err = openBare(path); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bare.Close()) }()
	if b.echo, err = echoOf(ctx, p, dir, wideName, b.server.address, row(wideName, "x", wide.Inputs)[1], "-echo-model", path); err != nil {
		return err
	}
	b.server.item = bench.Item{Name: wideName, Wire: b.echo.item.Wire} // a batch may round differently
	list := make([]wideRound, *rounds)
	for i := range list {
		if list[i], err = b.round(ctx); err != nil {
			return err
		}
	}
	reportWide(w, list)
	return nil
}

// round measures bare and served in turn, since the machine's pace drifts.
func (b *wideBench) round(ctx context.Context) (r wideRound, err error) {
	before, batch, err := b.bare.best()
	if err != nil {
		return r, err
	}
	many, err := ask(ctx, b.server, 64, *seconds)
	if err != nil {
		return r, err
	}
	took, _, err := b.bare.time(batch)
	if err != nil {
		return r, err
	}
	_, single, err := b.bare.time(1)
	if err != nil {
		return r, err
	}
	base, err := ask(ctx, b.echo, 1, *seconds/2)
	if err != nil {
		return r, err
	}
	one, err := ask(ctx, b.server, 1, *seconds/2)
	if err != nil {
		return r, err
	}
	_, again, err := b.bare.time(1)
	single = (single + again) / 2
	rate := (before + float64(batch)/took.Seconds()) / 2
	return wideRound{
		rate: rate, batch: float64(batch), share: many.Rate / rate,
		lone: micros(one.Latency.At(50) - single), floor: micros(base.Latency.At(50) - single),
		errors: many.Errors() + base.Errors() + one.Errors(),
	}, err
}

// reportWide writes the rounds' medians, and how many requests failed in all.
func reportWide(w io.Writer, list []wideRound) {
	failed := int64(0)
	for _, r := range list {
		failed += r.errors
	}
	of := func(f func(wideRound) float64) float64 { return median(list, f) }
	fmt.Fprintf(w, "\nwide, one inference thread: %.0f%% of the rows per second of the bare loop (%.0f at its best batch, %.0f) with 64 connections; goal 90%%\n",
		100*of(func(r wideRound) float64 { return r.share }), of(func(r wideRound) float64 { return r.rate }), of(func(r wideRound) float64 { return r.batch }))
	fmt.Fprintf(w, "wide, one connection: %.0f µs at the median beside the model's own time in a loop; goal 60 µs; a bare fasthttp server that runs the model takes %.0f µs beside it\n",
		of(func(r wideRound) float64 { return r.lone }), of(func(r wideRound) float64 { return r.floor }))
	fmt.Fprintf(w, "wide: %d requests failed\n", failed)
}

// bareModel is a model without a server.
type bareModel struct {
	accel.Instance
}

func openBare(path string) (*bareModel, error) {
	lib, err := library.Find(library.Config{})
	if err != nil {
		return nil, err
	}
	cpu, err := ort.NewCPU(ort.Config{Library: lib})
	if err != nil {
		return nil, err
	}
	m, err := cpu.Open(accel.Model{Name: "wide", Path: path}, accel.Options{})
	return &bareModel{m}, err
}

// best is the most rows per second of any batch size, and that size.
func (m *bareModel) best() (rate float64, batch int, err error) {
	for rows := 1; rows <= 64; rows *= 2 {
		took, _, err := m.time(rows)
		if err != nil {
			return 0, 0, err
		}
		if r := float64(rows) / took.Seconds(); r > rate {
			rate, batch = r, rows
		}
	}
	return rate, batch, nil
}

// time is how long a run takes, in a loop.
func (m *bareModel) time(rows int) (mean, median time.Duration, err error) {
	call, err := m.bind(rows)
	if err != nil {
		return 0, 0, err
	}
	defer call.Close()
	var list []time.Duration
	began := time.Now()
	for last := began; last.Sub(began) < 200*time.Millisecond; {
		if err := call.Run(); err != nil {
			return 0, 0, err
		}
		now := time.Now()
		list = append(list, now.Sub(last))
		last = now
	}
	slices.Sort(list)
	return time.Since(began) / time.Duration(len(list)), list[len(list)/2], nil
}

// bind prepares runs of some rows.
func (m *bareModel) bind(rows int) (accel.Call, error) {
	zeros := func(width int) []tensor.Tensor {
		return []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{int64(rows), int64(width)}, Data: make([]byte, 4*rows*width)}}
	}
	return m.Bind(zeros(wide.Inputs), zeros(wide.Outputs))
}
