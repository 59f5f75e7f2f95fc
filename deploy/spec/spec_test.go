package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func write(t *testing.T, folder, name, text string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func document(name, model string) string {
	return fmt.Sprintf("apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: %s}\n"+
		"spec: {auth: {keys: {primary: {file: keys/p}, secondary: {file: /run/s}}}, versions: [{name: v, model: %q}]}\n", name, model)
}

func ExampleLoad() {
	endpoints, findings := Load("testdata/endpoint/good-small.yaml")
	for _, e := range endpoints {
		findings = append(findings, e.Validate()...)
	}
	if err := findings.Err(); err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range endpoints {
		e.Default()
		v := e.Spec.Versions[0]
		fmt.Println(e.Metadata.Name, e.Spec.Auth.Mode, v.Name, v.Default, filepath.Base(v.Model), v.ScoringTimeoutMs)
	}
	// Output: digits key linear true linear.onnx 60000
}

func TestLoadTakesRelativePathsFromTheFile(t *testing.T) {
	folder := t.TempDir()
	for model, want := range map[string]string{
		"linear.onnx": filepath.Join(folder, "linear.onnx"),
		"./linear":    filepath.Join(folder, "linear"),
		"../m.onnx":   filepath.Join(filepath.Dir(folder), "m.onnx"),
		"/m/linear":   "/m/linear",
		"digits:3":    "digits:3",
		"linear":      "linear",
	} {
		endpoints, findings := Load(write(t, folder, "endpoint.yaml", document("digits", model)))
		if len(findings) != 0 {
			t.Fatalf("model %s: %v", model, findings)
		}
		if got := endpoints[0].Spec.Versions[0].Model; got != want {
			t.Errorf("model %s is %s; want %s", model, got, want)
		}
		keys := endpoints[0].Spec.Auth.Keys
		if want := filepath.Join(folder, "keys/p"); keys.Primary.File != want || keys.Secondary.File != "/run/s" {
			t.Errorf("key files are %s and %s; want %s and /run/s", keys.Primary.File, keys.Secondary.File, want)
		}
	}
}

func TestLoadReadsTheYAMLFilesOfAFolderInOrder(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "b.yml", document("two", "m.onnx")+"---\n"+document("three", "m.onnx"))
	write(t, folder, "a.yaml", document("one", "m.onnx"))
	write(t, folder, ".hidden.yaml", "not: ours")
	write(t, folder, "notes.txt", "not: ours")
	write(t, folder, "sub/c.yaml", "not: ours")
	endpoints, findings := Load(folder)
	var names []string
	for _, e := range endpoints {
		names = append(names, e.Metadata.Name)
	}
	if got := strings.Join(names, " "); got != "one two three" || len(findings) != 0 {
		t.Errorf("loaded %s with %v", got, findings)
	}
}

func TestLoadFindsEndpointsOfTheSameName(t *testing.T) {
	folder := t.TempDir()
	first := write(t, folder, "a.yaml", document("one", "m.onnx"))
	second := write(t, folder, "b.yaml", document("two", "m.onnx")+"---\n"+document("one", "m.onnx"))
	_, findings := Load(folder)
	want := fmt.Sprintf(`%s:8: metadata.name: "one" is already the name of the endpoint in %s:3; rename or remove one`, second, first)
	if len(findings) != 1 || findings[0].String() != want {
		t.Errorf("found\n%v\nwant\n%s", findings, want)
	}
}

