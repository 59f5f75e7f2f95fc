package spec

import "fmt"

// Batching is how requests are put together into runs, for people who come from Triton: the settings are those of its dynamic batcher and rate limiter, under their names. What is left out is learnt from what runs cost.
type Batching struct {
	// Microseconds that the oldest request waits for others. With this or preferredBatchSizes batches are formed by Triton's rule. Default 0: no request waits for a time that somebody set.
	MaxQueueDelayMicroseconds int `json:"maxQueueDelayMicroseconds,omitempty" jsonschema:"minimum=0,maximum=2147483647,default=0"`

	// Rows at which a batch is cut at once.
	PreferredBatchSizes []int `json:"preferredBatchSizes,omitempty" jsonschema:"maxItems=64"`

	// How many priorities a request may have, 1 the highest. A lower one waits until it has waited a second longer per level. Default 0: none.
	PriorityLevels int `json:"priorityLevels,omitempty" jsonschema:"minimum=0,maximum=1000,default=0"`

	// The priority of a request that names none, or one that there is not. Default the middle one.
	DefaultPriorityLevel int `json:"defaultPriorityLevel,omitempty" jsonschema:"minimum=1,maximum=1000"`

	// The longest wait for a device. Default 0: as long as the request's own timeout and its deadline allow.
	DefaultTimeoutMicroseconds int `json:"defaultTimeoutMicroseconds,omitempty" jsonschema:"minimum=0,maximum=2147483647,default=0"`

	// Whether a request's own timeout counts beside that, where it is shorter. Default false.
	AllowTimeoutOverride bool `json:"allowTimeoutOverride,omitempty"`

	// What becomes of a request that waited so long: reject answers 504, delay runs it after all others. Default reject.
	TimeoutAction TimeoutAction `json:"timeoutAction,omitempty" jsonschema:"enum=reject,enum=delay,default=reject"`

	// The most requests that wait for a device of one replica; further ones get 503. Default 0: what the gateway's queue allows.
	MaxQueueSize int `json:"maxQueueSize,omitempty" jsonschema:"minimum=0,maximum=2147483647,default=0"`

	// This version's share of a device that several versions keep busy, against those of the others. Default 1.
	Share float64 `json:"share,omitempty" jsonschema:"exclusiveMinimum=0,maximum=1000000,default=1"`

	// What a run takes of its device while it lasts. There is as much of each as any version takes.
	Resources []Resource `json:"resources,omitempty" jsonschema:"maxItems=64"`

	// Inputs that may be filled up at their end, so that requests of different lengths can run together where that is cheaper. The model must give the same answer then.
	Pad []Pad `json:"pad,omitempty" jsonschema:"maxItems=64"`
}

// TimeoutAction is what becomes of a request that waited too long.
type TimeoutAction string

// The actions.
const (
	TimeoutReject TimeoutAction = "reject"
	TimeoutDelay  TimeoutAction = "delay"
)

// Resource is something of which a device has so many.
type Resource struct {
	// What it is; any name.
	Name string `json:"name" jsonschema:"minLength=1"`

	// How many a run takes.
	Count int `json:"count" jsonschema:"minimum=1,maximum=2147483647"`
}

// Pad is an input that may be filled up.
type Pad struct {
	// The input's name.
	Input string `json:"input" jsonschema:"minLength=1"`

	// What it is filled up with. Default 0.
	Value float64 `json:"value,omitempty"`
}

// batching checks what one version says of its batches; path is where.
func (c *check) batching(path string, b *Batching) {
	if b == nil {
		return
	}
	before := 0
	for i, size := range b.PreferredBatchSizes {
		if at := fmt.Sprintf("%s.preferredBatchSizes[%d]", path, i); size <= before {
			c.fail(at, "is %d; must be more than %d: sizes are rows, smallest first", size, before)
		}
		before = size
	}
	if b.DefaultPriorityLevel > b.PriorityLevels {
		c.fail(path+".defaultPriorityLevel", "is %d, more than priorityLevels, which is %d; raise that, or remove this", b.DefaultPriorityLevel, b.PriorityLevels)
	}
	if b.DefaultTimeoutMicroseconds == 0 && b.AllowTimeoutOverride {
		c.fail(path+".allowTimeoutOverride", "has no effect without defaultTimeoutMicroseconds; remove it, or set that")
	}
	for i := range b.Resources {
		c.given(fmt.Sprintf("%s.resources[%d].name", path, i), b.Resources[i].Name)
		if at := fmt.Sprintf("%s.resources[%d].count", path, i); b.Resources[i].Count == 0 && !c.source.isFaulty(at) {
			c.fail(at, "is missing; say how many a run takes")
		}
	}
	for i := range b.Pad {
		c.given(fmt.Sprintf("%s.pad[%d].input", path, i), b.Pad[i].Input)
	}
}

// given checks that a name is there.
func (c *check) given(path, name string) {
	if name == "" && !c.source.isFaulty(path) {
		c.fail(path, "is missing")
	}
}
