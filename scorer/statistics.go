package scorer

import (
	"cmp"
	"slices"
)

// Statistics are what one version has done since it was loaded. The JSON names are
// those of Triton's statistics extension.
type Statistics struct {
	LastInference int64  `json:"last_inference"`  // milliseconds of the Unix clock; 0 is never
	Inferences    uint64 `json:"inference_count"` // rows
	Executions    uint64 `json:"execution_count"` // runs
	Requests      struct {
		Success Total `json:"success"` // from arrival at the scorer to the answer
		Fail    Total `json:"fail"`    // likewise; without those that never were a request for the model
		Queue   Total `json:"queue"`
		Input   Total `json:"compute_input"`  // gathering the rows of a run
		Infer   Total `json:"compute_infer"`  // the run itself
		Output  Total `json:"compute_output"` // handing out its rows
		Hit     Total `json:"cache_hit"`      // zero: there is no cache of answers
		Miss    Total `json:"cache_miss"`
	} `json:"inference_stats"`
	Batches []BatchStatistics `json:"batch_stats"` // by rows, ascending

	// Failures are the requests in Fail by why they failed. They stay in their process.
	Failures [FailureReasons]uint64 `json:"-"`
}

// Total is how many there were, and how long they took together.
type Total struct {
	Count uint64 `json:"count"`
	Nanos uint64 `json:"ns"`
}

// BatchStatistics are the runs of one number of rows.
type BatchStatistics struct {
	Rows   uint64 `json:"batch_size"`
	Input  Total  `json:"compute_input"`
	Infer  Total  `json:"compute_infer"`
	Output Total  `json:"compute_output"`
}

// FailureReason says why a request that was for a model got no answer of it.
type FailureReason uint8

// The reasons.
const (
	FailureRejected FailureReason = iota // too late to start
	FailureCanceled                      // its client left
	FailureBackend                       // the model failed
	FailureOther
	FailureReasons // count
)

// String is Triton's name of the reason.
func (r FailureReason) String() string {
	return [...]string{"REJECTED", "CANCELED", "BACKEND", "OTHER"}[r]
}

// Add adds n events that took ns in sum.
func (t *Total) Add(n, ns uint64) {
	t.Count += n
	t.Nanos += ns
}

func (t *Total) merge(o Total) { t.Add(o.Count, o.Nanos) }

// Merge adds what another replica of the same version has done.
func (s *Statistics) Merge(o *Statistics) {
	s.LastInference = max(s.LastInference, o.LastInference)
	s.Inferences += o.Inferences
	s.Executions += o.Executions
	a, b := &s.Requests, &o.Requests
	a.Success.merge(b.Success)
	a.Fail.merge(b.Fail)
	a.Queue.merge(b.Queue)
	a.Input.merge(b.Input)
	a.Infer.merge(b.Infer)
	a.Output.merge(b.Output)
	for i := range o.Failures {
		s.Failures[i] += o.Failures[i]
	}
	for _, batch := range o.Batches {
		i, found := slices.BinarySearchFunc(s.Batches, batch.Rows, func(b BatchStatistics, rows uint64) int { return cmp.Compare(b.Rows, rows) })
		if !found {
			s.Batches = slices.Insert(s.Batches, i, BatchStatistics{Rows: batch.Rows})
		}
		s.Batches[i].Input.merge(batch.Input)
		s.Batches[i].Infer.merge(batch.Infer)
		s.Batches[i].Output.merge(batch.Output)
	}
}