func TestLoadTellsWhatItCannotRead(t *testing.T) {
	folder := t.TempDir()
	if err := os.Symlink(filepath.Join(folder, "nowhere"), filepath.Join(folder, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(folder, "absent.yaml"), t.TempDir(), folder} {
		if endpoints, findings := Load(path); findings.Err() == nil || len(endpoints) != 0 {
			t.Errorf("%s: %d endpoints, findings %v", path, len(endpoints), findings)
		}
	}
}

func TestDecodeStopsAtItsLimits(t *testing.T) {
	head := "apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: x}\n"
	bomb := "a0: &a0 [x]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 10))
	}
	labels := func(prefix string) string {
		var b strings.Builder
		for i := range 4000 {
			fmt.Fprintf(&b, "  %s%d: x\n", prefix, i)
		}
		return b.String()
	}
	for name, c := range map[string]struct{ text, want string }{
		"size":      {head + strings.Repeat("#", MaxFile), "longer than"},
		"values":    {manyValues(t), "split the file"},
		"bomb":      {head + bomb + "spec: {versions: *a30, description: *a30}\n", "is a list, where"},
		"cycle":     {head + "spec: &s {auth: *s, versions: [*s]}\n", "no field"},
		"nesting":   {strings.Repeat("[", MaxFile), "depth"},
		"directive": {"%TAG !a! b\n---\n" + head, "%TAG"},
		"findings":  {head + "spec:\n" + labels("unknown"), "more; correct these first"},
		"versions":  {head + "spec:\n  versions: [" + strings.Repeat("{},", 10000) + "]\n", "is too many"},
	} {
		endpoints, findings := Decode(name, []byte(c.text))
		err := findings.Err()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: no finding has %q:\n%.500v", name, c.want, err)
		}
		if len(findings) > maxFindings+1 {
			t.Errorf("%s: %d findings", name, len(findings))
		}
		for _, e := range endpoints {
			e.Validate()
			e.ClusterOnly()
		}
	}
}

// manyValues is a file of allowed size that has too many values by repeating a map.
func manyValues(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata:\n  name: x\n  labels: &l\n")
	for i := range maxNodes / 3 {
		fmt.Fprintf(&b, "    k%x: x\n", i)
	}
	b.WriteString("  annotations: *l\n")
	if b.Len() > MaxFile {
		t.Fatalf("%d bytes", b.Len())
	}
	return b.String()
}

func TestFindingsNeverQuoteAKey(t *testing.T) {
	const secret = "hunter2"
	for _, keys := range []string{
		"{primary: hunter2}", "{primary: [hunter2]}", "{primary: {value: hunter2}}", "{primary: {value: [hunter2]}}",
		"{primary: {value: !x hunter2}}", "{primary: {value: hunter2, env: X}}", "hunter2", "{primary: {env: [hunter2]}}",
	} {
		text := strings.Replace(document("x", "m.onnx"), "{primary: {file: keys/p}, secondary: {file: /run/s}}", keys, 1)
		endpoints, findings := Decode("x", []byte(text))
		for _, e := range endpoints {
			findings = append(findings, e.Validate()...)
		}
		if err := findings.Err(); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("keys %s: %v", keys, err)
		}
	}
}

func TestValidateFindsRangesInWhatAProgramMade(t *testing.T) {
	e := &Endpoint{TypeMeta: TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: Metadata{Name: "digits"}}
	e.Spec.Auth.Mode = "password"
	e.Spec.Versions = make([]Version, MaxVersions+1)
	for i := range e.Spec.Versions {
		e.Spec.Versions[i] = Version{Name: fmt.Sprintf("v%d", i), Model: "m.onnx"}
	}
	v := &e.Spec.Versions[1]
	v.TrafficPercentile = math.NaN()
	v.ScoringTimeoutMs = 300_001
	v.NumReplicas = -1
	v.ContainerResourceRequirements = ContainerResourceRequirements{CPU: math.Inf(1), GPU: -1}
	want := strings.Join([]string{
		"apiVersion: is \"v1\"; must be sluice.dev/v1alpha1",
		"kind: is \"Pod\"; must be Endpoint",
		"spec.auth.mode: is \"password\"; must be key or token or none",
		"spec.versions[1].trafficPercentile: is NaN; must be 0 to 100",
		"spec.versions[1].scoringTimeoutMs: is 300001; must be 1 to 300000",
		"spec.versions[1].numReplicas: is -1; must be 1 or more",
		"spec.versions[1].containerResourceRequirements.cpu: is +Inf; must be more than 0",
		"spec.versions[1].containerResourceRequirements.gpu: is -1; must be 0 or more",
		"spec.versions[6]: an endpoint has at most 6 versions, and this has 7; remove 1",
	}, "\n")
	if got := e.Validate().Err(); got == nil || got.Error() != want {
		t.Errorf("found\n%v\nwant\n%s", got, want)
	}
	empty := (&Endpoint{}).Validate().Err()
	for _, path := range []string{"apiVersion", "kind", "metadata.name", "spec.versions"} {
		if empty == nil || !strings.Contains(empty.Error(), path+": is missing") {
			t.Errorf("%s of an empty endpoint is not missed: %v", path, empty)
		}
	}
}

