// Package triton is what Triton's clients ask for beside scoring, as plain calls:
// front ends only encode. Every error is a *scorer.Error with Triton's words where
// clients match on them.
package triton

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// Config of Extensions. Path is required.
type Config struct {
	Path *gateway.Path
	// Models loads and unloads; nil serves what the configuration says, and nothing else.
	Models Models
	// Log changes what is logged; nil cannot.
	Log Log
	// Regions is the clients' shared memory; nil does not allow it.
	Regions Regions
	// Key is the credential for calls that are about the process and not about one
	// endpoint; empty is none. Open answers them without one, but for web pages.
	Key  string
	Open bool
}

// Models loads and unloads models. Safe for concurrent use; errors are *scorer.Error.
type Models interface {
	// Index lists every model that is known, loaded or not, by name and version.
	Index() []Entry
	// Load loads a model, or loads it anew; config replaces what its folder says of
	// it, as JSON, where it is not empty. On an error what was served goes on.
	Load(ctx context.Context, name string, config []byte) error
	// Unload stops serving a model; what it has is finished. One that is not there
	// is no error.
	Unload(ctx context.Context, name string) error
}

// Entry is one version of a model in the index, or a model without versions.
type Entry struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   State  `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"` // why it is in this state
}

// State is what a model is doing.
type State string

// The states, in Triton's names.
const (
	Ready       State = "READY"
	Unavailable State = "UNAVAILABLE"
	Loading     State = "LOADING"
	Unloading   State = "UNLOADING"
)

// Names are the extensions, as the server's metadata lists them.
func (x *Extensions) Names() []string {
	names := []string{"binary_tensor_data", "classification", "model_configuration", "statistics", "trace", "logging"}
	if x.config.Models != nil {
		names = append(names, "model_repository")
	}
	if x.config.Regions != nil {
		names = append(names, "system_shared_memory")
	}
	return names
}

// Extensions answers what clients ask. Safe for concurrent use.
type Extensions struct {
	config Config
	key    [sha256.Size]byte
}

// New makes the extensions of a process.
func New(c Config) *Extensions {
	return &Extensions{config: c, key: sha256.Sum256([]byte(c.Key))}
}

func errorf(s scorer.Status, format string, args ...any) error {
	return scorer.Errorf(s, format, args...)
}

// Manage says whether a caller may make the calls that are about the process: the
// index, loading, logging, tracing and shared memory. They need the key, unless
// they are open; page says that a web page makes the call, which always needs it,
// since anybody's page can call what listens on the machine of who looks at it.
func (x *Extensions) Manage(credential []byte, page bool) error {
	sum := sha256.Sum256(credential)
	known := x.config.Key != "" && subtle.ConstantTimeCompare(sum[:], x.key[:]) == 1
	switch {
	case known, x.config.Open && !page:
		return nil
	case x.config.Key == "":
		return errorf(scorer.PermissionDenied, "This API is restricted: start the server with --management and call with its key, or, in a network that is trusted, with --open-management")
	}
	return errors.Join(errorf(scorer.Unauthenticated, "This API is restricted: send the management key as 'Authorization: Bearer KEY', or, in a network that is trusted, start the server with --open-management"),
		auth.ErrMissing) // what is wrong with the one that came is not told
}

// ModelStatistics are those of one version.
type ModelStatistics struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	scorer.Statistics
}

// Statistics are those of one version of a model, of all its versions where version
// is empty, or of every model that the caller may call where name is, too.
func (x *Extensions) Statistics(credential []byte, name, version string) ([]ModelStatistics, error) {
	snapshot := x.config.Path.Snapshot()
	list := []ModelStatistics{}
	if name == "" {
		for _, other := range slices.Sorted(maps.Keys(snapshot.Endpoints())) {
			if !x.config.Path.MayCall([]byte(other), credential) {
				continue
			}
			// Versions that do not tell are left out: others do.
			for _, v := range snapshot.Endpoint([]byte(other)).Versions {
				list, _ = x.appendStatistics(list, []*gateway.Version{v})
			}
		}
		return list, nil
	}
	e := snapshot.Endpoint([]byte(name))
	if e == nil {
		return nil, errorf(scorer.InvalidArgument, "requested model '%s' is not available", name)
	}
	if err := mayCall(e, credential); err != nil {
		return nil, err
	}
	versions := e.Versions
	if version != "" {
		v := e.Find([]byte(version))
		if v == nil {
			return nil, errorf(scorer.InvalidArgument, "requested model '%s', version %s is not available", name, version)
		}
		versions = []*gateway.Version{v}
	}
	return x.appendStatistics(list, versions)
}

