package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/proc"
)

// benchTarget is a server that is asked.
type benchTarget struct {
	name    string
	url     *url.URL
	address string // host and port
	tls     *tls.Config
	headers []string
	dial    bench.Dial
	items   []bench.Item
	pid     int // 0: not given
}

func (t *benchTarget) processes() []int {
	if t.pid == 0 {
		return nil
	}
	return proc.Tree(t.pid)
}

// targets reads the arguments, and makes what the targets are asked.
func (o *benchOptions) targets(ctx context.Context, args []string) (list []*benchTarget, err error) {
	headers, err := o.headers()
	if err != nil {
		return nil, err
	}
	for _, arg := range args {
		t, err := parseTarget(arg)
		if err != nil {
			return nil, err
		}
		t.headers = headers
		if err := o.prepare(ctx, t); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		list = append(list, t)
	}
	return list, o.pids(list)
}

// parseTarget reads NAME=URL, or URL.
func parseTarget(arg string) (*benchTarget, error) {
	name, rest, named := strings.Cut(arg, "=")
	if !named || strings.Contains(name, "/") {
		name, rest = arg, arg
	}
	u, err := url.Parse(rest)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", arg, err)
	}
	t := &benchTarget{name: name, url: u, address: u.Host}
	ports := map[string]string{"http": "80", "https": "443", "grpc": "8001", "grpcs": "443"}
	port, ok := ports[u.Scheme]
	if !ok || u.Host == "" {
		return nil, fmt.Errorf("target %s: must be [NAME=]URL with http, https, grpc or grpcs", arg)
	}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	if strings.HasSuffix(u.Scheme, "s") {
		t.tls = &tls.Config{ServerName: u.Hostname()}
	}
	return t, nil
}

// headers are those of every request.
func (o *benchOptions) headers() ([]string, error) {
	list, key := append([]string(nil), o.header...), o.key
	for _, h := range list {
		if name, _, ok := strings.Cut(h, ":"); !ok || strings.ContainsAny(h, "\r\n") || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header %q: must be 'Name: value'", h)
		}
	}
	for _, file := range []string{o.keyFile, o.tokenFile} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(data))
	}
	if strings.ContainsAny(key, "\r\n") {
		return nil, fmt.Errorf("the key has more than one line")
	}
	if key != "" {
		list = append(list, ask.Bearer(key))
	}
	return list, nil
}

// pids gives targets the processes that --pid names.
func (o *benchOptions) pids(list []*benchTarget) error {
	for _, text := range o.pid {
		name, number, named := strings.Cut(text, "=")
		if !named {
			name, number = list[0].name, text
		}
		pid, err := strconv.Atoi(number)
		if err != nil || !proc.Exists(pid) || !named && len(list) > 1 {
			return fmt.Errorf("--pid %s: must be NAME=PID of a process that runs", text)
		}
		found := false
		for _, t := range list {
			if t.name == name {
				t.pid, found = pid, true
			}
		}
		if !found {
			return fmt.Errorf("--pid %s: there is no target %s", text, name)
		}
	}
	return nil
}

// protocolOf is what a target speaks.
func (o *benchOptions) protocolOf(t *benchTarget) string {
	switch {
	case o.protocol != "":
		return o.protocol
	case strings.HasPrefix(t.url.Scheme, "grpc"):
		return "grpc"
	case strings.Contains(t.url.Path, "/v2/models/"):
		return "oip"
	case strings.HasSuffix(t.url.Path, "/score"):
		return "aml"
	}
	return "http"
}

// prepare makes a target's connections and items, and asks each item once: what is
// wrong then would be wrong all along.
func (o *benchOptions) prepare(ctx context.Context, t *benchTarget) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p := o.protocolOf(t)
	if o.timing && p != "http" && p != "grpc-stream" {
		t.headers = append(slices.Clip(t.headers), "x-sluice-timing: 1")
	}
	switch p {
	case "oip", "binary", "aml", "http":
		t.dial = client.HTTP(t.address, t.tls)
		t.items, err = o.httpItems(ctx, t, p)
	case "grpc", "grpc-stream":
		t.items, err = o.grpcItems(ctx, t, p == "grpc-stream")
	default:
		return fmt.Errorf("--protocol %s: must be oip, binary, aml, http, grpc or grpc-stream", p)
	}
	if err != nil {
		return err
	}
	for i := range t.items {
		if len(o.expect) > 0 {
			want, err := os.ReadFile(o.expect[i])
			if err != nil {
				return err
			}
			if t.items[i].Check = ask.Like(want); strings.HasPrefix(p, "grpc") {
				t.items[i].Check = ask.LikeMessage(want)
			}
		}
		if _, err := load.Right(ctx, t.dial, &t.items[i]); err != nil && o.limits.Errors == 0 {
			return fmt.Errorf("the first answer: %w", err)
		}
	}
	return nil
}

