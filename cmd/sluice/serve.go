package main

import (
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/cli"
	"sluice.dev/cmd/internal/serve"
)

func serveCommand() *cobra.Command {
	var o serve.Options
	var format, level string
	var seconds int
	c := &cobra.Command{
		Use: "serve --file FILE | --model-repository DIR", Short: "Serve endpoints on this machine: gateway and scorer in one process", Args: cobra.NoArgs,
		Long: `Serve the endpoints of a specification, and the models of a Triton model repository:
gateway and scorer in one process.

Each model of a repository is an endpoint of its name without authentication, unless the
specification has an endpoint of that name; its versions may then be the repository's,
as model: NAME:VERSION.

The file is read again when it changes and on SIGHUP; a bad one changes nothing and is
reported. On SIGTERM and SIGINT the server reports that it is not ready, finishes the
requests that it has, and ends.`,
		Example: "  sluice serve --file examples/digits/endpoint.yaml\n  sluice serve --model-repository /models --model-control-mode explicit --load-model resnet",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cli.Finish(c, &o, format, level); err != nil {
				return err
			}
			o.Repository.Poll = time.Duration(seconds) * time.Second
			if err := o.Repository.Validate(); err != nil {
				return err
			}
			return serve.Sluice(c.Context(), o)
		},
	}
	cli.Process(c, &o, &format, &level)
	cli.Front(c, &o)
	cli.Models(c, &o)
	repository(c, &o, &seconds)
	c.MarkFlagsOneRequired("file", "model-repository")
	return c
}

// repository adds the flags of a Triton model repository, which are named as
// Triton's are.
func repository(c *cobra.Command, o *serve.Options, seconds *int) {
	f := c.Flags()
	f.StringVar(&o.Repository.Dir, "model-repository", "", "Triton model repository to serve: a folder of MODEL/config.pbtxt and MODEL/1/model.onnx")
	f.StringVar(&o.Repository.Mode, "model-control-mode", serve.ModeNone, "none: serve all models of the repository; explicit: those that are loaded by name or request; poll: all, and follow changes")
	f.StringArrayVar(&o.Repository.Load, "load-model", nil, "with explicit, a model to load at the start; may be given again; * is all")
	f.IntVar(seconds, "repository-poll-secs", 15, "with poll, seconds between two looks at the repository")
	f.BoolVar(&o.ClientMemory, "allow-client-shm", false, "let clients register shared memory of this machine by name, and read and write tensors there; whoever may manage can then read and write what this process can")
}
