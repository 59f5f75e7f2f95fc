package report

import (
	"encoding/csv"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

// round is a result whose requests took d each.
func round(n int, d time.Duration) *bench.Result {
	r := &bench.Result{Round: n, Requests: 100, Rate: 100 * float64(n), Latency: stats.Fine(), Failing: stats.Fine(), Slot: 0.1, Failed: map[string]int64{"status 503": 1}}
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
	for _, want := range []string{`requests/s +150 \(0 to 785.3\) +150 \(0 to 785.3\) +1 \(1 to 1\)`, `p99 ms .* 0\.[45]\d* `, `errors +2 of 200`, `server CPU µs +– +– +–`, `server MB +– +– +–`, `! it is <b>slow`} {
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
	if err != nil || len(lines) != 5 || lines[3][0] != "<script>new" || lines[1][3] != "1" || lines[1][11] != "" {
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
