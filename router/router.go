// Package router decides which version of an endpoint serves a request.
//
// An endpoint's 1 to 6 versions share its traffic by percentile; the share that
// no percentile claims goes to the default version:
//
//	eff(v) = p(v) + [v is default]·(100 − Σp)
//
// Everything here is immutable but a Sequence, which outlives its endpoint's
// configurations, so that a reload does not restart the split.
package router

import (
	"fmt"
	"math"
)

// MaxVersions is how many versions an endpoint may have.
const MaxVersions = 6

// Variant says what a version is in an experiment. It labels, and routes nothing.
type Variant uint8

// The variants. A version that is neither control nor treatment is Default.
const (
	Default Variant = iota
	Control
	Treatment
)

// String is the variant's name in headers and metrics.
func (v Variant) String() string {
	return [...]string{"default", "control", "treatment"}[v]
}

// Reason says why a version was assigned.
type Reason uint8

// The reasons.
const (
	Percentile Reason = iota // by the split
	Pinned                   // the request named it
	Sticky                   // by the client's slot
	Fallback                 // the one that it should have been has no ready replica
	Reasons                  // count
)

// String is the reason's name in headers.
func (r Reason) String() string { return [...]string{"percentile", "pinned", "sticky", "fallback"}[r] }

// Version is one version's place in the split.
type Version struct {
	Name        string
	Variant     Variant
	BasisPoints int // hundredths of a percent, 0 to 10,000
	Default     bool
}

// Endpoint is the split of one endpoint.
type Endpoint struct {
	Name     string
	Versions []Version

	sequence *Sequence
	shares   [MaxVersions]int    // effective, in basis points
	upTo     [MaxVersions]uint64 // upTo[i]: fractions of 2^64 below it belong to versions up to i
	last     int                 // the last version with a share: it takes what rounding leaves
}

// whole is all traffic in basis points.
const whole = 10_000

// New makes an endpoint's split over the positions of s. Errors mean that the
// versions were not validated.
func New(name string, versions []Version, s *Sequence) (*Endpoint, error) {
	shares, err := Shares(versions)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", name, err)
	}
	e := &Endpoint{Name: name, Versions: versions, sequence: s}
	sum := 0
	for i, share := range shares {
		sum += share
		e.shares[i] = share
		e.upTo[i] = fraction(sum)
		if share > 0 {
			e.last = i
		}
	}
	return e, nil
}

// fraction is basis points as a fraction of 2^64.
func fraction(points int) uint64 {
	if points >= whole {
		return math.MaxUint64
	}
	const unit = math.MaxUint64 / whole
	return uint64(points) * unit
}

// Shares is each version's effective share in basis points; they sum to 10,000.
func Shares(versions []Version) ([]int, error) {
	if n := len(versions); n < 1 || n > MaxVersions {
		return nil, fmt.Errorf("%d versions; there must be 1 to %d", n, MaxVersions)
	}
	shares, rest, fallback := make([]int, len(versions)), whole, -1
	for i, v := range versions {
		if v.BasisPoints < 0 || v.BasisPoints > whole {
			return nil, fmt.Errorf("version %s: %d basis points; there must be 0 to %d", v.Name, v.BasisPoints, whole)
		}
		if v.Default && fallback >= 0 {
			return nil, fmt.Errorf("versions %s and %s are both the default", versions[fallback].Name, v.Name)
		}
		if v.Default {
			fallback = i
		}
		shares[i] = v.BasisPoints
		rest -= v.BasisPoints
	}
	switch {
	case rest < 0:
		return nil, fmt.Errorf("the percentiles sum to %d.%02d, more than 100", (whole-rest)/100, (whole-rest)%100)
	case fallback < 0:
		return nil, fmt.Errorf("no version is the default")
	}
	shares[fallback] += rest
	return shares, nil
}

// Share is the effective share of the version at index i, in basis points.
func (e *Endpoint) Share(i int) int { return e.shares[i] }

// Next assigns the next request, by its index in Versions.
func (e *Endpoint) Next() int { return e.sequence.next(e) }

// at is the version that owns position x of the split.
func (e *Endpoint) at(x uint64) int {
	for i := range e.last {
		if x < e.upTo[i] {
			return i
		}
	}
	return e.last
}

// Find is the index of the version called name, or -1.
func (e *Endpoint) Find(name []byte) int {
	for i := range e.Versions {
		if e.Versions[i].Name == string(name) {
			return i
		}
	}
	return -1
}
