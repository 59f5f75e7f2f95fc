package httpapi

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// undocumented are operations that are there to be refused.
var undocumented = []op{opUnknown, opGenerate, opExplain, opDeviceStatus, opDeviceRegister, opDeviceUnregister}

// The document has the routes that there are, each with its methods but for HEAD.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	found := map[op]bool{}
	for path, item := range document.Paths {
		o := parse([]byte(strings.NewReplacer("{", "", "}", "").Replace(path))).op
		found[o] = true
		want := strings.Split(strings.TrimSuffix(allow(o), ", HEAD"), ", ")
		if o >= opStats {
			want = strings.Split(extensions[o].allow(), ", ")
		}
		var got []string
		for method := range item {
			if method != "parameters" {
				got = append(got, strings.ToUpper(method))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the document has %v; want %v", path, got, want)
		}
	}
	for o := opUnknown; int(o) < len(extensions); o++ {
		if found[o] == slices.Contains(undocumented, o) {
			t.Errorf("operation %d: in the document: %v", o, found[o])
		}
	}
}
