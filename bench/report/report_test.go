package report

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"io"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

// round is a result whose requests took d each.
func round(n int, d time.Duration) *bench.Result {
	r := &bench.Result{Round: n, Elapsed: 1, Requests: 100, Rate: 100 * float64(n), Latency: stats.Fine(), Failing: stats.Fine(), Slot: 0.1, Failed: map[string]int64{"status 503": 1}}
	s := bench.NewSeries()
	s.Slots[3] = stats.Coarse()
	for range 99 {
		r.Latency.Record(d)
		s.Latency.Record(d)
		s.Slots[3].Record(d)
	}
	r.Versions = map[string]*bench.Series{"v1": s}
	return r
}

// halves is an open loop's result of two versions that say where their time went.
func halves(n int) *bench.Result {
	r := round(n, 4*time.Millisecond)
	r.Search = &bench.Search{Most: 150}
	r.Offered, r.Held, r.Unsent, r.Client = 120, 25, 3, bench.Client{Late: 0.005, Share: 0.4, CPU: 7}
	r.Said = map[string]string{"status 503": "no <place>"}
	slow := bench.NewSeries()
	for range 33 {
		slow.Latency.Record(8 * time.Millisecond)
		r.Latency.Record(8 * time.Millisecond)
	}
	for _, s := range []*bench.Series{slow, r.Versions["v1"]} {
		s.Queue, s.Device = stats.Fine(), stats.Fine()
		for range s.Latency.Count() {
			s.Queue.Record(0)
			s.Device.Record(3 * time.Millisecond)
		}
	}
	r.Versions["v2"] = slow
	return r
}

func example() *Report {
	return &Report{
		Title: "Load test", Command: "sluice bench", Loop: "closed", Checked: "checked", Problems: []string{"it is <b>slow</b>"},
		Targets: []*Target{
			{Name: "old", Results: []*bench.Result{round(1, 2*time.Millisecond), round(2, 2*time.Millisecond)}},
			{Name: "<script>new", Results: []*bench.Result{round(1, time.Millisecond), round(2, time.Millisecond)}},
		},
	}
}

func TestTextComparesWithTheFirstTarget(t *testing.T) {
	var b strings.Builder
	if err := example().Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`requests/s +150 \(0 to 785.3\) +150 \(0 to 785.3\) +1 \(1 to 1\)`, `p99 ms .* 0\.[45]\d* `, `errors +2 of 200`, `– status 503 +2 +2`, `! it is <b>slow`} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestCSVAndJSONAreWellFormed(t *testing.T) {
	var b strings.Builder
	if err := example().CSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(lines) != 5 || lines[3][0] != "<script>new" || lines[1][4] != "1" || lines[1][12] != "" {
		t.Errorf("%v, %v", lines, err)
	}
	b.Reset()
	if err := example().JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Targets []struct{ Rounds []struct{ Requests int } }
	}
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back.Targets[1].Rounds[1].Requests != 100 {
		t.Errorf("%+v, %v", back, err)
	}
}

// whole has a target of one version in a closed loop, and one of two in an open loop.
func whole() *Report {
	r := example()
	r.Targets = append(r.Targets[:1], &Target{Name: "split", Results: []*bench.Result{halves(1), halves(2)}})
	return r
}

func TestTextSaysHowRequestsFared(t *testing.T) {
	var b strings.Builder
	if err := whole().Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`offered/s +– +120 \(120 to 120\)`, `client % of cores +– +40 `, `sent late % +– +0\.5 `, `held % +– +25 `,
		`errors +2 of 200 +8 of 200`, `– never sent +0 +6 *\n`, `– status 503 +2 +2 *\n`, `most requests/s +– +150 \(150 to 150\)`,
		`split, v1 +198 +75 +4\.\S+ .* 0, 0 +3, 3\n`, `split, v2 +66 +25 +8`, `split, status 503: "no <place>"`,
	} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "old, v1") || strings.Contains(b.String(), "server CPU") {
		t.Errorf("a lone version, or what nobody knows, has a row:\n%s", b.String())
	}
}

