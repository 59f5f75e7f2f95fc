// Command gateway takes scoring requests and sends them to scorers.
package main

import (
	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/cli"
	"sluice.dev/cmd/internal/serve"
)

func main() {
	var o serve.Options
	var format, level string
	root := &cobra.Command{
		Use: "gateway --file FILE [--scorer ADDRESS …]", Short: "Take scoring requests and send them to scorers", Args: cobra.NoArgs,
		Long: `Take scoring requests for the endpoints of a specification, and send them to the
scorers that offer their versions. Versions of servers of other kinds (upstream) need no
scorer.

The file is read again when it changes and on SIGHUP. Scorers may come and go at any
time. On SIGTERM the gateway reports that it is not ready, finishes the requests that it
has, and ends.`,
		Example: "  gateway --file examples/digits/endpoint.yaml --scorer unix:///run/sluice/scorer",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cli.Finish(c, &o, format, level); err != nil {
				return err
			}
			return serve.Gateway(c.Context(), o)
		},
	}
	cli.Process(root, &o, &format, &level)
	cli.Front(root, &o)
	cli.Lane(root, &o)
	root.Flags().StringSliceVar(&o.Scorers, "scorer", nil, "address of a scorer: unix:///PATH, HOST:PORT or tls://HOST:PORT; may be given again; required where a version has a model")
	_ = root.MarkFlagRequired("file") // the flag is there
	root.AddCommand(cli.VersionCommand())
	cli.Main(root)
}
