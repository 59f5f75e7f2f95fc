// Command batching measures what batches do for real models, without anything set,
// beside a grid of fixed settings and the bare runtime, in one run.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/bench/models"
	"sluice.dev/bench/report"
	"sluice.dev/bench/stats"
	"sluice.dev/bench/wide"
)

var (
	slots   = flag.Int("slots", 1, "runs side by side; the callers, in the same process, want a core of their own")
	seconds = flag.Float64("seconds", 0.4, "of each measurement, more where a model is slow")
	minilm  = flag.String("minilm", "examples/minilm/minilm.onnx", "the sentence encoder, built by examples/minilm/build.py")
	only    = flag.String("only", "", "models to measure, such as wide,magika; default all")
	skip    = flag.String("skip", "", "of closed, open, lone, two: what not to measure")
	results = flag.String("results", "", "also write the outcome into this file, as a section of Markdown")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "batching:", err)
		os.Exit(1)
	}
}

// subjects are the models, with a request of one row each, and why others are missing.
func subjects(dir string) (chosen []*subject, missing []error, err error) {
	widePath := filepath.Join(dir, "wide.onnx")
	err = wide.Write(widePath)
	path := func(m models.Model) string {
		p, e := models.Path(m)
		err = errors.Join(err, e)
		return p
	}
	list := []*subject{
		{name: "digits", path: "examples/digits/mlp.onnx", inputs: []input{{"input", "FP32", []int64{64}}}, rows: 64}, // a request costs more than a row
		{name: "wide", path: widePath, inputs: []input{{"x", "FP32", []int64{wide.Inputs}}}},
		{name: "direction", path: path(models.Direction), inputs: []input{{"x", "FP32", []int64{3, 48, 192}}}},
		{name: "minilm", path: *minilm, inputs: []input{{"input_ids", "INT64", []int64{16}}, {"attention_mask", "INT64", []int64{16}}}},
		{name: "magika", path: path(models.Magika), inputs: []input{{"bytes", "INT32", []int64{2048}}}},
		{name: "recogniser", path: path(models.Recogniser), inputs: []input{{"x", "FP32", []int64{3, 48, 320}}}},
	}
	if err != nil {
		return nil, nil, err
	}
	for _, s := range list {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		if _, e := os.Stat(s.path); e != nil {
			missing = append(missing, e)
			continue
		}
		chosen = append(chosen, s)
	}
	return chosen, missing, nil
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sluice-batching-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	list, missing, err := subjects(dir)
	if err != nil {
		return err
	}
	b, err := newBench()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	out := io.MultiWriter(os.Stdout, &text)
	heading(out)
	for _, s := range list {
		if err := b.measure(ctx, out, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if !skipped("two") {
		if err := b.twoModels(ctx, out, list); err != nil {
			return err
		}
	}
	for _, m := range missing {
		fmt.Fprintf(out, "\nNot measured: %v\n", m)
	}
	if *results == "" {
		return nil
	}
	return report.Section(*results, text.String())
}

// heading says what is measured, where, and how.
func heading(out io.Writer) {
	fmt.Fprintf(out, "# Batches that are learnt\n\n`go run ./bench/batching %s`, %s. %d run(s) side by side, one inference thread each.\n",
		strings.Join(os.Args[1:], " "), report.Machine(), *slots)
	fmt.Fprint(out, `
Medians of rounds in turn, and of the rounds' ratios, with the interval that has the true median in 95% of cases. A setting is the best of
20: a delay of 0, 0.1, 0.5, 1 or 5 ms, and at most 1, 4, 16 or 64 rows. "Open" is a goal that is missed by less than the interval.

| model | measured | learnt | peer | ratio | 95% | goal | verdict |
|---|---|---|---|---|---|---|---|
`)
}

func skipped(what string) bool { return strings.Contains(*skip, what) }

// verdict is a line of the table. A ratio must be at least goal, or, where more is
// worse, at most; goal 0 is none.
func verdict(out io.Writer, model, what, learnt, peer string, ratio stats.Interval, goal float64, most bool) {
	wanted, word := "–", "–"
	if goal > 0 {
		wanted, word = fmt.Sprintf("%s %.2f", map[bool]string{true: "≤", false: "≥"}[most], goal), judge(ratio, goal, most)
	}
	fmt.Fprintf(out, "| %s | %s | %s | %s | %.2f | %.2f–%.2f | %s | %s |\n", model, what, learnt, peer, ratio.Mid, ratio.Low, ratio.High, wanted, word)
}

// judge says whether a goal is met, and, where it is not, whether that is certain.
func judge(ratio stats.Interval, goal float64, most bool) string {
	mid, best := ratio.Mid, ratio.High
	if most {
		mid, best, goal = -mid, -ratio.Low, -goal
	}
	switch {
	case mid >= goal:
		return "reached"
	case best >= goal:
		return "open"
	}
	return "missed"
}

// round is a time for people.
func round(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}
