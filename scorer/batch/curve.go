package batch

import (
	"math"
	"math/bits"
	"time"
)

// Curve is how long runs of a model take, by their rows, for inputs of one shape
// on one device. It is learnt from runs: each corrects the sizes next to its own
// by a small step, so that old runs are forgotten slowly, and an outlier, clipped
// to a few times the usual spread, moves little. The curve need not be convex: a
// convolutional network's working set may outgrow the cache at two rows.
//
// Sizes in between are interpolated. A size beyond what ran is expected to gain a
// little over the largest that did, so that it is tried where that would help; if
// it does not hold what was expected, the next one is not tried. A size that ran but
// a few times, or not for long, is trusted less, and tried again.
//
// The zero value knows nothing. For one goroutine at a time.
type Curve struct {
	cells  [cells]cell
	est    [cells]float64 // nanoseconds by cell at a pace of 1, what did not run included
	pace   float64        // times as long as est runs take now
	drift  float64        // by what part of the time runs of late missed it
	moving int            // runs until the pace is taken to be known
	last   int            // the largest cell that ran; -1 if none did
	runs   uint64         // that were observed
	best   int            // rows: the smallest size within tolerance of the most rows per second
	most   float64        // rows per nanosecond, of any size
	try    int            // rows: best by what is hoped of sizes that did not run, or seldom, or not for long
	since  int            // runs since these were looked for
	ready  bool           // est is filled in
}

// cell is one size's time.
type cell struct {
	mean float64 // nanoseconds at a pace of 1; of the first runs, the fastest
	dev  float64 // mean absolute deviation, nanoseconds
	n    float64 // runs that were counted, up to settled, those of sizes near it in part; 0 if it never ran
	seen uint64  // Curve.runs at its last run
}

const (
	cells     = 28    // sizes 1, 2, 3, 4, 6, 8, 12, … 16384
	fastest   = 3     // first runs, of which the fastest counts: others pay for memory and caches
	settled   = 32    // runs after which the step is as small as it gets
	quick     = 8     // runs in which a change of pace is noticed
	lasting   = 2048  // runs in which it goes back
	slowest   = 2.0   // times as long at most, and a part so small at least
	steady    = 0.15  // part of the time; by less it is the same pace
	outlier   = 3     // deviations beyond which a run counts as if it were there
	tolerance = 0.97  // of the most rows per second: what is that good is as good
	hope      = 0.9   // time per row of a size beyond what ran, of that of the largest
	distrust  = 0.1   // most by which a size that has not run for long is expected to have improved
	forgotten = 16384 // runs of others after which that is expected
	seldom    = 0.35  // likewise of a size that ran but a few times: so much before its first run, the less the more it ran
	enough    = 8     // runs of a size after which it is believed
	minSpread = 0.005 // of the mean: the least deviation that is believed
	handling  = 1500  // nanoseconds that a run costs beside the device's time: forming it, waking, answering
)

// cellOf is the largest cell of at most rows rows.
func cellOf(rows int) int {
	if rows < 2 {
		return 0
	}
	k := bits.Len(uint(rows)) - 1
	i := 2*k - 1
	if rows >= 3<<(k-1) {
		i++
	}
	return min(i, cells-1)
}

// sizeOf is the rows of a cell.
func sizeOf(i int) int {
	switch {
	case i == 0:
		return 1
	case i%2 == 1:
		return 1 << ((i + 1) / 2)
	}
	return 3 << (i/2 - 1)
}

// Known reports whether any run was observed.
func (c *Curve) Known() bool { return c.ready && c.last >= 0 }

// Runs is how many runs were observed, those before a restart not included.
func (c *Curve) Runs() uint64 { return c.runs }

// At is how long a run of rows takes, 0 where nothing is known.
func (c *Curve) At(rows int) time.Duration {
	return time.Duration(math.Min(c.at(float64(rows)), 1<<62)) // years
}

// High is At and what runs commonly take longer, about the 99th percentile.
func (c *Curve) High(rows int) time.Duration {
	if !c.Known() {
		return 0
	}
	i := min(cellOf(rows), c.last)
	for i > 0 && c.cells[i].n == 0 {
		i--
	}
	spread := 0.0
	if c.cells[i].mean > 0 {
		spread = c.cells[i].dev / c.cells[i].mean
	}
	return time.Duration(c.at(float64(rows)) * (1 + 3*spread))
}

// Best is the smallest size with about the most rows per second, 1 where nothing is known.
func (c *Curve) Best() int { return max(c.best, 1) }

