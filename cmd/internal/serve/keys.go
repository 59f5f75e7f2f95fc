package serve

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"sluice.dev/auth/apikey"
	"sluice.dev/cmd/internal/state"
	"sluice.dev/deploy/spec"
)

// keyring is the endpoints' keys: each from the source that the specification
// names, or else generated and kept in the state directory. A key that is kept can
// be replaced while it is served.
type keyring struct {
	state  state.Dir
	out    io.Writer // for people
	pepper apikey.Pepper

	// Held from reading or writing what is kept to the digests of it, so that what is
	// compiled never has a key that was replaced meanwhile.
	mu       sync.Mutex
	fresh    bool                    // keys were generated that a crash of the machine may undo
	compiled map[string]compiledKeys // last, by endpoint; maybe not served yet, or ever
}

// compiledKeys is what became of an endpoint's keys.
type compiledKeys struct {
	keys *apikey.Keys
	kept [2]bool // and not the specification's
}

func newKeyring(d state.Dir, out io.Writer) *keyring {
	return &keyring{state: d, out: out, pepper: apikey.NewPepper(), compiled: map[string]compiledKeys{}}
}

// source is where the specification says that a key comes from; nil if it does not.
func source(e *spec.Endpoint, w apikey.Which) *spec.KeySource {
	if w == apikey.Secondary {
		return e.Spec.Auth.Keys.Secondary
	}
	return e.Spec.Auth.Keys.Primary
}

// keptName is what a key is kept under. A dot is in no endpoint's name.
func keptName(endpoint string, w apikey.Which) string {
	if w == apikey.Secondary {
		return endpoint + ".secondary"
	}
	return endpoint
}

// read is a key, and whether it is a kept one. A key that has no source, or whose
// environment variable is not set, is generated if it is not there.
func (r *keyring) read(e *spec.Endpoint, w apikey.Which) (key string, kept bool, err error) {
	if s := source(e, w); s != nil {
		key, err = s.Read(os.LookupEnv)
		if !errors.Is(err, spec.ErrUnset) {
			return key, false, err
		}
	}
	endpoint := e.Metadata.Name
	key, fresh, err := r.state.Key(keptName(endpoint, w), apikey.Generate)
	r.fresh = r.fresh || fresh
	if fresh && err == nil && w == apikey.Primary {
		fmt.Fprintf(r.out, "\nThe key of endpoint %s was generated. It is shown only now, and kept in %s:\n\n  %s\n", endpoint, r.state.KeyFile(endpoint), key)
	}
	return key, true, err
}

// keep makes sure that keys that were generated last, before anybody is let in by them.
func (r *keyring) keep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sync()
}

// sync is keep, holding mu.
func (r *keyring) sync() error {
	if !r.fresh {
		return nil
	}
	err := r.state.Sync()
	r.fresh = err != nil
	return err
}

// find makes the keys of an endpoint that is compiled: the very same where they are.
func (r *keyring) find(e *spec.Endpoint) (*apikey.Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	texts, kept, err := r.both(e)
	if err != nil {
		return nil, err
	}
	last := r.compiled[e.Metadata.Name]
	keys := last.keys
	if keys == nil || last.kept != kept || !keys.Are(texts[apikey.Primary], texts[apikey.Secondary]) {
		keys = apikey.New(r.pepper, texts[apikey.Primary], texts[apikey.Secondary])
	}
	r.compiled[e.Metadata.Name] = compiledKeys{keys, kept}
	return keys, nil
}

func (r *keyring) both(e *spec.Endpoint) (texts [2]string, kept [2]bool, err error) {
	for _, w := range []apikey.Which{apikey.Primary, apikey.Secondary} {
		if texts[w], kept[w], err = r.read(e, w); err != nil {
			return texts, kept, err
		}
	}
	return texts, kept, nil
}

// list is the keys of an endpoint as they are now.
func (r *keyring) list(e *spec.Endpoint) (texts [2]string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if texts, _, err = r.both(e); err != nil {
		return texts, err
	}
	return texts, r.sync()
}

// errNotKept means that a key comes from the specification.
var errNotKept = errors.New("the key is the specification's")

// set replaces a kept key of an endpoint that is served with keys: in the state
// directory first, so that it survives whatever comes, then in what is served, and
// in what is about to be. It returns both keys.
func (r *keyring) set(e *spec.Endpoint, served *apikey.Keys, w apikey.Which, key string) (texts [2]string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	texts, kept, err := r.both(e)
	last := r.compiled[e.Metadata.Name]
	switch {
	case err != nil:
		return texts, err
	case !kept[w], last.keys == served && !last.kept[w]: // e may be a moment older than served
		return texts, errNotKept
	}
	if err := r.state.SetKey(keptName(e.Metadata.Name, w), key); err != nil {
		return texts, err
	}
	served.Set(w, key)
	if last.keys != served && last.kept[w] {
		last.keys.Set(w, key)
	}
	texts[w] = key
	return texts, nil
}

// forget drops what was compiled of endpoints that are not served.
func (r *keyring) forget(served map[string]*spec.Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.compiled {
		if served[name] == nil {
			delete(r.compiled, name)
		}
	}
}