func TestCSVHasALinePerVersion(t *testing.T) {
	var b strings.Builder
	if err := whole().CSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if err != nil || len(lines) != 9 {
		t.Fatalf("%v, %v", lines, err)
	}
	f := func(line int, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for i, name := range lines[0] {
			got[name] = lines[line][i]
		}
		for name, w := range want {
			if got[name] != w {
				t.Errorf("line %d: %s is %q, want %q", line, name, got[name], w)
			}
		}
	}
	f(1, map[string]string{"target": "old", "version": "", "offered/s": "", "held %": "", "failures": "status 503: 1", "queue p50 ms": "", "most requests/s": ""})
	f(3, map[string]string{"target": "split", "version": "", "offered/s": "120", "held %": "25", "sent late %": "0.5", "client % of cores": "40",
		"failures": "status 503: 1, never sent: 3", "queue p99 ms": "0", "most requests/s": "150"})
	f(5, map[string]string{"version": "v2", "round": "1", "requests": "33", "requests/s": "33", "held %": "", "client CPU µs": "", "queue p50 ms": "0", "failures": ""})
}

// What the summaries leave out can be had from the JSON: by HdrHistogram's tools, and
// part by part.
func TestJSONHasEveryCount(t *testing.T) {
	var b strings.Builder
	if err := whole().JSON(&b); err != nil {
		t.Fatal(err)
	}
	type histogram struct {
		Count int64
		HDR   string
	}
	var back struct {
		Targets []struct {
			Rounds []struct {
				Latency  histogram
				Versions map[string]struct{ Slots []*histogram }
			}
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatal(err)
	}
	r := back.Targets[1].Rounds[0]
	h, err := hdrhistogram.Decode([]byte(r.Latency.HDR))
	if err != nil || h.TotalCount() != 132 || h.TotalCount() != r.Latency.Count || time.Duration(h.Max()).Round(time.Millisecond/10) != 8*time.Millisecond {
		t.Errorf("%+v, %v", r.Latency, err)
	}
	if slots := r.Versions["v1"].Slots; len(slots) != bench.Slots+1 || slots[2] != nil || slots[3] == nil || slots[3].Count != 99 {
		t.Errorf("over time: %v", slots)
	}
}

// The pictures of versions and of queues are there where there is something in them.
func TestThePageShowsVersionsAndWhereTheTimeWent(t *testing.T) {
	f := func(r *Report, want map[string]int) {
		t.Helper()
		var b strings.Builder
		if err := r.HTML(&b); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(b.String()))
		d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
		got, title := map[string]int{}, ""
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch e, _ := token.(xml.StartElement); e.Name.Local {
			case "svg":
				for _, a := range e.Attr {
					if a.Name.Local == "aria-label" {
						title = a.Value
					}
				}
			case "polyline":
				got[title]++
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("lines by picture: %v, want %v\n%s", got, want, b.String())
		}
	}
	const latency, time = "Latency by percentile", "99th percentile of latency by when requests were due"
	f(example(), map[string]int{latency: 2, time: 2})
	if c := example().overTime(); c.Across[4].Text != "1s" || !strings.HasPrefix(c.Lines[0].Points, "252.0,") {
		t.Errorf("what was due 0.3 s after the start of 1 s is at %s, of %v", c.Lines[0].Points, c.Across)
	}
	f(whole(), map[string]int{latency: 2, time: 2, "Latency by percentile, per version": 2, "Time in queues against time on the device, by percentile": 2})
}

// The page needs nothing else, says what the targets call themselves and runs none of it.
func TestThePageStandsAlone(t *testing.T) {
	var b strings.Builder
	if err := example().HTML(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Contains(text, "<script") || strings.Contains(text, "<b>") || strings.Contains(text, "src=") || strings.Contains(text, "href=") || strings.Contains(text, "NaN") {
		t.Errorf("the page has what it should not have:\n%s", text)
	}
	if n := len(regexp.MustCompile(`<polyline class="c[01]" points="[\d., ]+"/>`).FindAllString(text, -1)); n != 4 {
		t.Errorf("%d lines, want one per target and picture", n)
	}
}

func TestAReportWithoutAnswersIsWritten(t *testing.T) {
	r := &Report{Targets: []*Target{{Name: "x", Results: []*bench.Result{{Latency: stats.Fine(), Failing: stats.Fine()}}}}}
	var b strings.Builder
	if err := r.HTML(&b); err != nil {
		t.Error(err)
	}
	if err := r.Text(&b); err != nil {
		t.Error(err)
	}
}
