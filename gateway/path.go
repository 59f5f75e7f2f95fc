// Package gateway is the request path: it routes a request to an endpoint, checks
// its credential, assigns a version, waits for a slot, sends the request to a
// replica and records what came of it. Front ends turn a protocol into one call
// of [Path.Serve]; the bodies go through unread.
package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"sluice.dev/auth"
	"sluice.dev/gateway/admit"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// Config of a Path. The zero value is the default.
type Config struct {
	// MaxQueue is how many requests may wait for one version; 0 means 1,024.
	MaxQueue int
	// Secret keys the hash by which scorers tell callers apart; gateways that share it
	// agree. nil makes one up.
	Secret []byte
	// Refused counts requests for endpoints that there are not; nil does not.
	Refused *metrics.Refused
}

// Path is the request path. Safe for concurrent use.
type Path struct {
	config   Config
	flows    flows
	snapshot atomic.Pointer[Snapshot]
	calls    *calls

	mu    sync.Mutex
	pools map[Key]*Pool
}

// NewPath makes a path without endpoints. Close ends it.
func NewPath(c Config) *Path {
	if c.MaxQueue == 0 {
		c.MaxQueue = 1024
	}
	p := &Path{config: c, flows: newFlows(c.Secret), calls: newCalls(), pools: map[Key]*Pool{}}
	p.snapshot.Store(NewSnapshot(0, nil))
	return p
}

// Close ends the path's goroutine. No request may be in flight.
func (p *Path) Close() { p.calls.close() }

// Snapshot is the current one.
func (p *Path) Snapshot() *Snapshot { return p.snapshot.Load() }

// InFlight is how many requests are in the house.
func (p *Path) InFlight() int { return p.calls.active() }

// Serve answers c. On return c.Response holds the answer or the error's message,
// and c.Version what served it, nil where the request did not get that far.
func (p *Path) Serve(c *Call) {
	c.Version, c.Endpoint = nil, nil
	c.begin()
	s := p.enter(c)
	defer c.snapshot.Store(nil) // also where a front end recovers from a bug
	c.Generation = s.text
	if status := p.serve(c, s); status != scorer.OK {
		c.Response.Fail(status, c.message(status))
	}
	p.record(c)
	c.mirror()
	if c.meter != nil {
		c.meter.Settle(&c.Endpoint.Quota.Rates, c.Response.Rows, c.Response.Device, scorer.Now())
	}
}

// enter holds the current snapshot for c until Serve ends.
func (p *Path) enter(c *Call) *Snapshot {
	for {
		s := p.snapshot.Load()
		c.snapshot.Store(s)
		if p.snapshot.Load() == s {
			return s
		}
	}
}

// serve is the path. A status other than OK means that the gateway itself
// answers, with the message of that status; a scorer's answer is in c.Response.
func (p *Path) serve(c *Call, s *Snapshot) scorer.Status {
	e, who, err := s.identify(c.Name, c.Credential)
	c.Endpoint, c.Principal, c.Refusal = e, who, err
	if e == nil {
		return scorer.NotFound
	}
	if err != nil {
		status, _ := Refuse(err)
		return status
	}
	if c.Unread {
		return scorer.Overloaded
	}
	c.Class = min(c.Class, admit.Class(int8(admit.Normal)+int8(who.MaxPriority))) // as far as it may
	if e.Quota != nil && !e.Quota.admit(c) {
		return scorer.Exhausted
	}
	v, status := e.assign(c)
	if status != scorer.OK {
		return status
	}
	c.Version = v
	if status = p.score(c, v); c.unserved(status) && c.standIn() {
		c.Response.Reset()
		c.Version, c.Reason = e.Fallback, router.Fallback // the last replica of v left meanwhile
		status = p.score(c, c.Version)
	}
	return status
}

// unserved reports whether nobody began c's work, for want of a replica.
func (c *Call) unserved(status scorer.Status) bool {
	r := &c.Response
	return status == scorer.Unavailable || status == scorer.OK && r.Status == scorer.Unavailable && r.NotStarted
}

// admit takes c's request from its caller's quota, if there is enough.
func (q *Quota) admit(c *Call) bool {
	m := q.Meters.Of(c.Principal.ID, c.start)
	c.exceeded, c.RetryIn = m.Admit(&q.Rates, len(c.request.Body), c.start)
	if c.RetryIn > 0 {
		return false
	}
	c.meter = m
	return true
}

// identify finds the endpoint, nil if there is none, and who calls it. An endpoint
// that refuses the caller is found.
func (s *Snapshot) identify(name, credential []byte) (*Endpoint, *auth.Principal, error) {
	e := s.Endpoint(name)
	if e == nil {
		return nil, nil, nil
	}
	who, err := e.Auth.Authenticate(credential)
	return e, who, err
}

