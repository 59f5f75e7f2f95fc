// Package snapshot compiles specifications into what the request path serves
// from.
package snapshot

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/auth/issue"
	"sluice.dev/auth/token"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/limit"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
)

// SlotStore keeps each endpoint's sticky slots beyond the process. Nil slots are none.
type SlotStore interface {
	LoadSlots(endpoint string) (*router.Slots, error)
	SaveSlots(endpoint string, s *router.Slots) error
}

// Config of a Compiler. Path and Keys are required.
type Config struct {
	Path    *gateway.Path
	Metrics *metrics.Metrics // nil counts nothing
	Keys    KeyFinder
	Secret  []byte       // keys the hash of sticky clients, and the tokens of the house; the same on every gateway of it
	Slots   SlotStore    // nil keeps slots as long as the compiler lives
	Log     *slog.Logger // nil is silent
}

// KeyFinder resolves an endpoint's keys.
type KeyFinder func(e *spec.Endpoint) (*apikey.Keys, error)

// Compiler makes snapshot after snapshot for one path. Endpoints whose specification
// does not change are the same in each; of the others it keeps what must outlive
// their form. Not safe for concurrent use.
type Compiler struct {
	config     Config
	issuer     *issue.Issuer
	verifying  token.Slots
	generation uint64
	keysets    map[token.Source]*token.Keyset
	served     map[string]*compiled
	next       map[string]*compiled // what was compiled last
}

// compiled is an endpoint in the form that serves, what it was made of, and what the
// next form takes from it. Immutable; what it points to may count and remember.
type compiled struct {
	spec     *spec.Endpoint
	endpoint *gateway.Endpoint
	sequence *router.Sequence
	slots    *router.Slots // of sticky clients; nil if there are none
	stored   *router.Slots // those of slots that the store has; nil if there are none
	meters   *limit.Meters // of callers; nil if they are not limited
	verifier verifier      // zero without tokens
	copier   copier        // zero without a mirror
}

// copier sends an endpoint's copies, and what it was made of.
type copier struct {
	spec   spec.Mirror
	copier *gateway.Copier
	series *metrics.Mirror
}

// NewCompiler makes a compiler. Close ends it.
func NewCompiler(c Config) *Compiler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Compiler{
		config: c, issuer: issue.New(c.Secret), verifying: token.NewSlots(),
		keysets: map[token.Source]*token.Keyset{}, served: map[string]*compiled{},
	}
}

