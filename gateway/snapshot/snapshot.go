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

// Compiler makes snapshot after snapshot for one path. It keeps what must outlive
// them: where each endpoint's split is, and which versions are counted. Not safe
// for concurrent use.
type Compiler struct {
	config     Config
	issuer     *issue.Issuer
	verifying  token.Slots
	generation uint64
	keysets    map[token.Source]*token.Keyset
	kept            // of what is served
	next       kept // of what was compiled last
	series     map[labels]*metrics.Series
}

// kept is what an endpoint takes from one snapshot to the next.
type kept struct {
	sequences map[string]*router.Sequence
	slots     map[string]*router.Slots
	meters    map[string]*limit.Meters
	verifiers map[string]verifier
	copiers   map[string]copier
}

// copier sends an endpoint's copies, and what it was made of.
type copier struct {
	spec   spec.Mirror
	copier *gateway.Copier
}

// labels name the series of one version.
type labels struct{ endpoint, version, variant string }

// NewCompiler makes a compiler. Close ends it.
func NewCompiler(c Config) *Compiler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Compiler{
		config: c, issuer: issue.New(c.Secret), verifying: token.NewSlots(),
		keysets: map[token.Source]*token.Keyset{}, series: map[labels]*metrics.Series{},
	}
}

// Compile makes the next snapshot of endpoints, which are valid and have their
// defaults. An error names every endpoint that cannot be served, and counts for
// nothing. The pools' limits change with Apply.
func (c *Compiler) Compile(endpoints []*spec.Endpoint) (*gateway.Snapshot, error) {
	var list []*gateway.Endpoint
	var errs []error
	c.next = kept{map[string]*router.Sequence{}, map[string]*router.Slots{}, map[string]*limit.Meters{}, map[string]verifier{}, map[string]copier{}}
	for _, e := range endpoints {
		compiled, err := c.endpoint(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", e.Metadata.Name, err))
			continue
		}
		list = append(list, compiled)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return gateway.NewSnapshot(c.generation+1, list), nil
}

func (c *Compiler) endpoint(e *spec.Endpoint) (*gateway.Endpoint, error) {
	name := e.Metadata.Name
	who, err := c.authenticator(e)
	if err != nil {
		return nil, err
	}
	versions := make([]router.Version, len(e.Spec.Versions))
	for i := range e.Spec.Versions {
		versions[i] = place(&e.Spec.Versions[i])
	}
	sequence := c.sequences[name]
	if sequence == nil {
		sequence = router.NewSequence()
	}
	c.next.sequences[name] = sequence
	// A specification has at most as many versions as a split; those that a model
	// repository has beyond that serve only requests that name them.
	split, err := router.New(name, versions[:min(len(versions), router.MaxVersions)], sequence)
	if err != nil {
		return nil, err
	}
	out := &gateway.Endpoint{Name: name, Auth: who, PinScope: pinScope(&e.Spec.Auth), Split: split}
	for i := range e.Spec.Versions {
		v := c.version(name, versions[i], &e.Spec.Versions[i])
		out.Versions = append(out.Versions, v)
		if e.Spec.Split.Fallback == spec.FallbackDefault && v.Default {
			out.Fallback = v
		}
	}
	out.Quota = c.quota(name, &e.Spec.Limits)
	out.CORS = cors(e.Spec.CORS)
	if out.Mirror, err = c.mirror(name, &e.Spec.Mirror, out); err != nil {
		return nil, err
	}
	out.Sticky, err = c.sticky(e, versions)
	return out, err
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
// meters go on as they are.
func (c *Compiler) quota(endpoint string, l *spec.Limits) *gateway.Quota {
	r := limit.Rates{Burst: time.Duration(l.BurstSeconds * float64(time.Second))}
	r.PerSecond[limit.Requests], r.PerSecond[limit.Bytes] = l.RequestsPerSecond, l.BytesPerSecond
	r.PerSecond[limit.Rows], r.PerSecond[limit.Device] = l.RowsPerSecond, l.DeviceSecondsPerSecond*float64(time.Second)
	if r.PerSecond == [limit.Kinds]float64{} {
		return nil
	}
	m := c.meters[endpoint]
	if m == nil {
		m = limit.NewMeters()
	}
	c.next.meters[endpoint] = m
	return &gateway.Quota{Rates: r, Meters: m}
}

// mirror is who sends an endpoint's copies: the one that it has already, unless
// its configuration has changed. Nil where there is none.
func (c *Compiler) mirror(endpoint string, m *spec.Mirror, e *gateway.Endpoint) (*gateway.Mirror, error) {
	if m.To == "" {
		return nil, nil
	}
	k, ok := c.copiers[endpoint]
	if !ok || k.spec != *m {
		config := gateway.CopierConfig{
			Path: c.config.Path, BasisPoints: m.BasisPoints(), Concurrent: m.MaxConcurrent, Queued: m.MaxQueued, MaxBody: m.MaxBodyBytes,
		}
		if c.config.Metrics != nil {
			config.Series = c.config.Metrics.Mirror(endpoint, m.To)
		}
		made, err := gateway.NewCopier(config)
		if err != nil {
			return nil, err
		}
		k = copier{*m, made}
	}
	c.next.copiers[endpoint] = k
	return &gateway.Mirror{To: e.Find([]byte(m.To)), Copier: k.copier}, nil
}

// closeCopiers ends those of before that are not used any more.
func (c *Compiler) closeCopiers(before map[string]copier) {
	for name, k := range before {
		if c.copiers[name].copier != k.copier {
			k.copier.Close()
		}
	}
}

// sticky is the slots of an endpoint that wants them.
func (c *Compiler) sticky(e *spec.Endpoint, versions []router.Version) (*gateway.Sticky, error) {
	if e.Spec.Split.Sticky == "" {
		return nil, nil
	}
	name := e.Metadata.Name
	before := c.slots[name]
	if before == nil && c.config.Slots != nil {
		var err error
		if before, err = c.config.Slots.LoadSlots(name); err != nil {
			return nil, err
		}
	}
	slots, err := before.Rebalance(versions)
	if err != nil {
		return nil, err
	}
	c.next.slots[name] = slots
	return &gateway.Sticky{Header: e.Spec.Split.Header, Slots: router.NewSlotHash(c.config.Secret, name, slots)}, nil
}

func (c *Compiler) authenticator(e *spec.Endpoint) (auth.Authenticator, error) {
	switch e.Spec.Auth.Mode {
	case spec.AuthNone:
		return auth.Open{}, nil
	case spec.AuthToken:
		return c.verifier(e.Metadata.Name, e.Spec.Auth.Token), nil
	}
	return c.config.Keys(e)
}

// verifier is the one that an endpoint has already, with the tokens that it knows,
// unless more of its configuration has changed than what is revoked.
func (c *Compiler) verifier(endpoint string, t *spec.Token) *token.Verifier {
	v := verifier{spec: *t, revoked: token.Revoked{Before: t.Revoked.Time(), Subjects: t.Revoked.Subjects, IDs: t.Revoked.IDs}}
	v.spec.Revoked = spec.Revoked{}
	if known, ok := c.verifiers[endpoint]; ok && reflect.DeepEqual(known.spec, v.spec) {
		v.source, v.verifier = known.source, known.verifier
	} else {
		v.source, v.verifier = c.newVerifier(endpoint, t)
	}
	c.next.verifiers[endpoint] = v
	return v.verifier
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
	for _, v := range c.verifiers {
		used[v.source] = true
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
	copiers := c.copiers
	c.verifiers, c.copiers = nil, nil
	c.closeKeysets()
	c.closeCopiers(copiers)
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
		l := labels{endpoint, v.Name, v.Variant.String()}
		if c.series[l] == nil {
			c.series[l] = c.config.Metrics.Series(l.endpoint, l.version, l.variant)
		}
		out.Series = c.series[l]
	}
	return out
}

// Issuer makes the house's own tokens.
func (c *Compiler) Issuer() *issue.Issuer { return c.issuer }

// Apply makes s, which Compile made last, the path's current snapshot, and returns
// when no request sees the one before any more. What that had and s has not is
// forgotten. An error means that sticky slots are served and not kept.
func (c *Compiler) Apply(s *gateway.Snapshot) error {
	served := map[labels]bool{}
	for name, e := range s.Endpoints() {
		for _, v := range e.Versions {
			served[labels{name, v.Name, v.Variant.String()}] = true
			v.Pool.SetLimit(v.Limits.Concurrency)
		}
	}
	for _, v := range c.next.verifiers {
		v.verifier.Revoke(v.revoked)
	}
	c.config.Path.Swap(s)
	before := c.kept
	c.generation, c.kept = s.Generation, c.next
	c.closeKeysets()
	c.closeCopiers(before.copiers)
	for l := range c.series {
		if !served[l] {
			delete(c.series, l)
			c.config.Metrics.Forget(l.endpoint, l.version, l.variant)
		}
	}
	return c.keep(before.slots)
}

// keep stores the slots that are not as before.
func (c *Compiler) keep(before map[string]*router.Slots) error {
	if c.config.Slots == nil {
		return nil
	}
	var errs []error
	for name, s := range c.slots {
		if s != before[name] {
			errs = append(errs, c.config.Slots.SaveSlots(name, s))
		}
	}
	return errors.Join(errs...)
}