// MayCall reports whether Serve would let a caller in, for front ends that want to
// know before they read a body.
func (p *Path) MayCall(name, credential []byte) bool {
	e, _, err := p.snapshot.Load().identify(name, credential)
	return e != nil && err == nil
}

// mostAsked is of how many endpoints Knows asks each.
const mostAsked = 8

// Knows reports whether a caller is known to an endpoint that is not open to all, for
// front ends that learn only with the body which endpoint is meant. The error, one of
// package auth, says that no endpoint lets the caller in; it is counted as a refusal.
func (p *Path) Knows(credential []byte) (known bool, refusal error) {
	s := p.snapshot.Load()
	known, refusal = s.knows(credential)
	if refusal != nil {
		status, _ := Refuse(refusal)
		p.config.Refused.Add(status)
	}
	return known, refusal
}

func (s *Snapshot) knows(credential []byte) (bool, error) {
	switch {
	case len(s.endpoints) == 0 || s.open && len(credential) == 0:
		return false, nil
	case len(credential) == 0:
		return false, auth.ErrMissing
	case len(s.endpoints) > mostAsked:
		return false, nil // would take longer than to read the message
	}
	var refusal error
	judged := !s.open
	for _, e := range s.endpoints {
		who, err := e.Auth.Authenticate(credential)
		switch {
		case err != nil:
			refusal = err
			judged = judged && errors.Is(err, auth.ErrInvalid) // else the endpoint itself is to tell
		case who.ID != "":
			return true, nil
		}
	}
	switch {
	case !judged:
		return false, nil
	case len(s.endpoints) > 1:
		return false, auth.ErrInvalid // each has its own words
	}
	return false, refusal
}

// Refuse is the status of an authenticator's error, and what a client is told: what
// it can do, and nothing that it could guess by.
func Refuse(err error) (scorer.Status, string) {
	var lacking *auth.Lacking
	switch {
	case errors.Is(err, auth.ErrForm):
		return scorer.Unauthenticated, "no valid credential; this endpoint takes a token, as 'Authorization: Bearer TOKEN'"
	case errors.Is(err, auth.ErrEnded):
		return scorer.Unauthenticated, "no valid credential; the token has expired or was revoked; get another"
	case errors.Is(err, auth.ErrMissing), errors.Is(err, auth.ErrInvalid):
		return scorer.Unauthenticated, "no valid credential; send the endpoint's key, or a token, as 'Authorization: Bearer KEY'"
	case errors.Is(err, auth.ErrSeveral):
		return scorer.InvalidArgument, "more than one credential; send one"
	case errors.As(err, &lacking):
		return scorer.PermissionDenied, "the token is valid, and lacks the scope '" + lacking.Scope + "'"
	case errors.Is(err, auth.ErrForbidden):
		return scorer.PermissionDenied, "the token is valid, and not for this endpoint"
	case errors.Is(err, auth.ErrBusy):
		return scorer.Overloaded, "too many tokens are being verified; try again later"
	case errors.Is(err, auth.ErrUnavailable):
		return scorer.Unavailable, "the issuer's keys are not known yet; try again later"
	}
	return scorer.Internal, "the credential could not be checked"
}

// Refusal is an authenticator's error as a client is told it, a *scorer.Error, which
// front ends can still tell from others.
func Refusal(err error) error {
	status, message := Refuse(err)
	return errors.Join(&scorer.Error{Status: status, Message: message}, err)
}

// assign picks the version that serves c.
func (e *Endpoint) assign(c *Call) (*Version, scorer.Status) {
	if len(c.Pin) > 0 {
		if !c.Principal.MayPin {
			c.Refusal = &auth.Lacking{Scope: e.PinScope}
			return nil, scorer.PermissionDenied
		}
		v := e.Find(c.Pin)
		if v == nil {
			return nil, scorer.NotFound
		}
		c.Reason = router.Pinned // and nothing else will do
		return v, scorer.OK
	}
	v := e.share(c)
	if e.Fallback != nil && !v.Pool.Ready() && e.Fallback.Pool.Ready() {
		c.Reason = router.Fallback
		return e.Fallback, scorer.OK
	}
	return v, scorer.OK
}

// share picks by the split: the client's slot, or, of one without a name, the
// next in the sequence.
func (e *Endpoint) share(c *Call) *Version {
	if e.Sticky != nil {
		if client := e.Sticky.client(c); len(client) > 0 {
			c.Reason = router.Sticky
			return e.Versions[e.Sticky.Slots.Assign(client)]
		}
	}
	c.Reason = router.Percentile
	return e.Versions[e.Split.Next()]
}

