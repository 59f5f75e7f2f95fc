package clients

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// schemathesis makes requests of what a document says, right and wrong ones, and holds
// the answers against it: no 5xx, nothing that is not in the document, right ones taken,
// wrong ones refused. It keeps no state between runs, and a seed.
func TestSchemathesis(t *testing.T) {
	bin := filepath.Dir(python(t))
	document, err := filepath.Abs("../../gateway/httpapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, managed := serve(t), repository(t, "--load-model", "digits")
	f := func(name string, args ...string) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "schemathesis"), append([]string{"run", "--seed", "1", "--no-shrink", "--max-examples", "20", "--generation-database", "none"}, args...)...)
			cmd.Dir = t.TempDir() // for what it may leave
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
	auth := "Authorization: Bearer " + key
	// The document's examples are of the digits, which are no model for Classify and Regress.
	f("examples", document, "--url", "http://"+s.http, "-H", auth, "--phases", "examples", "--mode", "positive", "--exclude-tag", "management", "--exclude-operation-id-regex", "Classify|Regress")
	// Which inputs a model takes is not in the document: what is right by it may be refused.
	f("scoring", document, "--url", "http://"+s.http, "-H", auth, "--phases", "examples,coverage,fuzzing", "--exclude-tag", "management", "--exclude-checks", "positive_data_acceptance")
	// On this machine a repository is managed without a key.
	f("management", document, "--url", "http://"+managed.http, "--phases", "examples,coverage,fuzzing", "--include-tag", "management", "--exclude-checks", "positive_data_acceptance,ignored_auth")
	// An endpoint's own document says which inputs it takes, but not that all have as many rows. GET is not in Azure ML's, nor NaN, which
	// is the digits' answer to pixels that no image has.
	const notAzure = "allow_header_conformance,unsupported_method"
	f("swagger", "http://"+s.http+"/api/v1/service/digits/swagger.json", "-H", auth, "--phases", "coverage", "--exclude-checks", notAzure)
	f("swagger of several inputs", "http://"+s.http+"/api/v1/service/echo/swagger.json", "--phases", "coverage,fuzzing", "--exclude-checks", notAzure+",positive_data_acceptance")
}
