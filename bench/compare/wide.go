package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench"
	"sluice.dev/bench/local"
	"sluice.dev/bench/stats"
	"sluice.dev/bench/wide"
)

// wideModel compares rows per second with the bare runtime at its best batch, and
// a lone request with the model's own time, on one inference thread each.
func wideModel(ctx context.Context, p *local.Processes, dir string, w io.Writer) (err error) {
	path := filepath.Join(dir, "wide.onnx")
	if err := wide.Write(path); err != nil {
		return err
	}
	t, err := serve(p, dir, "wide", path, "--cpu-slots", "1")
	if err != nil {
		return err
	}
	bare, err := openBare(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()
	echoTime, err := bare.time(1)
	if err != nil {
		return err
	}
	echo, err := echoOf(ctx, p, dir, "wide", t.address, row("wide", "x", wide.Inputs)[1], echoTime)
	if err != nil {
		return err
	}
	t.item = bench.Item{Name: "wide", Wire: echo.item.Wire} // a batch may round differently
	var ratios, rates, batches, lone, floor []float64
	for range *rounds {
		best, batch, single, err := bare.best()
		if err != nil {
			return err
		}
		many, err := ask(ctx, t, 64, *seconds)
		if err != nil {
			return err
		}
		again, err := bare.time(batch)
		if err != nil {
			return err
		}
		best = (best + float64(batch)/again.Seconds()) / 2 // the machine's pace drifts
		base, err := ask(ctx, echo, 1, *seconds/2)
		if err != nil {
			return err
		}
		floor = append(floor, micros(base.Latency.At(50)-echoTime))
		one, err := ask(ctx, t, 1, *seconds/2)
		if err != nil {
			return err
		}
		ratios, rates, batches = append(ratios, many.Rate/best), append(rates, best), append(batches, float64(batch))
		lone = append(lone, micros(one.Latency.At(50)-single))
	}
	fmt.Fprintf(w, "\nwide, one inference thread: %.0f%% of the rows per second of the bare loop (%.0f at its best batch, %.0f) with 64 connections; goal 90%%\n",
		100*stats.Median(ratios), stats.Median(rates), stats.Median(batches))
	fmt.Fprintf(w, "wide, one connection: the model's own time and %.0f µs at the median; goal 60 µs; an echo that computes for that time takes %.0f µs more than it\n",
		stats.Median(lone), stats.Median(floor))
	return nil
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

// best is the most rows per second of any batch size, that size, and the time of
// a run of one row.
func (m *bareModel) best() (rate float64, batch int, single time.Duration, err error) {
	for rows := 1; rows <= 64; rows *= 2 {
		took, err := m.time(rows)
		if err != nil {
			return 0, 0, 0, err
		}
		if rows == 1 {
			single = took
		}
		if r := float64(rows) / took.Seconds(); r > rate {
			rate, batch = r, rows
		}
	}
	return rate, batch, single, nil
}

// time is the mean time of a run.
func (m *bareModel) time(rows int) (time.Duration, error) {
	bind := func(width int) []tensor.Tensor {
		return []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{int64(rows), int64(width)}, Data: make([]byte, 4*rows*width)}}
	}
	call, err := m.Bind(bind(wide.Inputs), bind(wide.Outputs))
	if err != nil {
		return 0, err
	}
	defer call.Close()
	began, runs := time.Now(), 0
	for ; time.Since(began) < 200*time.Millisecond; runs++ {
		if err := call.Run(); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / time.Duration(runs), nil
}
