package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/scorer/batch/sim"
	"sluice.dev/scorer/model"
)

// explainCommand tells why batches are as they are.
func explainCommand() *cobra.Command {
	c := &cobra.Command{Use: "explain", Short: "Tell why a running server does what it does"}
	var from operators
	var output string
	batching := &cobra.Command{
		Use: "batching [ENDPOINT[/VERSION]]", Short: "What runs of models cost, and why the last batches have the size that they have", Args: cobra.MaximumNArgs(1),
		Example: "  sluice explain batching\n  sluice explain batching digits/mlp\n  sluice explain batching --metrics tls://scorer:8002 --metrics-ca ca.pem",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			list, err := from.batching(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(c.OutOrStdout(), list)
			}
			for i := range list {
				if err := explain(c.OutOrStdout(), &list[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	from.flags(batching)
	batching.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.AddCommand(batching)
	return c
}

// explain prints what is known of one version.
func explain(out io.Writer, e *model.Explained) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s/%s on %s, %d runs side by side: %d rows per run at most, %.0f rows per second arrive, %d requests wait; the device worked %v for it, and %d times a device was left idle since it paid to wait for more requests\n",
		e.Endpoint, e.Version, e.Device, e.Slots, e.Limit, e.RowsPerSecond, e.Waiting, e.Used.Round(time.Millisecond), e.Waits)
	if len(e.Policy) > 0 {
		fmt.Fprintf(w, "  policy: %s\n", strings.Join(e.Policy, "; "))
	}
	for _, s := range e.Shapes {
		title := "rows"
		if len(s.Dims) > 0 {
			title = fmt.Sprintf("rows of %v", s.Dims)
		}
		fmt.Fprintf(w, "  %s\ttime\tspread\trows per second\truns\n", title)
		for _, p := range s.Curve {
			best := ""
			if p.Rows == s.Best {
				best = "\t<- best"
			}
			fmt.Fprintf(w, "  %d\t%v\t%v\t%.0f\t%.0f%s\n", p.Rows, p.Time.Round(100), p.Spread.Round(100), float64(p.Rows)/p.Time.Seconds(), p.Runs, best)
		}
	}
	if len(e.Last) > 0 {
		fmt.Fprintf(w, "  last runs, ago\twaiting\trows\tbecause\texpected\trefused\n")
	}
	for _, d := range e.Last {
		why, _ := d.Reason.MarshalText() // cannot fail
		fmt.Fprintf(w, "  %s\t%d\t%d\t%s\t%v\t%d\n", sim.Brief(e.Now.Sub(d.At)), d.Waiting, d.Rows, why, d.Expected.Round(100), d.Late)
	}
	return w.Flush()
}