func TestDefaultsAreWhatTheTagsSay(t *testing.T) {
	e := &Endpoint{Spec: EndpointSpec{Versions: []Version{{}, {}}}}
	e.Default()
	seen := 0
	var compare func(path string, v reflect.Value)
	compare = func(path string, v reflect.Value) {
		for _, f := range fieldsOf(v.Type()) {
			value := v.FieldByIndex(f.index)
			if value.Kind() == reflect.Struct {
				compare(join(path, f.name), value)
			}
			if f.fallback == "" {
				continue
			}
			seen++
			if got := fmt.Sprint(value.Interface()); got != f.fallback {
				t.Errorf("%s is %s by Default, and %s by its tag", join(path, f.name), got, f.fallback)
			}
		}
	}
	compare("auth", reflect.ValueOf(e.Spec.Auth))
	compare("version", reflect.ValueOf(e.Spec.Versions[1]))
	if seen < 18 {
		t.Errorf("only %d fields have a default", seen)
	}
	if v := e.Spec.Versions; !v[0].Default || v[1].Default || !*v[0].AutoScaler.AutoscaleEnabled {
		t.Error("the first version is not the default, or its autoscaler is off")
	}
}

func TestDefaultKeepsWhatIsGiven(t *testing.T) {
	e := &Endpoint{Spec: EndpointSpec{Auth: Auth{Mode: AuthNone}, Versions: []Version{
		{Name: "a", NumReplicas: 3},
		{Name: "b", Default: true, MaxQueueWaitMs: 7, Accelerator: "cpu", AutoScaler: AutoScaler{MinReplicas: 20}},
	}}}
	e.Default()
	a, b := e.Spec.Versions[0], e.Spec.Versions[1]
	if e.Spec.Auth.Mode != AuthNone || a.Default || b.MaxQueueWaitMs != 7 || b.Accelerator != "cpu" || a.MaxConcurrentRequestsPerContainer != 0 {
		t.Errorf("changed to %+v", e.Spec)
	}
	if *a.AutoScaler.AutoscaleEnabled || a.AutoScaler.MaxReplicas != 0 {
		t.Errorf("numReplicas is given, and the autoscaler is %+v", a.AutoScaler)
	}
	if b.AutoScaler.MaxReplicas != 20 {
		t.Errorf("maxReplicas is %d, where minReplicas is 20", b.AutoScaler.MaxReplicas)
	}
}

func TestBasisPointsAreExact(t *testing.T) {
	for points := range 100_00 + 1 {
		text := fmt.Sprintf("%d.%02d", points/100, points%100)
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		if v := (Version{TrafficPercentile: x}); v.BasisPoints() != points || !twoDecimals(x) {
			t.Errorf("%s has %d basis points; two decimals: %v", text, v.BasisPoints(), twoDecimals(x))
		}
		if third, _ := strconv.ParseFloat(text+"1", 64); points < 100_00 && twoDecimals(third) {
			t.Errorf("%s1 passes as having two decimals", text)
		}
	}
}

