package gateway

import (
	"encoding/json"
	"time"

	"sluice.dev/scorer"
)

// statisticsTimeout is how long a replica may take to tell its statistics.
const statisticsTimeout = 5 * time.Second

// Statistics are those of a version, of all its replicas in sum. They need no slot.
// Errors are *scorer.Error.
func (p *Path) Statistics(v *Version) (scorer.Statistics, error) {
	sum := scorer.Statistics{Batches: []scorer.BatchStatistics{}}
	for _, r := range v.Pool.Offered() {
		if !r.Offer.Knows(scorer.Stats) {
			return sum, scorer.Errorf(scorer.Unsupported, "what serves version '%s' of model '%s' has no statistics", v.Name, v.Endpoint)
		}
		one, err := p.ask(r.Scorer)
		if err != nil {
			return sum, err
		}
		sum.Merge(&one)
	}
	return sum, nil
}

// ask has one replica tell its statistics.
func (p *Path) ask(r scorer.Scorer) (s scorer.Statistics, err error) {
	c := p.Call()
	defer p.Done(c)
	c.Response.Reset()
	c.SetBody(scorer.Stats, 0, nil)
	c.send(r, scorer.Now().Add(statisticsTimeout))
	if c.Response.Status != scorer.OK {
		return s, scorer.Errorf(c.Response.Status, "%s", c.Response.Body)
	}
	if err := json.Unmarshal(c.Response.Body, &s); err != nil {
		return s, scorer.Errorf(scorer.Internal, "a replica's statistics are not readable")
	}
	return s, nil
}

// Offered are the replicas that are there.
func (p *Pool) Offered() []Offered {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Offered
	for _, r := range p.replicas {
		if !r.gone {
			list = append(list, Offered{Scorer: r.scorer, Offer: r.offer})
		}
	}
	return list
}
