// Package cli is what the commands share: version, logging, flags, and how a
// process starts and ends.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/serve"
)

// Version is the build's, set by the linker.
var Version = "dev"

// Main runs root with signals, and exits with its status.
func Main(root *cobra.Command) {
	root.SilenceUsage = true
	root.SilenceErrors = true
	root.Version = Version
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name(), err)
		os.Exit(1)
	}
}

// VersionCommand tells the version.
func VersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, Go release and platform", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintf(c.OutOrStdout(), "sluice %s (%s, %s/%s%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, revision())
		},
	}
}

// revision is the commit of the build, where it is known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return ", " + s.Value
		}
	}
	return ""
}

// Env is an environment variable's value, else otherwise.
func Env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// Process adds the flags that every serving process has.
func Process(c *cobra.Command, o *serve.Options, format, level *string) {
	f := c.Flags()
	f.StringVar(&o.File, "file", "", "specification: a YAML file, or a folder of them")
	f.StringVar(&o.Metrics, "metrics", "127.0.0.1:8002", "address of /metrics, /healthz and /readyz, with tls:// before it to serve them over HTTPS; empty for none")
	f.IntVar(&o.MaxBody, "max-body", 100<<20, "most bytes of a request's body; a larger one gets 413")
	f.DurationVar(&o.DrainTimeout, "drain-timeout", 30*time.Second, "on SIGTERM, how long running requests may take before they are cut off")
	f.StringVar(format, "log-format", "text", "text or json")
	f.StringVar(level, "log-level", "info", "debug, info, warn or error")
}

// Front adds the flags of processes that clients call.
func Front(c *cobra.Command, o *serve.Options) {
	f := c.Flags()
	f.StringVar(&o.HTTP, "http", "127.0.0.1:8000", "address of scoring over HTTP")
	f.StringVar(&o.GRPC, "grpc", "127.0.0.1:8001", "address of scoring over gRPC; empty for none")
	f.StringVar(&o.AccessLog, "access-log", "", "file to which scoring requests are appended as JSON; - is standard output, empty is none")
	f.Float64Var(&o.AccessShare, "access-log-share", 1, "share of the served requests that the access log gets, 0 to 1; it gets all that failed with a status of 500 or more")
	f.IntVar(&o.HTTPLimits.Connections, "max-connections", 64<<10, "most connections of scoring over HTTP at a time; one more gets 503")
	f.IntVar(&o.HTTPLimits.ConnectionsPerClient, "max-connections-per-client", 0, "most of them from one address (of IPv6: network of 64 bits); 0 does not count, since many clients may come through one proxy")
	f.IntVar(&o.HTTPLimits.Head, "max-header", 16<<10, "most bytes of a request's line and headers; more get 431")
	f.DurationVar(&o.HTTPLimits.Handshake, "handshake-timeout", 10*time.Second, "how long a TLS handshake may take; a slower one ends its connection")
	f.DurationVar(&o.HTTPLimits.Read, "read-timeout", time.Minute, "how long a request may take to arrive, from its first byte to its last; a slower one gets 408")
	f.DurationVar(&o.HTTPLimits.Write, "write-timeout", time.Minute, "how long a client may take to take in what is written at once of an answer; a slower one's connection is ended")
	f.DurationVar(&o.HTTPLimits.Idle, "idle-timeout", 5*time.Minute, "how long a connection may be idle; set it longer than that of the load balancer in front")
	f.Int64Var(&o.MaxLarge, "max-large", 1<<30, "most bytes, in sum and at a time, of bodies over 64 KiB, which then get 503, and of gRPC messages without their end, whose connections are then closed")
	f.StringVar(&o.TLS.Cert, "tls-cert", "", "PEM file of the certificate and its chain; with it scoring and management are served over TLS, and a changed file is served at once")
	f.StringVar(&o.TLS.Key, "tls-key", "", "PEM file of the certificate's key")
	f.StringVar(&o.TLS.Authority, "tls-client-ca", "", "PEM file of the authority whose certificates clients must have; empty asks for none")
	f.StringVar(&o.Management, "management", "127.0.0.1:8003", "address of the management API: keys and tokens, for who has the key in the state directory; empty for none")
	f.BoolVar(&o.OpenManage, "open-management", false, "answer Triton's calls about the process (repository, logging, tracing, shared memory) without the management key; otherwise only a model repository on an address of this machine is managed without it")
	f.StringVar(&o.State, "state", ".state", "state directory: generated keys, where sticky clients go, and how fast models are")
	f.StringVar(&o.Secret, "secret-file", "", "file of a secret of 32 bytes or more that all gateways of a house share, so that sticky clients get the same version on each, and each takes the tokens that another made; default one that is generated and kept in the state directory")
	f.DurationVar(&o.DrainDelay, "drain-delay", time.Second, "on SIGTERM, from reporting not ready to no longer accepting connections")
}

// Lane adds the flags of processes at either end of a lane.
func Lane(c *cobra.Command, o *serve.Options) {
	f := c.Flags()
	f.StringVar(&o.LaneTLS.Cert, "lane-tls-cert", "", "PEM file of the certificate and its chain for lanes at tls:// addresses; a changed file is used for the next connections")
	f.StringVar(&o.LaneTLS.Key, "lane-tls-key", "", "PEM file of the certificate's key")
	f.StringVar(&o.LaneTLS.Authority, "lane-tls-ca", "", "PEM file of the authority whose certificates the other end must have; empty asks gateways for none, and takes scorers' that this machine trusts")
}

// Models adds the flags of processes that run models.
func Models(c *cobra.Command, o *serve.Options) {
	c.Flags().StringVar(&o.Library, "ort-library", Env("SLUICE_ORT_LIBRARY", ""),
		"path of ONNX Runtime's shared library [$SLUICE_ORT_LIBRARY]; default what 'sluice runtime install' installed")
	c.Flags().BoolVar(&o.NVMetrics, "triton-metrics", false, "serve metrics under Triton's names (nv_inference_…), too, for dashboards and autoscalers that know those")
	c.Flags().IntVar(&o.CPUSlots, "cpu-slots", 0, "model runs side by side on the CPU; 0 means as many as there are cores")
}

// Finish fills in what does not come from flags.
func Finish(c *cobra.Command, o *serve.Options, format, level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("--log-level %s: must be debug, info, warn or error", level)
	}
	o.Levels = serve.NewLevels(l)
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	switch format {
	case "text":
		o.Log = slog.New(o.Levels.Over(slog.NewTextHandler(os.Stderr, all)))
	case "json":
		o.Log = slog.New(o.Levels.Over(slog.NewJSONHandler(os.Stderr, all)))
	default:
		return fmt.Errorf("--log-format %s: must be text or json", format)
	}
	if o.AccessShare < 0 || o.AccessShare > 1 {
		return fmt.Errorf("--access-log-share %v: must be 0 to 1", o.AccessShare)
	}
	for name, n := range map[string]int64{
		"max-body": int64(o.MaxBody), "max-large": o.MaxLarge, "max-connections": int64(o.HTTPLimits.Connections),
		"max-connections-per-client": int64(o.HTTPLimits.ConnectionsPerClient), "max-header": int64(o.HTTPLimits.Head),
		"handshake-timeout": int64(o.HTTPLimits.Handshake), "read-timeout": int64(o.HTTPLimits.Read),
		"write-timeout": int64(o.HTTPLimits.Write), "idle-timeout": int64(o.HTTPLimits.Idle),
	} {
		if n < 0 {
			return fmt.Errorf("--%s: must not be negative", name)
		}
	}
	o.Version = Version
	o.Out = io.Writer(c.OutOrStdout())
	return nil
}
