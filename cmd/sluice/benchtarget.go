package main

import (
	"cmp"
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

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/proc"
	"sluice.dev/cmd/internal/certs"
)

// benchTarget is a server that is asked.
type benchTarget struct {
	name    string
	url     *url.URL
	address string // host and port
	tls     *tls.Config
	host    string   // the header
	headers []string // without it
	dial    bench.Dial
	items   []bench.Item
	pids    []int // that --pid gives it
}

// targets reads the arguments, and makes what the targets are asked.
func (o *benchOptions) targets(ctx context.Context, args []string) (list []*benchTarget, err error) {
	headers, err := o.headers()
	if err != nil {
		return nil, err
	}
	authority, err := certs.Load(certs.Files{Authority: o.authority})
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	for _, arg := range args {
		t, err := parseTarget(arg, headers, authority)
		if err != nil {
			return nil, err
		}
		if o.authority != "" && t.tls == nil {
			return nil, fmt.Errorf("--tls-ca has no effect on %s: give a URL with https or grpcs", t.name)
		}
		if err := o.prepare(ctx, t); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		list = append(list, t)
	}
	return list, o.pids(list)
}

// parseTarget reads NAME=URL, or URL.
func parseTarget(arg string, headers []string, authority *certs.Certs) (*benchTarget, error) {
	name, rest, named := strings.Cut(arg, "=")
	if !named || strings.Contains(name, "/") {
		name, rest = shown(arg), arg
	}
	u, err := url.Parse(rest)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", arg, err)
	}
	t := &benchTarget{name: name, url: u, address: u.Host, host: u.Host}
	ports := map[string]string{"http": "80", "https": "443", "grpc": "8001", "grpcs": "443"}
	port, ok := ports[u.Scheme]
	if !ok || u.Host == "" {
		return nil, fmt.Errorf("target %s: must be [NAME=]URL with http, https, grpc or grpcs", arg)
	}
	if u.User != nil {
		return nil, fmt.Errorf("target %s: a user before the host has no effect; give --key-file or --header", u.Redacted())
	}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	if strings.HasSuffix(u.Scheme, "s") {
		t.tls = authority.Client(u.Hostname())
	}
	for _, h := range headers {
		if headerName(h) == "host" {
			t.host = strings.TrimSpace(h[len("host:"):])
		} else {
			t.headers = append(t.headers, h)
		}
	}
	return t, nil
}

// headerName is the name of 'Name: value' in lower case, empty where it is no header.
func headerName(h string) string {
	name, _, ok := strings.Cut(h, ":")
	if !ok || strings.ContainsAny(h, "\r\n") || strings.ContainsAny(name, " \t") {
		return ""
	}
	return strings.ToLower(name)
}

// with is the headers, and before them one that they need not have.
func with(h string, headers []string) []string {
	if slices.ContainsFunc(headers, func(has string) bool { return headerName(has) == headerName(h) }) {
		return headers
	}
	return append([]string{h}, headers...)
}

// headers are those of every request: the user's, and the key.
func (o *benchOptions) headers() ([]string, error) {
	key := o.key
	if file := cmp.Or(o.keyFile, o.tokenFile); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(data))
	}
	if strings.ContainsAny(key, "\r\n") {
		return nil, fmt.Errorf("the key has more than one line")
	}
	for _, h := range o.header {
		switch name := headerName(h); {
		case name == "":
			return nil, fmt.Errorf("--header %q: must be 'Name: value'", h)
		case name == "content-length" || name == "transfer-encoding":
			return nil, fmt.Errorf("--header %q: each request has its own", h)
		case name == "authorization" && key != "":
			return nil, fmt.Errorf("--header %s and a key do not go together: give one of them", name)
		}
	}
	if key == "" {
		return o.header, nil
	}
	return append(slices.Clone(o.header), ask.Bearer(key)), nil
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
				t.pids, found = append(t.pids, pid), true
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
	p := o.protocolOf(t)
	if o.timing && p != "http" && p != "grpc-stream" {
		t.headers = with("x-sluice-timing: 1", t.headers)
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
		if _, err := o.right(ctx, t, &t.items[i]); err != nil && o.limits.Errors == 0 {
			return fmt.Errorf("the first answer: %w", err)
		}
	}
	return nil
}

// right asks for one right answer.
func (o *benchOptions) right(ctx context.Context, t *benchTarget, item *bench.Item) (*bench.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, o.plan.Timeout)
	defer cancel()
	return load.Right(ctx, t.dial, item)
}

// httpItems are the files of --data, or one that is made up.
func (o *benchOptions) httpItems(ctx context.Context, t *benchTarget, protocol string) (list []bench.Item, err error) {
	to := t.url.RequestURI()
	if (protocol == "oip" || protocol == "binary") && !strings.HasSuffix(t.url.Path, "/infer") {
		to = t.url.JoinPath("infer").RequestURI()
	}
	post := func(name string, head int, body []byte) bench.Item {
		first := "Content-Type: application/json"
		if protocol == "binary" {
			first = ask.HeadLength(head)
		}
		return bench.Item{Name: name, Wire: ask.Post(t.host, to, with(first, t.headers), body)}
	}
	for _, file := range o.data {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list = append(list, post(path.Base(file), jsonLength(body), body))
	}
	if len(list) > 0 {
		return list, nil
	}
	if protocol == "http" {
		return []bench.Item{{Name: "GET " + t.url.Path, Wire: ask.Get(t.host, to, t.headers)}}, nil
	}
	in, err := o.metadata(ctx, t)
	if err != nil {
		return nil, err
	}
	head, body := 0, in.JSON()
	switch protocol {
	case "binary":
		head, body = in.Binary()
	case "aml":
		body = in.AML()
	}
	return []bench.Item{post("made-up input", head, body)}, nil
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
func (o *benchOptions) metadata(ctx context.Context, t *benchTarget) (*ask.Inputs, error) {
	model := ask.Model(t.url.Path)
	if model == "" {
		return nil, fmt.Errorf("the URL names no model; give a request with --data")
	}
	at := "/v2/models/" + model
	if strings.HasPrefix(t.url.Path, at) {
		at = strings.TrimSuffix(strings.TrimSuffix(t.url.Path, "/"), "/infer")
	}
	a, err := o.right(ctx, t, &bench.Item{Name: "GET " + at, Wire: ask.Get(t.host, at, t.headers)})
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
	if t.host != t.url.Host {
		return nil, fmt.Errorf("--header Host has no effect with gRPC")
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
	ctx, cancel := context.WithTimeout(ctx, o.plan.Timeout)
	defer cancel()
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
