// Package cmd holds the commands, and the tests that hold the whole tree to its
// structure.
package cmd

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// order is which packages of ours a package may import. A package that is not
// here may not exist; an import that is not here may not either. Tests are free.
var order = map[string][]string{
	"accel/tensor":            {},
	"accel":                   {"accel/tensor"},
	"accel/null":              {"accel", "accel/tensor"},
	"accel/sim":               {"accel", "accel/null", "accel/tensor"},
	"accel/acceltest":         {"accel", "accel/tensor"},
	"accel/ort":               {"accel", "accel/tensor"},
	"accel/ort/library":       {"accel/ort/library/wheel"},
	"accel/ort/library/wheel": {},

	"scorer":            {"accel/tensor"}, // an offer has a signature
	"scorer/batch":      {"scorer", "accel", "accel/tensor"},
	"scorer/batch/sim":  {"scorer", "scorer/batch", "accel/tensor"}, // the very Former
	"scorer/codec":      {"scorer", "scorer/codec/wire", "accel/tensor"},
	"scorer/codec/wire": {},
	"scorer/lane":       {"scorer"},
	"scorer/shm":        {"scorer"},
	"scorer/model":      {"scorer", "scorer/batch", "scorer/codec", "accel", "accel/tensor"},

	"auth":        {},
	"auth/apikey": {"auth"},
	"auth/issue":  {},
	"auth/token":  {"auth", "auth/issue"}, // the house's own issuer is one of those that it verifies
	"router":      {},

	"gateway/admit":   {"scorer"},
	"gateway/balance": {"scorer"},
	"gateway/metrics": {"scorer"},
	"gateway/limit":   {"scorer"},
	"gateway/mirror":  {"scorer", "scorer/codec"}, // reads answers, after the path is done with them
	"gateway":         {"auth", "router", "scorer", "gateway/admit", "gateway/balance", "gateway/limit", "gateway/metrics", "gateway/mirror"},
	"gateway/header":  {"scorer"},
	"gateway/triton":  {"auth", "gateway", "scorer"},
	// Front ends know how errors and metadata are encoded, not how bodies are.
	"gateway/httpapi":             {"gateway", "gateway/header", "gateway/triton", "scorer", "scorer/codec", "auth", "accel/tensor"},
	"gateway/grpcapi":             {"auth", "gateway", "gateway/header", "gateway/triton", "gateway/grpcapi/inferencepb", "gateway/grpcapi/tfservingpb", "scorer", "scorer/codec", "scorer/codec/wire", "accel/tensor"},
	"gateway/grpcapi/inferencepb": {},
	"gateway/grpcapi/tfservingpb": {},
	"gateway/snapshot":            {"gateway", "gateway/limit", "gateway/metrics", "auth", "auth/apikey", "auth/issue", "auth/token", "router", "deploy/spec"},

	// It gives pools their replicas. Only bodies that go over gRPC are read.
	"gateway/upstream": {"gateway", "gateway/header", "scorer", "scorer/codec", "scorer/codec/wire", "accel/tensor"},

	"deploy/spec":             {},
	"deploy/api":              {"auth/apikey"}, // its own key is checked as all are
	"deploy/repository/pbtxt": {},
	// A model's configuration says what its tensors look like, and is told as findings.
	"deploy/repository": {"deploy/repository/pbtxt", "deploy/spec", "accel/tensor"},

	"bench/clients":      {}, // tests alone
	"bench/onnx":         {"accel/tensor"},
	"bench/stats":        {},
	"bench":              {"bench/stats"}, // a result has histograms
	"bench/pace":         {},
	"bench/proc":         {},
	"bench/client":       {"bench", "scorer/codec/wire"},
	"bench/load":         {"bench", "bench/client", "bench/proc", "bench/stats"},
	"bench/ask":          {"bench", "scorer/codec/wire"},
	"bench/local":        {},
	"bench/report":       {"bench", "bench/proc", "bench/stats"},
	"bench/wide":         {"accel/tensor", "bench/onnx"},
	"bench/models":       {"accel/ort/library/wheel"},
	"bench/models/fetch": {"bench/models"},
	"bench/compare": {"bench", "bench/ask", "bench/client", "bench/load", "bench/local", "bench/proc", "bench/report", "bench/stats", "bench/wide",
		"accel", "accel/tensor", "accel/ort", "accel/ort/library"},
	"bench/scenario": {"bench", "bench/ask", "bench/client", "bench/load", "bench/local", "bench/pace", "bench/proc", "bench/stats", "bench/wide",
		"deploy/api"}, // for a token
	"bench/batching": {"bench/models", "bench/report", "bench/stats", "bench/wide", "accel", "accel/tensor", "accel/ort", "accel/ort/library", "scorer", "scorer/batch", "scorer/model"},
}

const module = "sluice.dev"

type pkg struct {
	ImportPath string
	Imports    []string
}

// packages lists those of the module, as the build sees them.
func packages(t *testing.T) (list []pkg) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestDependenciesPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if name == "cmd" || strings.HasPrefix(name, "cmd/") {
			continue // only commands wire, and they may wire anything
		}
		allowed, known := order[name]
		if !known {
			t.Errorf("package %s has no place in the order of imports", name)
			continue
		}
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s must not import %s", name, own)
			}
		}
	}
}

// Every direct dependency has a row in the README that says why it is there, and
// every row a dependency.
func TestDependenciesHaveReasons(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) == 2 && strings.HasPrefix(f[1], "v") {
			direct = append(direct, f[0])
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(readme), "\n## Dependencies\n")
	if !ok || len(direct) == 0 {
		t.Fatal("no table of dependencies in the README, or no dependencies in go.mod")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		rows = append(rows, m[1])
		if len(m[2]) < 20 {
			t.Errorf("%s has no reason in the README", m[1])
		}
	}
	for _, d := range direct {
		if !slices.Contains(rows, d) {
			t.Errorf("%s has no row in the README's table of dependencies", d)
		}
	}
	for _, r := range rows {
		if !slices.Contains(direct, r) {
			t.Errorf("%s has a row in the README, and is no direct dependency", r)
		}
	}
}
