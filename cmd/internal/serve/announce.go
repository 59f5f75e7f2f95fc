package serve

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice.dev/accel/tensor"
	"sluice.dev/deploy/spec"
)

// exampleRequest is the annotation with the path of a request's body, relative to
// the specification, that shows how an endpoint is used.
const exampleRequest = "sluice.dev/example-request"

// announce tells people how to use what is served now.
func (f *front) announce(http, grpc, metrics, management net.Addr) {
	specs := *f.specs.Load()
	f.o.Log.Info("serving", "http", text(http), "grpc", text(grpc), "metrics", text(metrics), "management", text(management), "endpoints", len(specs))
	if http == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		fmt.Fprintf(f.o.Out, "\nEndpoint %s is served. Try it:\n\n  %s\n", name, f.curl(specs[name], http))
	}
	fmt.Fprintln(f.o.Out)
}

// text is an address for people; empty where nothing listens.
func text(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// curl is a command line that scores with the endpoint as it is served.
func (f *front) curl(e *spec.Endpoint, http net.Addr) string {
	name := e.Metadata.Name
	route := "/v2/models/" + name + "/infer"
	if speaksAzureML(e) {
		route = "/api/v1/service/" + name + "/score"
	}
	return fmt.Sprintf("curl %s://%s%s%s -d %s", f.scheme(), http, route, f.credential(e), f.body(e))
}

// scheme is what clients and people call the process by.
func (f *front) scheme() string {
	if f.certs != nil {
		return "https"
	}
	return "http"
}

// speaksAzureML reports whether a version of e speaks nothing else.
func speaksAzureML(e *spec.Endpoint) bool {
	return slices.ContainsFunc(e.Spec.Versions, func(v spec.Version) bool {
		return v.Upstream != nil && v.Upstream.HTTP != nil && v.Upstream.HTTP.Protocol == spec.ProtocolAzureML
	})
}

// credential is the part of a command line that sends the endpoint's key, without
// showing it.
func (f *front) credential(e *spec.Endpoint) string {
	switch e.Spec.Auth.Mode {
	case spec.AuthNone:
		return ""
	case spec.AuthToken:
		return ` -H "Authorization: Bearer ` + f.token(e) + `"`
	}
	key := "$(cat " + f.state.KeyFile(e.Metadata.Name) + ")"
	if k := e.Spec.Auth.Keys.Primary; k != nil {
		switch {
		case k.Value != "":
			key = "YOUR-KEY"
		case k.File != "":
			key = "$(cat " + k.File + ")"
		case os.Getenv(k.Env) != "":
			key = "$" + k.Env
		}
	}
	return fmt.Sprintf(` -H "Authorization: Bearer %s"`, key)
}

// token is the part of a command line that gets a token, where the house makes it.
func (f *front) token(e *spec.Endpoint) string {
	if !e.Spec.Auth.Token.Own() || f.managed == "" {
		return "$TOKEN"
	}
	return fmt.Sprintf("$(sluice service get-access-token -n %s -o text --url %s --admin-key-file %s)", e.Metadata.Name, f.managed, f.state.AdminFile())
}

// body is a request's body for a command line: the endpoint's example, or zeros.
func (f *front) body(e *spec.Endpoint) string {
	if path := e.Metadata.Annotations[exampleRequest]; path != "" {
		dir := f.o.File
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		return "@" + filepath.Join(dir, path)
	}
	served := f.path.Snapshot().Endpoint([]byte(e.Metadata.Name))
	if served == nil || speaksAzureML(e) { // what its containers take, they alone know
		return "@request.json"
	}
	for _, v := range served.Versions {
		if o, ok := v.Pool.Offer(); ok && len(o.Signature.Inputs) > 0 {
			return "'" + zeros(&o.Signature) + "'"
		}
	}
	return "@request.json"
}

// zeros is a request of one row of zeros.
func zeros(sig *tensor.Signature) string {
	var inputs []string
	for _, in := range sig.Inputs {
		shape := slices.Clone(in.Shape)
		for i, d := range shape {
			shape[i] = max(d, 1)
			if d < 0 {
				shape[i] = 1
			}
		}
		n, _ := tensor.Elements(shape)
		zero := map[bool]string{true: `""`, false: "0"}[in.DType == tensor.Bytes]
		if in.DType == tensor.Bool {
			zero = "false"
		}
		data := strings.TrimSuffix(strings.Repeat(zero+",", int(min(n, 1<<12))), ",")
		inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":"%v","shape":%s,"data":[%s]}`,
			in.Name, in.DType, strings.ReplaceAll(fmt.Sprint(shape), " ", ","), data))
	}
	return `{"inputs":[` + strings.Join(inputs, ",") + `]}`
}