// quickest is the size of at most rows, or rows itself, with the most rows per second.
func (c *Curve) quickest(rows int) int {
	best, most := rows, float64(rows)/(c.at(float64(rows))+handling)
	for i := cellOf(rows); i >= 0; i-- {
		if speed := float64(sizeOf(i)) / (c.pace*c.est[i] + handling); speed > most {
			best, most = sizeOf(i), speed
		}
	}
	return best
}

// reach is the most rows of a run: what is far beyond all that ran is not tried.
func (c *Curve) reach() int {
	const steps = 4 // times the largest
	if !c.Known() {
		return steps
	}
	return steps * sizeOf(c.last)
}

// at is At for a number of rows that need not be whole, in nanoseconds.
func (c *Curve) at(rows float64) float64 {
	if !c.Known() {
		return 0
	}
	i := cellOf(int(rows))
	lo := float64(sizeOf(i))
	if i == cells-1 || rows < lo {
		return c.pace * c.est[i] * math.Max(rows, 1) / lo
	}
	hi := float64(sizeOf(i + 1))
	return c.pace * (c.est[i] + (c.est[i+1]-c.est[i])*(rows-lo)/(hi-lo))
}

// hoped is at of a whole size, or less: what it may take in truth where it ran seldom
// or not for long, so that a verdict which others on the machine disturbed is not for
// ever. The first runs of a size are no verdict at all.
func (c *Curve) hoped(rows int) float64 {
	t := c.at(float64(rows))
	i := cellOf(rows)
	switch k := &c.cells[i]; {
	case k.n >= fastest:
		few := seldom * math.Max(0, 1-k.n/enough)
		old := distrust * math.Min(1, float64(c.runs-k.seen)/forgotten)
		return t * (1 - math.Max(few, old))
	case k.n > 0 && i > 0:
		return math.Min(t, hope*c.pace*c.est[i-1]*float64(rows)/float64(sizeOf(i-1)))
	}
	return t
}

// Observe records that a run of rows took so long.
func (c *Curve) Observe(rows int, took time.Duration) {
	if !c.ready {
		c.clear()
	}
	c.runs++
	i := cellOf(rows)
	x := math.Max(float64(took), 1)
	if !c.keepPace(i, x/math.Max(c.at(float64(rows)), 1)) {
		return
	}
	x /= c.pace
	lo, hi := sizeOf(i), sizeOf(min(i+1, cells-1))
	if rows <= lo || hi <= lo {
		c.correct(i, x*float64(lo)/float64(max(rows, lo)), 1)
	} else {
		// Both neighbours are off by what the size in between is.
		share := float64(rows-lo) / float64(hi-lo)
		off := x / (c.est[i] + (c.est[i+1]-c.est[i])*share)
		low, high := c.est[i]*off, c.est[i+1]*off
		c.correct(i, low, 1-share)
		c.correct(i+1, high, share)
	}
	if c.since++; c.since >= 16 || c.runs < 64 {
		c.fill()
	}
}

// keepPace follows a run near cell i that took so many times as long as was expected,
// and reports whether the pace is known: until it is again after it changed, runs tell
// nothing of sizes. A single run is not that much slower, and one of a size that is not
// well known says nothing.
//
// Noise that is not the same up and down moves the pace one way and the sizes that run
// the other. So the pace has bounds, and goes back to 1: sizes that do not run are then
// what they were.
func (c *Curve) keepPace(i int, times float64) bool {
	if c.cells[i].n < settled {
		return true
	}
	off := math.Max(-2*steady, math.Min(2*steady, times-1))
	c.drift += (off - c.drift) / quick
	changes := math.Abs(c.drift) > steady
	switch {
	case changes:
		c.moving = 4 * quick
	case c.moving > 0:
		c.moving--
		changes = math.Abs(c.drift) > steady/quick
	}
	if changes {
		c.pace *= 1 + c.drift
		c.drift = 0
	}
	c.pace += (1 - c.pace) / lasting
	c.pace = math.Max(1/slowest, math.Min(slowest, c.pace))
	return c.moving == 0
}

// clear makes est that of an empty curve: every row costs the same.
func (c *Curve) clear() {
	c.ready, c.last, c.pace, c.drift, c.moving = true, -1, 1, 0, 0
	for i := range c.est {
		c.est[i] = float64(sizeOf(i))
	}
}