// mayCall refuses as scoring does.
func mayCall(e *gateway.Endpoint, credential []byte) error {
	if _, err := e.Auth.Authenticate(credential); err != nil {
		return gateway.Refusal(err)
	}
	return nil
}

func (x *Extensions) appendStatistics(list []ModelStatistics, versions []*gateway.Version) ([]ModelStatistics, error) {
	for _, v := range versions {
		s, err := x.config.Path.Statistics(v)
		if err != nil {
			return list, err
		}
		list = append(list, ModelStatistics{v.Endpoint, v.Name, s})
	}
	return list, nil
}

// ModelConfig is the configuration of a version, the default one where version is
// empty, as JSON of Triton's ModelConfig: names as in its definition, 64-bit numbers
// as numbers.
func (x *Extensions) ModelConfig(credential []byte, name, version string) (json.RawMessage, error) {
	e := x.config.Path.Snapshot().Endpoint([]byte(name))
	if e == nil {
		return nil, errorf(scorer.NotFound, "Request for unknown model: '%s' is not found", name)
	}
	if err := mayCall(e, credential); err != nil {
		return nil, err
	}
	v := e.Default()
	if version != "" {
		if v = e.Find([]byte(version)); v == nil {
			return nil, errorf(scorer.NotFound, "Request for unknown model: '%s' version %s is not found", name, version)
		}
	}
	offer, ok := v.Pool.Offer()
	if !ok {
		return nil, errorf(scorer.Unavailable, "Request for unknown model: '%s' version %s is not at ready state", name, v.Name)
	}
	if len(offer.Config) == 0 {
		return nil, errorf(scorer.Unsupported, "the scorer of model '%s' is older than this gateway and does not tell its configuration; update it", name)
	}
	return offer.Config, nil
}

// Index lists the models; only those that are ready where ready is set.
func (x *Extensions) Index(ready bool) []Entry {
	list, there := []Entry{}, map[string]bool{}
	if x.config.Models != nil {
		list = x.config.Models.Index()
	}
	for i := range list {
		there[list[i].Name] = true
	}
	for _, e := range x.served() {
		if !there[e.Name] {
			list = append(list, e)
		}
	}
	if ready {
		list = slices.DeleteFunc(list, func(e Entry) bool { return e.State != Ready })
	}
	return list
}

// served are the versions of all endpoints.
func (x *Extensions) served() []Entry {
	endpoints := x.config.Path.Snapshot().Endpoints()
	list := []Entry{}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		for _, v := range endpoints[name].Versions {
			e := Entry{Name: name, Version: v.Name, State: Ready}
			if !v.Pool.Ready() {
				e.State, e.Reason = Unavailable, "no replica is ready"
			}
			list = append(list, e)
		}
	}
	return list
}

// ErrNotExplicit is what a load or unload is answered where models are not loaded
// by request.
var ErrNotExplicit = errorf(scorer.InvalidArgument, "explicit model load / unload is not allowed if polling is enabled")

// Load loads a model; see Models. files says that the caller sent the model's files
// with the request.
func (x *Extensions) Load(ctx context.Context, name string, config []byte, files bool) error {
	switch {
	case x.config.Models == nil:
		return ErrNotExplicit
	case files:
		return errorf(scorer.Unsupported, "a model's files are not taken from a request; put them into the model repository, and load the model without 'file:' parameters")
	}
	return x.config.Models.Load(ctx, name, config)
}

// Unload stops serving a model; see Models.
func (x *Extensions) Unload(ctx context.Context, name string) error {
	if x.config.Models == nil {
		return ErrNotExplicit
	}
	return x.config.Models.Unload(ctx, name)
}
