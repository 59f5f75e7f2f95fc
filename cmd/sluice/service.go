package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/cli"
	"sluice.dev/cmd/internal/state"
	"sluice.dev/deploy/api"
)

// serviceCommand has the names and flags of az ml service.
func serviceCommand() *cobra.Command {
	c := &cobra.Command{Use: "service", Short: "Keys and tokens of endpoints that a server serves"}
	addServiceCommands(c)
	return c
}

// endpointCommand has the same for who is used to az ml endpoint realtime.
func endpointCommand() *cobra.Command {
	c := &cobra.Command{Use: "endpoint", Short: "What 'sluice service' does, under the names of 'az ml endpoint realtime'"}
	realtime := &cobra.Command{Use: "realtime", Short: "Keys and tokens of endpoints that a server serves"}
	addServiceCommands(realtime)
	c.AddCommand(realtime)
	return c
}

func addServiceCommands(c *cobra.Command) {
	c.AddCommand(getKeysCommand(), regenKeyCommand(), getAccessTokenCommand())
}

// target is the server and the endpoint that a command is about, and how it answers.
type target struct {
	url, adminFile, name, output string
}

func (t *target) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&t.name, "name", "n", "", "the endpoint (required)")
	f.StringVar(&t.url, "url", cli.Env("SLUICE_MANAGEMENT_URL", "http://127.0.0.1:8003"), "the server's management address [$SLUICE_MANAGEMENT_URL]")
	f.StringVar(&t.adminFile, "admin-key-file", cli.Env("SLUICE_ADMIN_KEY_FILE", state.Dir(".state").AdminFile()), "file of the server's management key [$SLUICE_ADMIN_KEY_FILE]")
	f.StringVarP(&t.output, "output", "o", "json", "json or text")
	_ = c.MarkFlagRequired("name") // the flag is there
}

// client is for the server, when the flags are good.
func (t *target) client() (*api.Client, error) {
	if err := checkOutput(t.output); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(t.adminFile)
	if err != nil {
		return nil, fmt.Errorf("read the management key: %w; name its file, in the server's state directory, with --admin-key-file", err)
	}
	return api.NewClient(t.url, strings.TrimSpace(string(key))), nil
}

// asked calls the server, and prints its answer: as JSON, or as the text of it.
func asked[T any](c *cobra.Command, t *target, call func(*api.Client) (T, error), text func(T) string) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	answer, err := call(client)
	if err != nil {
		return err
	}
	if t.output == "json" {
		return printJSON(c.OutOrStdout(), answer)
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), text(answer))
	return err
}

func keysText(k api.Keys) string { return "primary " + k.Primary + "\nsecondary " + k.Secondary }

func getKeysCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use: "get-keys", Short: "Print an endpoint's two keys", Args: cobra.NoArgs, Example: "  sluice service get-keys -n digits",
		RunE: func(c *cobra.Command, _ []string) error {
			return asked(c, &t, func(to *api.Client) (api.Keys, error) { return to.Keys(c.Context(), t.name) }, keysText)
		},
	}
	t.flags(c)
	return c
}

func regenKeyCommand() *cobra.Command {
	var t target
	var r api.KeyRequest
	c := &cobra.Command{
		Use: "regen-key", Short: "Replace one of an endpoint's keys, at once and for good; the other goes on", Args: cobra.NoArgs,
		Example: "  sluice service regen-key -n digits -k Primary\n  sluice service regen-key -n digits -k Secondary --set-key \"$(cat key)\"",
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("set-key") && r.Value == "" {
				return errors.New("--set-key is empty; leave it out to have a key generated")
			}
			return asked(c, &t, func(to *api.Client) (api.Keys, error) { return to.SetKey(c.Context(), t.name, r) }, keysText)
		},
	}
	t.flags(c)
	c.Flags().StringVarP(&r.Type, "key", "k", "", "Primary or Secondary (required)")
	c.Flags().StringVarP(&r.Value, "set-key", "s", "", "the new key, 16 to 256 printable characters; default one that is generated")
	_ = c.MarkFlagRequired("key") // the flag is there
	return c
}

func getAccessTokenCommand() *cobra.Command {
	var t target
	var r api.TokenRequest
	c := &cobra.Command{
		Use: "get-access-token", Short: "Make a token for an endpoint with auth.mode token", Args: cobra.NoArgs,
		Example: "  sluice service get-access-token -n digits\n  sluice service get-access-token -n digits --subject batch --scope call,low --lifetime 600 -o text",
		RunE: func(c *cobra.Command, _ []string) error {
			return asked(c, &t, func(to *api.Client) (api.Token, error) { return to.Token(c.Context(), t.name, r) },
				func(made api.Token) string { return made.Access })
		},
	}
	t.flags(c)
	c.Flags().StringVar(&r.Subject, "subject", "", "who the token is for: its limits, its stickiness and its revocation go by that; default "+api.Admin)
	c.Flags().StringSliceVar(&r.Scopes, "scope", nil, "what the token grants: call, pin, mirror, high, low; default call and pin")
	c.Flags().IntVar(&r.LifetimeSeconds, "lifetime", 0, "how many seconds the token is good; default what the endpoint says")
	return c
}
