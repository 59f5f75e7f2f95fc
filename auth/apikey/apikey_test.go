package apikey

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice.dev/auth"
)

func TestAuthenticate(t *testing.T) {
	first, second := Generate(), Generate()
	both := New(NewPepper(), first, second)
	one := New(NewPepper(), first, "")
	f := func(k *Keys, credential, who string, want error) {
		t.Helper()
		p, err := k.Authenticate([]byte(credential))
		if !errors.Is(err, want) || err == nil && p.ID != who {
			t.Errorf("Authenticate(%.8q) = %v, %v; want %q, %v", credential, p, err, who, want)
		}
	}
	f(both, first, "primary", nil)
	f(both, second, "secondary", nil)
	f(one, first, "primary", nil)
	f(one, second, "", auth.ErrInvalid)
	f(both, "", "", auth.ErrMissing)
	f(one, "", "", auth.ErrMissing) // the absent second key is not the empty key
	f(both, first[1:], "", auth.ErrInvalid)
	f(both, first+"x", "", auth.ErrInvalid)
	f(both, strings.ToUpper(first), "", auth.ErrInvalid)
	f(both, strings.Repeat("x", MaxLength+1), "", auth.ErrInvalid)
}

func TestGeneratedKeysDiffer(t *testing.T) {
	if a, b := Generate(), Generate(); a == b || len(a) != 43 {
		t.Errorf("generated %q and %q", a, b)
	}
}

func TestNoKeyIsKept(t *testing.T) {
	key := Generate()
	if dump := fmt.Sprintf("%+v %s", New(Pepper{}, key, ""), New(Pepper{}, key, "").current.Load()[0].sum); strings.Contains(dump, key) {
		t.Error("the key itself is kept")
	}
}

// While one key is replaced again and again, the other is good all the time, and no
// replaced one is good when Set has returned.
func TestKeysAreReplacedWithoutAGap(t *testing.T) {
	stays := Generate()
	k := New(NewPepper(), Generate(), stays)
	var done sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if who, err := k.Authenticate([]byte(stays)); err != nil || who.ID != "secondary" {
					t.Errorf("the other key: %v, %v", who, err)
					return
				}
			}
		})
	}
	before := ""
	for range 1000 {
		key := Generate()
		k.Set(Primary, key)
		if who, err := k.Authenticate([]byte(key)); err != nil || who.ID != "primary" {
			t.Fatalf("a key that was set: %v, %v", who, err)
		}
		if _, err := k.Authenticate([]byte(before)); err == nil {
			t.Fatal("a key that was replaced is good")
		}
		before = key
	}
	close(stop)
	done.Wait()
	k.Set(Secondary, "")
	if _, err := k.Authenticate([]byte(stays)); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a key that was removed: %v", err)
	}
}

func TestAuthenticateDoesNotAllocate(t *testing.T) {
	key := Generate()
	k, credential := New(NewPepper(), key, Generate()), []byte(key)
	if n := testing.AllocsPerRun(1000, func() { _, _ = k.Authenticate(credential) }); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	key := Generate()
	k, credential := New(NewPepper(), key, Generate()), []byte(key)
	for b.Loop() {
		_, _ = k.Authenticate(credential)
	}
}
