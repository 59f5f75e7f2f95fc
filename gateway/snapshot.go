package gateway

import (
	"strconv"
	"time"

	"sluice.dev/auth"
	"sluice.dev/gateway/limit"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// Snapshot is everything that a request needs to know, immutable, with a
// generation number. A request sees one snapshot from start to end.
type Snapshot struct {
	Generation uint64
	text       []byte // Generation, for answers
	endpoints  map[string]*Endpoint
	open       bool // an endpoint lets everybody in
}

// Endpoint is one endpoint of a snapshot.
type Endpoint struct {
	Name     string
	Auth     auth.Authenticator
	PinScope string // that a token must have to pin a version, for answers that say so
	Split    *router.Endpoint
	Versions []*Version       // as in Split; further ones serve only requests that name them
	Sticky   *Sticky          // nil assigns every request by itself
	Quota    *Quota           // nil does not limit callers
	Mirror   *Mirror          // gets copies; nil is none
	CORS     *CORS            // lets pages call; nil lets none
	Refused  *metrics.Refused // counts requests that reach no version; nil does not
	Fallback *Version         // serves where the assigned version has no ready replica; nil is none
}

// Quota is what each caller may take.
type Quota struct {
	Rates  limit.Rates
	Meters *limit.Meters
}

// Sticky is how clients get the same version every time.
type Sticky struct {
	Header string // that names the client; empty is its principal
	Slots  *router.SlotHash
}

// CORS is which pages may call from a browser, and the text of what answers say
// about it.
type CORS struct {
	Origins     map[string]bool // nil allows any
	Credentials bool
	Sent        []byte // headers that pages may send
	Read        []byte // headers of answers that pages may read
	MaxAge      []byte // seconds
}

// Allows reports whether pages of an origin may call. For nil, none may.
func (c *CORS) Allows(origin []byte) bool {
	return c != nil && (c.Origins == nil || c.Origins[string(origin)])
}

// Version is one version of an endpoint.
type Version struct {
	router.Version
	Endpoint string
	Pool     *Pool
	Limits   Limits
	Series   *metrics.Series

	tags Tags
}

// Tags are what answers say about the version that gave them.
type Tags struct {
	Name, Variant []byte
	Reasons       *[router.Reasons][]byte
}

// Limits of one version.
type Limits struct {
	QueueWait      time.Duration // the longest wait for a slot
	ScoringTimeout time.Duration // the longest time from there to the answer
	Concurrency    int           // requests at a time per replica; 0 leaves it to the replica
}

// Tags are the version's, not to be modified.
func (v *Version) Tags() *Tags { return &v.tags }

var (
	variants = [...][]byte{router.Default: []byte(router.Default.String()), router.Control: []byte(router.Control.String()), router.Treatment: []byte(router.Treatment.String())}
	reasons  = func() (text [router.Reasons][]byte) {
		for r := range router.Reasons {
			text[r] = []byte(r.String())
		}
		return text
	}()
)

// NewSnapshot makes a snapshot of endpoints with different names. They may be in the
// current one already.
func NewSnapshot(generation uint64, endpoints []*Endpoint) *Snapshot {
	s := &Snapshot{Generation: generation, text: strconv.AppendUint(nil, generation, 10), endpoints: make(map[string]*Endpoint, len(endpoints))}
	for _, e := range endpoints {
		s.endpoints[e.Name] = e
		s.open = s.open || e.Auth == auth.Open{}
		for _, v := range e.Versions {
			if v.tags.Name == nil { // else requests may be reading it
				v.Endpoint, v.tags = e.Name, Tags{Name: []byte(v.Name), Variant: variants[v.Variant], Reasons: &reasons}
			}
		}
	}
	return s
}

// Endpoint is the endpoint called name, or nil.
func (s *Snapshot) Endpoint(name []byte) *Endpoint { return s.endpoints[string(name)] }

// Endpoints are all of them, in no order.
func (s *Snapshot) Endpoints() map[string]*Endpoint { return s.endpoints }

// Ready reports whether the endpoint's default path can serve: every version
// with a share has a replica.
func (e *Endpoint) Ready() bool {
	for i := range e.Split.Versions {
		if e.Split.Share(i) > 0 && !e.Versions[i].Pool.Ready() {
			return false
		}
	}
	return true
}

// Ready reports whether there is an endpoint that can serve.
func (s *Snapshot) Ready() bool {
	for _, e := range s.endpoints {
		if e.Ready() {
			return true
		}
	}
	return false
}

// AllReady reports whether every endpoint can serve, which is what the Open Inference
// Protocol calls a ready server.
func (s *Snapshot) AllReady() bool {
	for _, e := range s.endpoints {
		if !e.Ready() {
			return false
		}
	}
	return true
}

// Find is the version called name, or nil.
func (e *Endpoint) Find(name []byte) *Version {
	for _, v := range e.Versions {
		if v.Name == string(name) {
			return v
		}
	}
	return nil
}

// Describe is the first of versions, which are e's, that a replica offers and of which
// it says what it takes; or else the first that one offers, since servers of other
// kinds may not say. Errors are *scorer.Error: none is ready.
func (e *Endpoint) Describe(versions []*Version) (described *Version, offer scorer.Offer, err error) {
	for _, v := range versions {
		if o, ok := v.Pool.Offer(); ok && (described == nil || len(offer.Signature.Inputs) == 0) {
			described, offer = v, o
		}
	}
	if described == nil {
		return nil, offer, scorer.Errorf(scorer.Unavailable, "no version of '%s' is ready", e.Name)
	}
	return described, offer, nil
}

// Default is the version that takes the traffic that no percentile claims.
func (e *Endpoint) Default() *Version {
	for _, v := range e.Versions {
		if v.Version.Default {
			return v
		}
	}
	return e.Versions[0]
}

// Swap makes s the current snapshot and returns when no request sees the one
// before any more.
func (p *Path) Swap(s *Snapshot) {
	p.calls.quiesce(p.snapshot.Swap(s))
	p.forget(s)
}

// forget drops the pools of versions that s does not have.
func (p *Path) forget(s *Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.pools {
		e := s.endpoints[k.Endpoint]
		if e == nil || e.Find([]byte(k.Version)) == nil {
			delete(p.pools, k)
		}
	}
}
