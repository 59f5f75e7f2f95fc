package main

import (
	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/cli"
	"sluice.dev/cmd/internal/serve"
)

func serveCommand() *cobra.Command {
	var o serve.Options
	var format, level string
	c := &cobra.Command{
		Use: "serve --file FILE", Short: "Serve endpoints on this machine: gateway and scorer in one process", Args: cobra.NoArgs,
		Long: `Serve the endpoints of a specification: gateway and scorer in one process.

The file is read again when it changes and on SIGHUP; a bad one changes nothing and is
reported. On SIGTERM and SIGINT the server reports that it is not ready, finishes the
requests that it has, and ends.`,
		Example: "  sluice serve --file examples/digits/endpoint.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cli.Finish(c, &o, format, level); err != nil {
				return err
			}
			return serve.Sluice(c.Context(), o)
		},
	}
	cli.Process(c, &o, &format, &level)
	cli.Front(c, &o)
	cli.Models(c, &o)
	return c
}
