package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// golden compares got with the file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nnow (go test -update writes that), and was\n%s", file, got, want)
	}
}

// inputs is the documents of a folder under testdata, by file name.
func inputs(t testing.TB, folder string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.[yj][as][mo][ln]"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents in testdata/%s: %v", folder, err)
	}
	all := make(map[string][]byte)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = data
	}
	return all
}

func section(b *strings.Builder, title string, findings Findings) {
	if len(findings) == 0 {
		return
	}
	fmt.Fprintf(b, "%s\n", title)
	for _, f := range findings {
		fmt.Fprintf(b, "  %s\n", f)
	}
}

func TestEndpointFindings(t *testing.T) {
	for name, data := range inputs(t, "endpoint") {
		endpoints, findings := Decode(name, data)
		var b strings.Builder
		section(&b, "Decode", findings)
		for _, e := range endpoints {
			wrong := e.Validate()
			section(&b, "Validate "+e.Metadata.Name, wrong)
			section(&b, "ClusterOnly "+e.Metadata.Name, e.ClusterOnly())
			findings = append(findings, wrong...)
		}
		golden(t, filepath.Join("testdata/endpoint", name+".findings"), b.String())
		if good := strings.HasPrefix(name, "good-"); good != (findings.Err() == nil) {
			t.Errorf("%s: error is %v", name, findings.Err())
		}
	}
}

func TestFindingsChangeNothing(t *testing.T) {
	for name, data := range inputs(t, "endpoint") {
		endpoints, _ := Decode(name, data)
		untouched, _ := Decode(name, data)
		for i, e := range endpoints {
			e.Validate()
			e.ClusterOnly()
			if !reflect.DeepEqual(e, untouched[i]) {
				t.Errorf("%s: to validate it changed %+v to %+v", name, untouched[i].Spec, e.Spec)
			}
		}
	}
}

func TestDefaultChangesNoVerdict(t *testing.T) {
	for name, data := range inputs(t, "endpoint") {
		endpoints, _ := Decode(name, data)
		for _, e := range endpoints {
			valid, cluster := e.Validate(), e.ClusterOnly()
			e.Default()
			if after := e.Validate(); !slices.Equal(valid, after) {
				t.Errorf("%s: Validate said\n%v\nbefore Default, and after\n%v", name, valid, after)
			}
			if after := e.ClusterOnly(); !slices.Equal(cluster, after) {
				t.Errorf("%s: ClusterOnly said\n%v\nbefore Default, and after\n%v", name, cluster, after)
			}
			once := *e.defaulted()
			if e.Default(); !reflect.DeepEqual(once, *e) {
				t.Errorf("%s: the second Default changed %+v to %+v", name, once, *e)
			}
		}
	}
}

func TestDeploymentConfigFindings(t *testing.T) {
	for name, data := range inputs(t, "deployment") {
		config, findings := DecodeDeploymentConfig(name, data)
		var b strings.Builder
		section(&b, "findings", findings)
		if config != nil {
			text, err := json.MarshalIndent(config, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s\n", text)
		}
		golden(t, filepath.Join("testdata/deployment", name+".golden"), b.String())
	}
}

// FuzzDecode holds Decode to its limits, and what is valid to surviving a round
// trip: written as JSON and read again, it is the same.
func FuzzDecode(f *testing.F) {
	for _, data := range inputs(f, "endpoint") {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		endpoints, findings := Decode("fuzz.yaml", data)
		if len(findings) > maxFindings+1+len(endpoints) {
			t.Fatalf("%d findings", len(findings))
		}
		for _, e := range endpoints {
			e.ClusterOnly()
			valid := e.Validate().Err() == nil && findings.Err() == nil
			e.Default()
			if valid && e.Validate().Err() != nil {
				t.Fatalf("valid without defaults, but with them: %v", e.Validate().Err())
			}
			if valid {
				roundTrip(t, e)
			}
		}
	})
}

func roundTrip(t *testing.T, e *Endpoint) {
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(string(text), notInYAML) {
		return
	}
	again, findings := Decode("again.json", text)
	if len(findings) != 0 || len(again) != 1 {
		t.Fatalf("%s: %v", text, findings)
	}
	if after, err := json.Marshal(again[0]); err != nil || string(after) != string(text) {
		t.Fatalf("%s\nis now\n%s (%v)", text, after, err)
	}
}

func FuzzDecodeDeploymentConfig(f *testing.F) {
	for _, data := range inputs(f, "deployment") {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config, findings := DecodeDeploymentConfig("fuzz.json", data)
		if config == nil && findings.Err() == nil {
			t.Fatal("neither a configuration nor a finding")
		}
		if findings.Err() == nil && config.Auth.Mode == "" {
			t.Fatal("no mode")
		}
	})
}

// notInYAML reports whether a character of JSON text is one that YAML does not
// allow unless it is escaped.
func notInYAML(r rune) bool {
	return r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfeff || r >= 0xfffe && r <= 0xffff
}
