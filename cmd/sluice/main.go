// Command sluice serves models, and looks after what that needs.
package main

import (
	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/cli"
)

func main() {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Inference gateway and scoring server",
		Long: `Sluice scores requests with ONNX models: it checks a key, splits the traffic of an
endpoint between up to six versions of a model, batches what waits, and answers in
Azure ML's form or the Open Inference Protocol's.`,
	}
	root.AddCommand(serveCommand(), serviceCommand(), endpointCommand(), validateCommand(), schemaCommand(), benchCommand(), explainCommand(), planCommand(), simulateCommand(),
		runtimeCommand(), cli.VersionCommand())
	cli.Main(root)
}
