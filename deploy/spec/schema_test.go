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

// JSONSchemaExtend says what no tag can: exactly one of the sources.
func (KeySource) JSONSchemaExtend(s *jsonschema.Schema) {
	one := uint64(1)
	s.MinProperties, s.MaxProperties = &one, &one
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
	examples, err := filepath.Glob("../../examples/*/endpoint.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	ours, err := filepath.Glob("testdata/endpoint/good-*.yaml")
	if err != nil || len(ours) == 0 {
		t.Fatalf("no good documents: %v", err)
	}
	s := compiled(t)
	for _, file := range append(examples, ours...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(data), "\n---\n") {
			if v := asJSON(t, document); v == nil {
				continue // Decode passes over empty documents
			} else if err := s.Validate(v); err != nil {
				t.Errorf("%s: %v", file, err)
			}
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
	six := strings.Repeat("    - {name: other, model: other.onnx}\n", MaxVersions)
	for _, change := range [][2]string{
		{"  versions:\n", "  versions:\n" + six},
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
		{"model: mlp.onnx,", ""},
		{"mode: key,", "mode: key, modes: key,"},
		{"{env: DIGITS_KEY}", "{}"},
		{"{env: DIGITS_KEY}", "{env: DIGITS_KEY, file: key}"},
		{"{env: DIGITS_KEY}", "{env: DIGITS KEY}"},
		{"{env: DIGITS_KEY}", "{value: short}"},
		{"{env: DIGITS_KEY}", "{value: with a space in the key}"},
		{"mode: key, keys: {primary: {env: DIGITS_KEY}}", "mode: token, token: {maxLifetimeSeconds: -1}"},
		{"mode: key, keys: {primary: {env: DIGITS_KEY}}", "mode: token, token: {issuer: i, audience: a, jwks: {file: f}, scope: a b}"},
		{"mode: key, keys: {primary: {env: DIGITS_KEY}}", "mode: token, token: {revoked: {ids: one}}"},
		{"mode: key, keys: {primary: {env: DIGITS_KEY}}", "mode: token, token: {revoked: {until: 2026-01-31T12:00:00Z}}"},
		{"name: digits", "name: -digits"},
		{"name: digits", "name: digits, namespace: Digits"},
		{"name: digits", "name: digits, labels: {a: 1}"},
		{"name: digits", "name: " + strings.Repeat("x", 64)},
		{"name: digits", "uid: digits"},
		{"type: control", "accelerator: GPU 0"},
		{"type: control", "threads: -1"},
		{"type: control", "threads: 1025"},
		{"type: control", "maxBatchSize: -1"},
		{"type: control", "maxConcurrentRequestsPerContainer: -1"},
		{"type: control", "maxQueueWaitMs: 0"},
		{"type: control", "scoringTimeoutMs: 300001"},
		{"type: control", "numReplicas: 0"},
		{"type: control", "autoScaler: {targetUtilization: 101}"},
		{"type: control", "autoScaler: {maxReplicas: 0}"},
		{"type: control", "containerResourceRequirements: {cpu: 0}"},
		{"type: control", "containerResourceRequirements: {fpga: 1}"},
		{"type: control", "livenessProbeRequirements: {periodSeconds: 0}"},
		{"type: control", "dataCollection: {storageEnabled: 1}"},
		{"type: control", "appInsightsEnabled: 1"},
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
