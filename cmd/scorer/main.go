// Command scorer runs models for gateways.
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
		Use: "scorer --file FILE --listen ADDRESS", Short: "Run the models of a specification for gateways", Args: cobra.NoArgs,
		Long: `Run the models of a specification for gateways, which connect to --listen.

The file is read again when it changes and on SIGHUP. On SIGTERM gateways are sent
elsewhere, and the process ends when it has answered what it had.`,
		Example: "  scorer --file examples/digits/endpoint.yaml --listen unix:///run/sluice/scorer",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cli.Finish(c, &o, format, level); err != nil {
				return err
			}
			return serve.Scorer(c.Context(), o)
		},
	}
	cli.Process(root, &o, &format, &level)
	cli.Models(root, &o)
	cli.Lane(root, &o)
	root.Flags().Lookup("metrics").DefValue = ""
	o.Metrics = ""
	root.Flags().StringVar(&o.Listen, "listen", "", "address for gateways: unix:///PATH, HOST:PORT or tls://HOST:PORT (required)")
	root.Flags().StringVar(&o.State, "state", "", "state directory, where what is learnt of the models' speed is kept; default none")
	_ = root.MarkFlagRequired("listen") // the flag is there
	_ = root.MarkFlagRequired("file")
	root.AddCommand(cli.VersionCommand())
	cli.Main(root)
}
