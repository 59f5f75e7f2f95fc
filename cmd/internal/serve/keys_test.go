package serve

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"sluice.dev/auth/apikey"
	"sluice.dev/cmd/internal/state"
	"sluice.dev/deploy/spec"
)

func newTestKeyring(t *testing.T) (*keyring, *spec.Endpoint) {
	t.Helper()
	d, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e := &spec.Endpoint{Metadata: spec.Metadata{Name: "digits"}}
	return newKeyring(d, io.Discard), e
}

func find(t *testing.T, r *keyring, e *spec.Endpoint) *apikey.Keys {
	t.Helper()
	k, err := r.find(e)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func good(k *apikey.Keys, key string) bool {
	_, err := k.Authenticate([]byte(key))
	return err == nil
}

// A specification that is compiled while a key is replaced has the new one when it
// comes to be served.
func TestAReloadBringsNoOldKeyBack(t *testing.T) {
	r, e := newTestKeyring(t)
	served := find(t, r, e)
	old := ""
	for n := range 200 {
		var compiled *apikey.Keys
		var both sync.WaitGroup
		key := fmt.Sprintf("the-key-of-round-%d", n)
		both.Go(func() { compiled, _ = r.find(e) })
		if _, err := r.set(e, served, apikey.Primary, key); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		for what, k := range map[string]*apikey.Keys{"served": served, "compiled": compiled} {
			if !good(k, key) || good(k, old) {
				t.Fatalf("round %d: what is %s takes the new key: %v, the old one: %v", n, what, good(k, key), good(k, old))
			}
		}
		served, old = compiled, key
	}
	texts, err := r.list(e)
	if err != nil || texts[0] != old || !good(served, texts[1]) {
		t.Errorf("the keys are %v, %v", texts, err)
	}
}

// Keys that are as they were are the very same, so that their endpoint is, too; they
// outlast a crash before anybody is let in by them.
func TestKeysThatDidNotChangeAreTheSame(t *testing.T) {
	r, e := newTestKeyring(t)
	first := find(t, r, e)
	if !r.fresh || r.keep() != nil || r.fresh {
		t.Error("keys that were generated are not kept")
	}
	if _, err := r.set(e, first, apikey.Primary, "a-key-that-was-given"); err != nil {
		t.Fatal(err)
	}
	if find(t, r, e) != first || r.fresh {
		t.Error("keys that are the same were made anew")
	}
	named := *e
	named.Spec.Auth.Keys.Primary = &spec.KeySource{Value: "a-key-that-was-given"}
	if find(t, r, &named) == first {
		t.Error("a key that the specification names is one that can be replaced")
	}
	named.Spec.Auth.Keys.Primary = &spec.KeySource{Value: "a-key-of-the-specification"}
	if k := find(t, r, &named); k == first || good(k, "a-key-that-was-given") {
		t.Error("the specification's key is not taken")
	}
}

// A key that the specification names is not replaced, not even in a specification
// that is only being compiled.
func TestTheSpecificationsKeysAreItsOwn(t *testing.T) {
	r, e := newTestKeyring(t)
	served := find(t, r, e)
	named := *e
	named.Spec.Auth.Keys.Primary = &spec.KeySource{Value: "a-key-of-the-specification"}
	compiled := find(t, r, &named)
	if _, err := r.set(e, served, apikey.Primary, "a-key-that-was-given"); err != nil {
		t.Fatal(err)
	}
	if !good(served, "a-key-that-was-given") || good(compiled, "a-key-that-was-given") || !good(compiled, "a-key-of-the-specification") {
		t.Error("what is compiled lost the key that its specification names")
	}
	for _, known := range []*spec.Endpoint{&named, e} { // e: the moment when the new one is served, and not yet known
		if _, err := r.set(known, compiled, apikey.Primary, "a-key-that-was-given"); !errors.Is(err, errNotKept) {
			t.Errorf("got %v; want %v", err, errNotKept)
		}
	}
	r.forget(map[string]*spec.Endpoint{})
	if len(r.compiled) > 0 {
		t.Error("what is not served is remembered")
	}
}