// correct moves a cell towards x, by share of a step. A cell that never ran is not
// made by a run of a size that is nearer to another.
func (c *Curve) correct(i int, x, share float64) {
	k := &c.cells[i]
	if k.n == 0 && share < 0.5 {
		return
	}
	k.seen = c.runs
	d := x - k.mean
	switch {
	case k.n == 0:
		k.mean, k.dev = x, x/20
	case k.n < fastest:
		k.mean += share * math.Min(d, 0)
	default:
		step := share / math.Min(k.n, settled)
		k.dev += step * (math.Min(math.Abs(d), 8*k.dev) - k.dev)
		k.dev = math.Max(k.dev, minSpread*k.mean)
		most := outlier * k.dev
		k.mean += step * math.Max(-most, math.Min(most, d))
	}
	first := k.n == 0
	k.n = math.Min(k.n+share, settled)
	c.est[i] = k.mean
	if first {
		c.last = max(c.last, i)
		c.fill()
	}
}

// fill estimates what did not run, and finds the best size.
func (c *Curve) fill() {
	c.since = 0
	before := -1
	for i := 0; i <= c.last; i++ {
		if c.cells[i].n == 0 {
			continue
		}
		c.est[i] = c.cells[i].mean
		for k := before + 1; k < i; k++ {
			share := float64(sizeOf(k)) / float64(sizeOf(i)) // half of the time is taken for fixed
			from := c.est[i] * (0.5 + 0.5*share)
			if before >= 0 {
				share = float64(sizeOf(k)-sizeOf(before)) / float64(sizeOf(i)-sizeOf(before))
				from = c.est[before] + (c.est[i]-c.est[before])*share
			}
			c.est[k] = from
		}
		before = i
	}
	for k := c.last + 1; k < cells; k++ {
		c.est[k] = hope * c.est[c.last] * float64(sizeOf(k)) / float64(sizeOf(c.last))
	}
	c.findBest()
}

// findBest looks for the smallest size with about the most rows per second, among
// those that ran and, one more, among all.
func (c *Curve) findBest() {
	most, hoped := 0.0, 0.0
	for i := 0; i <= min(c.last+1, cells-1); i++ {
		rows := sizeOf(i)
		if i <= c.last && c.cells[i].n > 0 {
			most = math.Max(most, float64(rows)/(c.pace*c.est[i]+handling))
		}
		hoped = math.Max(hoped, float64(rows)/(c.hoped(rows)+handling))
	}
	c.best, c.try, c.most = 0, 0, most
	for i := 0; i < cells && (c.try == 0 || c.best == 0); i++ {
		rows := sizeOf(i)
		if c.best == 0 && c.cells[i].n > 0 && float64(rows)/(c.pace*c.est[i]+handling) >= tolerance*most {
			c.best = rows
		}
		if c.try == 0 && float64(rows)/(c.hoped(rows)+handling) >= tolerance*hoped {
			c.try = rows
		}
	}
}

// guess makes an empty curve what another is at factor times its time, until runs
// tell better.
func (c *Curve) guess(from *Curve, factor float64) {
	if !from.Known() {
		return
	}
	*c = *from
	c.runs = 0
	for i := range c.cells {
		k := &c.cells[i]
		k.mean, k.dev, k.seen = k.mean*factor, k.dev*factor, 0
		k.n = min(k.n, 1)
	}
	c.fill()
}

// Point is one size of a curve.
type Point struct {
	Rows   int           `json:"rows"`
	Time   time.Duration `json:"nanoseconds"`
	Spread time.Duration `json:"spread"` // mean absolute deviation, nanoseconds
	Runs   float64       `json:"runs"`   // that count; more than 32 are 32
}

// Points are the sizes that ran.
func (c *Curve) Points() (list []Point) {
	for i := range c.cells {
		if k := &c.cells[i]; k.n > 0 {
			list = append(list, Point{Rows: sizeOf(i), Time: time.Duration(c.pace * k.mean), Spread: time.Duration(c.pace * k.dev), Runs: math.Round(k.n*10) / 10})
		}
	}
	return list
}

// Restore makes an empty curve of points that were learnt before, which it trusts less
// than new runs. Points that cannot be are left out.
func (c *Curve) Restore(points []Point) {
	c.clear()
	for _, p := range points {
		i := cellOf(p.Rows)
		if p.Rows < 1 || sizeOf(i) != p.Rows || p.Time <= 0 || p.Spread < 0 {
			continue
		}
		c.cells[i] = cell{mean: float64(p.Time), dev: math.Max(float64(p.Spread), minSpread*float64(p.Time)), n: math.Max(1, math.Min(p.Runs, fastest+1))}
		c.last = max(c.last, i)
	}
	if c.last >= 0 {
		c.fill()
	}
}