func TestParseModel(t *testing.T) {
	for text, want := range map[string]ModelRef{
		"linear.onnx":    {Path: "linear.onnx"},
		"./linear":       {Path: "./linear"},
		"/m/a:3":         {Path: "/m/a:3"},
		"digits:3":       {Name: "digits", Version: 3},
		"My_Model.v2:12": {Name: "My_Model.v2", Version: 12},
	} {
		if got, err := ParseModel(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "linear", ":3", "digits:", "digits:0", "digits:-1", "digits:x", "digits:99999999999", "s3://b/m.onnx", "a\x00/b"} {
		if got, err := ParseModel(text); err == nil {
			t.Errorf("%q is %+v; want an error", text, got)
		}
	}
}

func TestKeysAreReadFromTheirSource(t *testing.T) {
	const key = "0123456789abcdef"
	folder := t.TempDir()
	environment := func(name string) (string, bool) {
		value, ok := map[string]string{"KEY": key, "EMPTY": "", "SHORT": "x", "LONG": strings.Repeat("x", MaxKey+1)}[name]
		return value, ok
	}
	for _, good := range []KeySource{
		{Value: key},
		{Env: "KEY"},
		{File: write(t, folder, "plain", key)},
		{File: write(t, folder, "lines", key+"\r\n\n")},
	} {
		if got, err := good.Read(environment); err != nil || got != key {
			t.Errorf("%+v: %q, %v", good, got, err)
		}
	}
	for _, bad := range []KeySource{
		{},
		{Value: "short"},
		{Env: "SHORT"},
		{Env: "LONG"},
		{File: write(t, folder, "long", strings.Repeat("x", 10_000))},
		{File: write(t, folder, "inside", key+" "+key)},
		{File: filepath.Join(folder, "absent")},
		{File: folder},
	} {
		if got, err := bad.Read(environment); err == nil || strings.Contains(err.Error(), key) || errors.Is(err, ErrUnset) {
			t.Errorf("%+v: %q, %v", bad, got, err)
		}
	}
	for _, name := range []string{"ABSENT", "EMPTY"} {
		if _, err := (&KeySource{Env: name}).Read(environment); !errors.Is(err, ErrUnset) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAMisspeltFieldFindsTheOneThatWasMeant(t *testing.T) {
	known := fieldsOf(reflect.TypeFor[Version]())
	for name, want := range map[string]string{
		"modle":                       "model",
		"Model":                       "model",
		"traffic_percentile":          "trafficPercentile",
		"scoring-timeout-ms":          "scoringTimeoutMs",
		"maxQueueWaitMS":              "maxQueueWaitMs",
		"autoscaler":                  "autoScaler",
		"thread":                      "threads",
		"replicas":                    "",
		"x":                           "",
		"":                            "",
		strings.Repeat("model", 1000): "",
	} {
		if got := known.nearest(name); got != want {
			t.Errorf("%.40q is near %q; want %q", name, got, want)
		}
	}
}

func TestDistanceCountsEditsAndSwaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "axc", 1}, {"kitten", "sitting", 3}, {"modle", "model", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d; want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestFindingSaysWhatIsKnown(t *testing.T) {
	for want, f := range map[string]Finding{
		"a.yaml:3: spec.auth: is wrong":   {File: "a.yaml", Line: 3, Path: "spec.auth", Message: "is wrong"},
		"a.yaml: is wrong":                {File: "a.yaml", Message: "is wrong"},
		"spec.auth: is wrong":             {Path: "spec.auth", Message: "is wrong"},
		"a.yaml:3: warning: x: is unwise": {File: "a.yaml", Line: 3, Path: "x", Message: "is unwise", Warning: true},
	} {
		if f.String() != want {
			t.Errorf("%q; want %q", f, want)
		}
	}
}

func TestErrLeavesWarningsOut(t *testing.T) {
	warning, wrong := Finding{Message: "unwise", Warning: true}, Finding{Message: "wrong"}
	if err := (Findings{warning}).Err(); err != nil {
		t.Errorf("a warning is an error: %v", err)
	}
	all := Findings{wrong, warning, wrong}
	if err := all.Err(); err == nil || err.Error() != "wrong\nwrong" {
		t.Errorf("error %v", err)
	}
	if w := all.Warnings(); len(w) != 1 || w[0] != warning {
		t.Errorf("warnings %v", w)
	}
}

func TestWrittenEndpointsReadTheSame(t *testing.T) {
	for name, data := range inputs(t, "endpoint") {
		endpoints, findings := Decode(name, data)
		for _, e := range endpoints {
			if findings.Err() == nil && e.Validate().Err() == nil {
				roundTrip(t, e)
			}
		}
	}
}

func BenchmarkDecodeAndValidate(b *testing.B) {
	data, err := os.ReadFile("testdata/endpoint/good-full.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		endpoints, findings := Decode("good-full.yaml", data)
		for _, e := range endpoints {
			findings = append(findings, e.Validate()...)
		}
		if findings.Err() != nil {
			b.Fatal(findings)
		}
	}
}

func TestUnsetSectionsAreNotWritten(t *testing.T) {
	text, err := json.Marshal(&Endpoint{Spec: EndpointSpec{Versions: []Version{{Name: "a", Model: "m.onnx"}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"apiVersion":"","kind":"","metadata":{"name":""},"spec":{"versions":[{"name":"a","model":"m.onnx"}]}}`
	if !bytes.Equal(text, []byte(want)) {
		t.Errorf("%s; want %s", text, want)
	}
}
