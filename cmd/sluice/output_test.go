package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestAnOutputThatIsNoneIsRefused(t *testing.T) {
	f := func(c *cobra.Command, args ...string) {
		t.Helper()
		c.SetArgs(append(args, "--output", "xml"))
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "--output xml: must be text or json") {
			t.Errorf("%s %v: %v", c.Name(), args, err)
		}
	}
	f(validateCommand(), "endpoint.yaml")
	f(explainCommand(), "batching")
	f(benchCommand(), "http://127.0.0.1:1/v2/models/digits")
	f(serviceCommand(), "get-keys", "--name", "digits")
}
