package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"

	"sluice.dev/auth/issue"
)

// Source is where an issuer's public keys are: exactly one of these.
type Source struct {
	File string
	URL  string
	Own  *issue.Issuer
}

// String is the source's name in logs.
func (s Source) String() string {
	if s.Own != nil {
		return "own issuer"
	}
	return s.File + s.URL
}

// When keys are fetched.
const (
	refreshEvery  = 5 * time.Minute
	retryEvery    = 10 * time.Second // after a failure
	unknownEvery  = 30 * time.Second // at most, for tokens of keys that are not known
	unknownWait   = time.Second      // the longest that such a token waits for it
	fetchWithin   = 10 * time.Second
	maxSet        = 1 << 20 // bytes
	minModulus    = 2048    // bits of an RSA key
	maxKeysOfASet = 256
)

// Keyset is an issuer's public keys, kept up to date in the background and served
// as they were last while their source is out of reach.
type Keyset struct {
	source Source
	client *http.Client
	log    *slog.Logger
	now    func() time.Time
	end    context.CancelFunc
	done   chan struct{}
	asked  chan chan struct{} // closed when a refresh that was asked for is over

	current atomic.Pointer[set]

	mu      sync.Mutex
	unknown time.Time // of the last refresh for a key that is not known
}

// set is the keys at one time. Immutable.
type set struct {
	generation uint64 // grows with every change
	raw        []byte
	keys       []key
}

type key struct {
	id     string
	alg    string   // that the key is pinned to; empty allows methods
	suits  []string // the algorithms of its type
	public any
}

// OpenKeys starts to keep the keys of a source, and returns when they were sought
// once. A source out of reach is not an error: it is tried again and again.
func OpenKeys(s Source, log *slog.Logger) *Keyset {
	ctx, end := context.WithCancel(context.Background())
	k := &Keyset{
		source: s, log: log, now: time.Now, end: end, done: make(chan struct{}), asked: make(chan chan struct{}),
		client: &http.Client{Timeout: fetchWithin, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("an issuer's keys are not redirected")
		}},
	}
	k.current.Store(&set{})
	err := k.refresh(ctx)
	go k.run(ctx, err)
	return k
}

// Close ends the refreshing.
func (k *Keyset) Close() {
	k.end()
	<-k.done
	k.client.CloseIdleConnections()
}

func (k *Keyset) run(ctx context.Context, err error) {
	defer close(k.done)
	for {
		pause := refreshEvery
		if err != nil {
			pause = retryEvery
			k.log.Warn("an issuer's keys cannot be refreshed; what is known stays", "source", k.source.String(), "keys", len(k.current.Load().keys), "error", err)
		}
		timer := time.NewTimer(pause)
		var asker chan struct{}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case asker = <-k.asked:
			timer.Stop()
		}
		err = k.refresh(ctx)
		if asker != nil {
			close(asker)
		}
	}
}

// refresh fetches the keys once.
func (k *Keyset) refresh(ctx context.Context) error {
	raw, err := k.fetch(ctx)
	if err != nil {
		return err
	}
	old := k.current.Load()
	if bytes.Equal(raw, old.raw) {
		return nil
	}
	keys, err := parseSet(raw)
	if err != nil {
		return err
	}
	k.current.Store(&set{generation: old.generation + 1, raw: raw, keys: keys})
	k.log.Info("an issuer's keys have changed", "source", k.source.String(), "keys", len(keys))
	return nil
}

func (k *Keyset) fetch(ctx context.Context) ([]byte, error) {
	switch {
	case k.source.Own != nil:
		return k.source.Own.JWKS()
	case k.source.File != "":
		return os.ReadFile(k.source.File)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.source.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", k.source.URL, resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err == nil && len(raw) > maxSet {
		err = fmt.Errorf("a key set of more than %d bytes", maxSet)
	}
	return raw, err
}

// parseSet reads a JSON Web Key Set (RFC 7517). Keys that cannot verify a
// signature here are passed over.
func parseSet(raw []byte) ([]key, error) {
	var list struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	if len(list.Keys) > maxKeysOfASet {
		return nil, fmt.Errorf("a set of %d keys; there may be %d", len(list.Keys), maxKeysOfASet)
	}
	var keys []key
	for _, raw := range list.Keys {
		j, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipX5UScheme: true})
		if err != nil {
			continue
		}
		m := j.Marshal()
		if m.USE != "" && m.USE != jwkset.UseSig {
			continue
		}
		if suits := methods(j.Key()); len(suits) > 0 {
			keys = append(keys, key{id: m.KID, alg: m.ALG.String(), suits: suits, public: j.Key()})
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the set has no public key that verifies signatures")
	}
	return keys, nil
}

// methods are the algorithms that a public key verifies (RFC 7518, RFC 8037).
func methods(public any) []string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= minModulus {
			return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
		}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

// find is the key for a token's key id and algorithm. A token without an id is
// verified where there is one key only.
func (s *set) find(id, alg string) (k *key, known bool) {
	for i := range s.keys {
		k = &s.keys[i]
		if id == k.id || id == "" && len(s.keys) == 1 {
			if slices.Contains(k.suits, alg) && (k.alg == "" || k.alg == alg) {
				return k, true
			}
			if id != "" {
				return nil, true // known, and not for this algorithm
			}
		}
	}
	return nil, false
}

// holds reports whether a key of an earlier set is in this one, as it was.
func (s *set) holds(k *key) bool {
	return slices.ContainsFunc(s.keys, func(o key) bool {
		return o.id == k.id && o.alg == k.alg && o.public.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.public)
	})
}

// seek fetches the keys again for a token of one that is not known, unless that was
// done a short time ago, and waits for it a moment.
func (k *Keyset) seek() {
	k.mu.Lock()
	now := k.now()
	due := now.Sub(k.unknown) >= unknownEvery
	if due {
		k.unknown = now
	}
	k.mu.Unlock()
	if !due {
		return
	}
	over := make(chan struct{})
	limit := time.NewTimer(unknownWait)
	defer limit.Stop()
	select {
	case k.asked <- over:
	case <-k.done:
		return
	case <-limit.C:
		return
	}
	select {
	case <-over:
	case <-k.done:
	case <-limit.C:
	}
}
