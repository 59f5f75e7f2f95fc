package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice.dev/deploy/spec"
)

func validateCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "validate FILE", Short: "Check a specification and tell everything that is wrong with it", Args: cobra.ExactArgs(1),
		Example: "  sluice validate examples/digits/endpoint.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			endpoints, findings := spec.Load(args[0])
			for _, e := range endpoints {
				findings = append(findings, e.Validate()...)
				findings = append(findings, e.ClusterOnly()...)
			}
			if err := printFindings(c.OutOrStdout(), output, findings); err != nil {
				return err
			}
			if findings.Err() != nil {
				return fmt.Errorf("%s is not valid", args[0])
			}
			if output == "text" {
				fmt.Fprintf(c.OutOrStdout(), "%s: %d endpoint(s), valid\n", args[0], len(endpoints))
			}
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func printFindings(w io.Writer, output string, findings spec.Findings) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	if output == "json" {
		if findings == nil {
			findings = spec.Findings{}
		}
		return printJSON(w, findings)
	}
	for _, f := range findings {
		fmt.Fprintln(w, f)
	}
	return nil
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of specifications, for completion in editors", Args: cobra.NoArgs,
		Example: "  sluice schema > endpoint.schema.json",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(spec.Schema)
			return err
		},
	}
}
