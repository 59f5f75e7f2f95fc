package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// checkOutput says what is wrong with --output.
func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("--output %s: must be text or json", output)
	}
	return nil
}

// printJSON writes what --output json asks for, for people to read, too.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
