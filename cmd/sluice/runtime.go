package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice.dev/accel/ort/library"
)

func runtimeCommand() *cobra.Command {
	c := &cobra.Command{Use: "runtime", Short: "Install and find ONNX Runtime's shared library"}
	var from, dir string
	install := &cobra.Command{
		Use: "install", Short: "Fetch ONNX Runtime " + library.Version + " with pip, check it, and keep it in the user's cache", Args: cobra.NoArgs,
		Example: "  sluice runtime install\n  sluice runtime install --from onnxruntime-" + library.Version + "-….whl",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := library.Install(c.Context(), library.Options{Config: library.Config{Dir: dir}, From: from, Progress: c.ErrOrStderr()})
			return err
		},
	}
	install.Flags().StringVar(&from, "from", "", "the wheel, fetched elsewhere, for machines without a package index")
	path := &cobra.Command{
		Use: "path", Short: "Print where the library is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := library.Find(library.Config{Dir: dir})
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), p)
			}
			return err
		},
	}
	for _, sub := range []*cobra.Command{install, path} {
		sub.Flags().StringVar(&dir, "dir", "", "folder of the library; default in the user's cache")
		c.AddCommand(sub)
	}
	return c
}