// Compile makes the next snapshot of endpoints, which are valid, have their
// defaults, and do not change any more. An error names every endpoint that cannot be
// served, and counts for nothing. The pools' limits change with Apply.
func (c *Compiler) Compile(endpoints []*spec.Endpoint) (*gateway.Snapshot, error) {
	list := make([]*gateway.Endpoint, 0, len(endpoints))
	var errs []error
	c.next = make(map[string]*compiled, len(endpoints))
	for _, e := range endpoints {
		k, err := c.endpoint(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", e.Metadata.Name, err))
			continue
		}
		c.next[e.Metadata.Name] = k
		list = append(list, k.endpoint)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return gateway.NewSnapshot(c.generation+1, list), nil
}

// endpoint compiles e, or takes it as it is served already.
func (c *Compiler) endpoint(e *spec.Endpoint) (*compiled, error) {
	before := c.served[e.Metadata.Name]
	same := before != nil && (before.spec == e || reflect.DeepEqual(&before.spec.Spec, &e.Spec))
	if same && !keyFiles(e) {
		return before.of(e), nil
	}
	who, err := c.authenticator(e, before)
	switch {
	case err != nil:
		return nil, err
	case same && who.Authenticator == before.endpoint.Auth:
		return before.of(e), nil
	case before == nil:
		before = &compiled{sequence: router.NewSequence()}
	}
	return c.compile(e, before, who)
}

// of is k for the same specification in another place of the files.
func (k *compiled) of(e *spec.Endpoint) *compiled {
	if k.spec == e {
		return k
	}
	moved := *k
	moved.spec = e
	return &moved
}

// keyFiles reports whether e's keys may change without it.
func keyFiles(e *spec.Endpoint) bool {
	k := &e.Spec.Auth.Keys
	return k.Primary != nil && k.Primary.File != "" || k.Secondary != nil && k.Secondary.File != ""
}

// compile makes the form of e that follows before.
func (c *Compiler) compile(e *spec.Endpoint, before *compiled, who authenticator) (*compiled, error) {
	name := e.Metadata.Name
	next := &compiled{spec: e, sequence: before.sequence, verifier: who.verifier}
	versions := make([]router.Version, len(e.Spec.Versions))
	for i := range e.Spec.Versions {
		versions[i] = place(&e.Spec.Versions[i])
	}
	// A specification has at most as many versions as a split; those that a model
	// repository has beyond that serve only requests that name them.
	split, err := router.New(name, versions[:min(len(versions), router.MaxVersions)], next.sequence)
	if err != nil {
		return nil, err
	}
	out := &gateway.Endpoint{Name: name, Auth: who.Authenticator, PinScope: pinScope(&e.Spec.Auth), Split: split}
	for i := range e.Spec.Versions {
		v := c.version(name, versions[i], &e.Spec.Versions[i])
		out.Versions = append(out.Versions, v)
		if e.Spec.Split.Fallback == spec.FallbackDefault && v.Default {
			out.Fallback = v
		}
	}
	if c.config.Metrics != nil {
		out.Refused = c.config.Metrics.Refused(name)
	}
	if out.Quota = quota(&e.Spec.Limits, before.meters); out.Quota != nil {
		next.meters = out.Quota.Meters
	}
	out.CORS = cors(e.Spec.CORS)
	if m := &e.Spec.Mirror; m.To != "" {
		if next.copier, err = c.copier(name, m, before.copier); err != nil {
			return nil, err
		}
		out.Mirror = &gateway.Mirror{To: out.Find([]byte(m.To)), Copier: next.copier.copier}
	}
	next.endpoint = out
	return next, c.stick(next, before, versions)
}

// cors is which pages may call an endpoint; nil where none may.
func cors(s *spec.CORS) *gateway.CORS {
	if s == nil {
		return nil
	}
	c := &gateway.CORS{
		Credentials: s.AllowCredentials, MaxAge: strconv.AppendInt(nil, int64(s.MaxAgeSeconds), 10),
		Sent: []byte(strings.Join(s.AllowHeaders, ", ")), Read: []byte(strings.Join(s.ExposeHeaders, ", ")),
	}
	if slices.Contains(s.AllowOrigins, "*") {
		return c
	}
	c.Origins = map[string]bool{}
	for _, o := range s.AllowOrigins {
		c.Origins[o] = true
	}
	return c
}

// quota is what an endpoint's callers may take; nil if that is not limited. The
// meters, nil if there are none yet, go on as they are.
func quota(l *spec.Limits, m *limit.Meters) *gateway.Quota {
	r := limit.Rates{Burst: time.Duration(l.BurstSeconds * float64(time.Second))}
	r.PerSecond[limit.Requests], r.PerSecond[limit.Bytes] = l.RequestsPerSecond, l.BytesPerSecond
	r.PerSecond[limit.Rows], r.PerSecond[limit.Device] = l.RowsPerSecond, l.DeviceSecondsPerSecond*float64(time.Second)
	if r.PerSecond == [limit.Kinds]float64{} {
		return nil
	}
	if m == nil {
		m = limit.NewMeters()
	}
	return &gateway.Quota{Rates: r, Meters: m}
}

// copier is who sends an endpoint's copies: the one of before, unless its
// configuration has changed.
func (c *Compiler) copier(endpoint string, m *spec.Mirror, before copier) (k copier, err error) {
	if before.spec == *m {
		return before, nil
	}
	k.spec = *m
	if c.config.Metrics != nil {
		k.series = c.config.Metrics.Mirror(endpoint, m.To)
	}
	k.copier, err = gateway.NewCopier(gateway.CopierConfig{
		Path: c.config.Path, BasisPoints: m.BasisPoints(), Concurrent: m.MaxConcurrent, Queued: m.MaxQueued, MaxBody: m.MaxBodyBytes, Series: k.series,
	})
	return k, err
}

// end ends k, unless next, which may be nil, goes on with it.
func (k *copier) end(next *compiled) {
	if k.copier == nil || next != nil && next.copier.copier == k.copier {
		return
	}
	k.copier.Close()
	if next == nil || next.copier.spec.To != k.spec.To {
		k.series.Forget()
	}
}

// stick finds the slots of next's clients, if it wants them.
func (c *Compiler) stick(next, before *compiled, versions []router.Version) (err error) {
	split := &next.spec.Spec.Split
	if split.Sticky == "" {
		return nil
	}
	name, slots := next.spec.Metadata.Name, before.slots
	next.stored = before.stored
	if slots == nil && c.config.Slots != nil {
		if slots, err = c.config.Slots.LoadSlots(name); err != nil {
			return err
		}
		next.stored = slots
	}
	if next.slots, err = slots.Rebalance(versions); err != nil {
		return err
	}
	next.endpoint.Sticky = &gateway.Sticky{Header: split.Header, Slots: router.NewSlotHash(c.config.Secret, name, next.slots)}
	return nil
}

// authenticator says who calls an endpoint.
type authenticator struct {
	auth.Authenticator
	verifier verifier // zero without tokens
}

func (c *Compiler) authenticator(e *spec.Endpoint, before *compiled) (a authenticator, err error) {
	switch e.Spec.Auth.Mode {
	case spec.AuthNone:
		a.Authenticator = auth.Open{}
	case spec.AuthToken:
		var known verifier
		if before != nil {
			known = before.verifier
		}
		a.verifier = c.verifier(e.Metadata.Name, e.Spec.Auth.Token, known)
		a.Authenticator = a.verifier.verifier
	default:
		a.Authenticator, err = c.config.Keys(e)
	}
	return a, err
}

// verifier is the one that an endpoint has already, with the tokens that it knows,
// unless more of its configuration has changed than what is revoked.
func (c *Compiler) verifier(endpoint string, t *spec.Token, known verifier) verifier {
	v := verifier{spec: *t, revoked: token.Revoked{Before: t.Revoked.Time(), Subjects: t.Revoked.Subjects, IDs: t.Revoked.IDs}}
	v.spec.Revoked = spec.Revoked{}
	if known.verifier != nil && reflect.DeepEqual(known.spec, v.spec) {
		v.source, v.verifier = known.source, known.verifier
		return v
	}
	v.source, v.verifier = c.newVerifier(endpoint, t)
	return v
}

// verifier is what an endpoint's tokens are verified by, and what it was made of.
type verifier struct {
	spec     spec.Token // but for what is revoked
	revoked  token.Revoked
	source   token.Source
	verifier *token.Verifier
}

func (c *Compiler) newVerifier(endpoint string, t *spec.Token) (token.Source, *token.Verifier) {
	config := token.Config{
		Issuer: t.Issuer, Audience: t.Audience, Require: t.RequiredClaims, Endpoint: endpoint, Endpoints: t.EndpointsClaim,
		Skew: time.Duration(t.ClockSkewSeconds) * time.Second, MaxLife: time.Duration(t.MaxLifetimeSeconds) * time.Second, Slots: c.verifying,
		Scopes: token.Scopes{Call: t.Scope, Pin: t.PinScope, Mirror: t.MirrorScope, High: t.HighScope, Low: t.LowScope},
	}
	source := token.Source{File: t.JWKS.File, URL: t.JWKS.URL}
	if t.Own() {
		source = token.Source{Own: c.issuer}
		config.Issuer, config.Audience = issue.Name, endpoint
		config.Scopes = token.Scopes{Call: issue.Call, Pin: issue.Pin, Mirror: issue.Mirror, High: issue.High, Low: issue.Low}
	}
	if c.keysets[source] == nil {
		c.keysets[source] = token.OpenKeys(source, c.config.Log)
	}
	config.Keys = c.keysets[source]
	return source, token.New(config)
}

// pinScope is the scope that an endpoint's callers need to pin a version, for
// answers that say so.
func pinScope(a *spec.Auth) string {
	if a.Mode != spec.AuthToken {
		return ""
	}
	if a.Token.Own() {
		return issue.Pin
	}
	return a.Token.PinScope
}

// closeKeysets ends those that no verifier uses.
func (c *Compiler) closeKeysets() {
	used := map[token.Source]bool{}
	for _, k := range c.served {
		used[k.verifier.source] = true
	}
	for source, k := range c.keysets {
		if !used[source] {
			k.Close()
			delete(c.keysets, source)
		}
	}
}

// Close ends what refreshes keys and sends copies. No request may be in flight any
// more; the path is closed after it.
func (c *Compiler) Close() {
	before := c.served
	c.served = nil
	c.closeKeysets()
	for _, k := range before {
		k.copier.end(nil)
	}
}

// place is a version's place in the split.
func place(v *spec.Version) router.Version {
	variant := router.Default
	switch v.Type {
	case spec.Control:
		variant = router.Control
	case spec.Treatment:
		variant = router.Treatment
	}
	return router.Version{Name: v.Name, Variant: variant, BasisPoints: v.BasisPoints(), Default: v.Default}
}

func (c *Compiler) version(endpoint string, v router.Version, s *spec.Version) *gateway.Version {
	out := &gateway.Version{
		Version: v, Pool: c.config.Path.Pool(gateway.Key{Endpoint: endpoint, Version: v.Name}),
		Limits: gateway.Limits{
			QueueWait:      time.Duration(s.MaxQueueWaitMs) * time.Millisecond,
			ScoringTimeout: time.Duration(s.ScoringTimeoutMs) * time.Millisecond,
			Concurrency:    s.MaxConcurrentRequestsPerContainer,
		},
	}
	if c.config.Metrics != nil {
		out.Series = c.config.Metrics.Series(endpoint, v.Name, v.Variant.String())
	}
	return out
}

// Issuer makes the house's own tokens.
func (c *Compiler) Issuer() *issue.Issuer { return c.issuer }

// Apply makes s, which Compile made last, the path's current snapshot, and returns
// when no request sees the one before any more. What that had and s has not is
// forgotten. An error means that sticky slots are served and not kept.
func (c *Compiler) Apply(s *gateway.Snapshot) error {
	before := c.served
	for name, k := range c.next {
		if b := before[name]; b == nil || b.endpoint != k.endpoint {
			k.begin()
		}
	}
	c.config.Path.Swap(s)
	c.generation, c.served = s.Generation, c.next
	c.closeKeysets()
	for name, k := range before {
		k.copier.end(c.served[name])
		c.forget(k, c.served[name])
	}
	return c.store()
}

// begin has what outlives the form before behave as k says.
func (k *compiled) begin() {
	for _, v := range k.endpoint.Versions {
		v.Pool.SetLimit(v.Limits.Concurrency)
	}
	if k.verifier.verifier != nil {
		k.verifier.verifier.Revoke(k.verifier.revoked)
	}
}

// forget drops what was counted of k and is not in now, nil for an endpoint that is
// gone.
func (c *Compiler) forget(k, now *compiled) {
	m := c.config.Metrics
	if m == nil || now != nil && now.endpoint == k.endpoint {
		return
	}
	name := k.endpoint.Name
	if now == nil {
		m.ForgetEndpoint(name)
	}
	for _, v := range k.endpoint.Versions {
		if now != nil {
			if w := now.endpoint.Find([]byte(v.Name)); w != nil && w.Variant == v.Variant {
				continue
			}
		}
		m.Forget(name, v.Name, v.Variant.String())
	}
}

// store stores the slots that the store does not have yet.
func (c *Compiler) store() error {
	if c.config.Slots == nil {
		return nil
	}
	var errs []error
	for name, k := range c.served {
		if k.slots == k.stored {
			continue
		}
		err := c.config.Slots.SaveSlots(name, k.slots)
		if errs = append(errs, err); err == nil {
			stored := *k
			stored.stored = k.slots
			c.served[name] = &stored
		}
	}
	return errors.Join(errs...)
}