// client names the client of c; empty if it has no name.
func (s *Sticky) client(c *Call) []byte {
	switch {
	case s.Header == "":
		return bytesOf(c.Principal.ID)
	case c.Headers == nil:
		return nil
	}
	return c.Headers.Peek(s.Header)
}

// bytesOf is s without a copy, only to be read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// maxAttempts bounds how often one request is sent.
const maxAttempts = 3

// score admits c and sends it to a replica. Work that certainly never began is
// sent again, since its replica may have left while c was on its way.
func (p *Path) score(c *Call, v *Version) scorer.Status {
	c.request.ID = c.ID
	c.request.Class, c.request.Flow = scorer.Class(c.Class)-scorer.Class(admit.Normal), p.flows.of(c.caller())
	for tries := maxAttempts - 1; ; tries-- {
		r, status := v.Pool.acquire(c, v.Limits.QueueWait)
		if status != scorer.OK {
			return status
		}
		if !v.try(c, r, tries) {
			return scorer.OK
		}
		c.Response.Reset()
	}
}

// try sends c to r, gives r's slot back, and reports whether c may be sent again. A bug
// in a scorer of this process gives it back, too, and is the front end's to answer.
func (v *Version) try(c *Call, r *Replica, tries int) (again bool) {
	o := bad
	defer func() { again = v.Pool.release(r, o, tries) }()
	own := v.Limits.ScoringTimeout + c.waited
	c.send(r.scorer, c.deadline(own))
	o = c.outcome(c.start.Add(own))
	return false // but for what release says
}

// send has s answer c's request, which is given up at the deadline.
func (c *Call) send(s scorer.Scorer, deadline scorer.Instant) {
	c.request.Deadline = deadline
	c.wait.expires.Store(int64(deadline))
	s.Score(&c.request, &c.Response)
	c.wait.expires.Store(0)
}

// deadline is the least of own and what the client allows, from c's arrival on.
func (c *Call) deadline(own time.Duration) scorer.Instant {
	if c.Timeout > 0 {
		own = min(own, c.Timeout)
	}
	return c.start.Add(own)
}

func (p *Path) record(c *Call) {
	r := &c.Response
	if c.Version == nil {
		refused := p.config.Refused
		if c.Endpoint != nil {
			refused = c.Endpoint.Refused
		}
		refused.Add(r.Status)
		return
	}
	c.Version.Series.Add(r.Status, scorer.Now().Sub(c.start), c.waited+r.Queue)
}

// message is what the gateway's own answers say.
func (c *Call) message(s scorer.Status) string {
	if c.Refusal != nil {
		_, text := Refuse(c.Refusal)
		if c.Principal != nil {
			text += "; leave the version out, or get a token that may choose it"
		}
		return text
	}
	switch s {
	case scorer.NotFound:
		if c.Endpoint == nil {
			return "Request for unknown model: '" + printable(c.Name) + "' is not found"
		}
		return "Request for unknown model: '" + printable(c.Name) + "' version " + printable(c.Pin) + " is not found"
	case scorer.Exhausted:
		return "this caller's quota of " + c.exceeded.String() + " is used up; try again in " + c.RetryIn.Round(time.Millisecond).String()
	case scorer.Overloaded:
		return "too many requests for this version: " + c.overload() + "; try again later or add replicas"
	case scorer.Unavailable:
		return "no replica of this version is ready; try again later"
	case scorer.DeadlineExceeded:
		if c.shed == shedLate {
			return "no answer in time: the request would have had to wait about " + c.estimate.Round(time.Millisecond).String() + " for a slot"
		}
		return "no answer in time; the request waited for a slot until its deadline"
	case scorer.Canceled:
		return "cancelled by the client"
	}
	return "the request could not be answered"
}

// overload says why there was no slot.
func (c *Call) overload() string {
	if c.Unread {
		return "the credential could not be checked before the body came"
	}
	switch c.shed {
	case shedFull:
		return "its queue is full"
	case shedLate:
		return "its queue takes about " + c.estimate.Round(time.Millisecond).String()
	case shedDisplaced:
		return "others had fewer in its queue, or a higher priority"
	}
	return "no slot became free in time"
}

// printable is a client's name as it may stand in a message: short, in plain
// characters.
func printable(name []byte) string {
	const most = 64
	b := make([]byte, 0, most)
	for _, c := range name[:min(len(name), most)] {
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		b = append(b, c)
	}
	return string(b)
}