// httpItems are the files of --data, or one that is made up.
func (o *benchOptions) httpItems(ctx context.Context, t *benchTarget, protocol string) (list []bench.Item, err error) {
	to := t.url.RequestURI()
	if (protocol == "oip" || protocol == "binary") && !strings.HasSuffix(t.url.Path, "/infer") {
		to = strings.TrimSuffix(to, "/") + "/infer"
	}
	headers := append([]string{"Content-Type: application/json"}, t.headers...)
	for _, file := range o.data {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		more := headers
		if protocol == "binary" {
			more = append([]string{ask.HeadLength(jsonLength(body))}, t.headers...)
		}
		list = append(list, bench.Item{Name: path.Base(file), Wire: ask.Post(t.url.Host, to, more, body)})
	}
	if len(list) > 0 {
		return list, nil
	}
	if protocol == "http" {
		return []bench.Item{{Name: "GET " + to, Wire: ask.Get(t.url.Host, to, t.headers)}}, nil
	}
	in, err := t.metadata(ctx)
	if err != nil {
		return nil, err
	}
	body := in.JSON()
	switch protocol {
	case "binary":
		var head int
		head, body = in.Binary()
		headers = append([]string{ask.HeadLength(head)}, t.headers...)
	case "aml":
		body = in.AML()
	}
	return []bench.Item{{Name: "made-up input", Wire: ask.Post(t.url.Host, to, headers, body)}}, nil
}

// jsonLength is how many bytes of a body of raw tensors are its JSON: to the brace
// that closes the first one.
func jsonLength(body []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == '{':
			depth++
		case !quoted && c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(body)
}

// metadata asks what a model's inputs are.
func (t *benchTarget) metadata(ctx context.Context) (*ask.Inputs, error) {
	model := ask.Model(t.url.Path)
	if model == "" {
		return nil, fmt.Errorf("the URL names no model; give a request with --data")
	}
	at := "/v2/models/" + model
	if strings.HasPrefix(t.url.Path, at) {
		at = strings.TrimSuffix(strings.TrimSuffix(t.url.Path, "/"), "/infer")
	}
	a, err := load.Right(ctx, t.dial, &bench.Item{Name: "GET " + at, Wire: ask.Get(t.url.Host, at, t.headers)})
	if err != nil {
		return nil, fmt.Errorf("ask for the model's metadata: %w; or give a request with --data", err)
	}
	return ask.ParseMetadata(a.Body)
}

// grpcItems are the files of --data, or a message that is made up.
func (o *benchOptions) grpcItems(ctx context.Context, t *benchTarget, stream bool) (list []bench.Item, err error) {
	parts := strings.Split(strings.Trim(t.url.Path, "/"), "/")
	version := ""
	if len(parts) == 2 {
		version = parts[1]
	}
	g := &client.GRPC{Address: t.address, TLS: t.tls, Stream: stream, Channels: o.plan.Connections, Header: map[string]string{}}
	for _, h := range t.headers {
		name, value, _ := strings.Cut(h, ":")
		g.Header[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	t.dial = g.Dial
	for _, file := range o.data {
		m, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list = append(list, bench.Item{Name: path.Base(file), Wire: m})
	}
	if len(list) > 0 {
		return list, nil
	}
	if parts[0] == "" {
		return nil, fmt.Errorf("the URL names no model: grpc://HOST:PORT/MODEL")
	}
	m, err := g.Metadata(ctx, parts[0], version)
	if err != nil {
		return nil, fmt.Errorf("ask for the model's metadata: %w; or give a message with --data", err)
	}
	in, err := ask.ParseMessage(m)
	if err != nil {
		return nil, err
	}
	return []bench.Item{{Name: "made-up input", Wire: in.Message(parts[0], version)}}, nil
}
