package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the generated files anew")

// generate makes the schema of an Endpoint from its type and comments.
func generate(t *testing.T) []byte {
	t.Helper()
	r := &jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, DoNotReference: false}
	if err := r.AddGoComments("sluice.dev/deploy/spec", "."); err != nil {
		t.Fatal(err)
	}
	s := r.Reflect(&Endpoint{})
	s.ID = "https://sluice.dev/schemas/v1alpha1/endpoint.json"
	s.Title = "Sluice endpoint"
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

func TestSchemaFileIsCurrent(t *testing.T) {
	want := generate(t)
	if *update {
		if err := os.WriteFile("endpoint.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(Schema, want) {
		t.Error("endpoint.schema.json is not what the types say; run 'go generate ./deploy/spec'")
	}
}

// compiled is the committed schema.
func compiled(t *testing.T) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("endpoint.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("endpoint.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is YAML as JSON values.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := validator.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchemaAcceptsTheExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/endpoint.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	s := compiled(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(asJSON(t, string(data))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

const good = `
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: {mode: key, keys: {primary: {env: DIGITS_KEY}}}
  versions:
    - {name: linear, model: linear.onnx, trafficPercentile: 90, default: true, type: control}
    - {name: mlp, model: mlp.onnx, trafficPercentile: 10, type: treatment, maxQueueWaitMs: 100}
`

// What the schema refuses, decoding or validation must refuse too.
func TestSchemaAndCodeRefuseTheSame(t *testing.T) {
	s := compiled(t)
	if err := s.Validate(asJSON(t, good)); err != nil {
		t.Fatalf("the good document: %v", err)
	}
	if e, f := Decode("good.yaml", []byte(good)); f.Err() != nil || e[0].Validate().Err() != nil {
		t.Fatalf("the good document: %v %v", f, e[0].Validate())
	}
	for _, change := range [][2]string{
		{"kind: Endpoint", "kind: Model"},
		{"v1alpha1", "v1"},
		{"name: digits", "name: Digits"},
		{"trafficPercentile: 90", "trafficPercentile: 900"},
		{"trafficPercentile: 90", "trafficPercentile: -1"},
		{"trafficPercentile: 90", "trafficPercentile: many"},
		{"type: control", "type: Control"},
		{"mode: key", "mode: keys"},
		{"maxQueueWaitMs: 100", "maxQueueWaitMs: 0.5"},
		{"maxQueueWaitMs: 100", "maxQueueWaitMS: 100"},
		{"default: true", "default: 1"},
		{"name: mlp,", ""},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		bySchema := s.Validate(asJSON(t, text)) != nil
		endpoints, findings := Decode("bad.yaml", []byte(text))
		for _, e := range endpoints {
			findings = append(findings, e.Validate()...)
		}
		if byCode := findings.Err() != nil; !bySchema || !byCode {
			t.Errorf("%q instead of %q: refused by the schema %v, by the code %v", change[1], change[0], bySchema, byCode)
		}
	}
}
