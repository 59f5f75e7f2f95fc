package spec

import "math"

// VersionType is a version's part in an experiment. It labels, and routes nothing.
type VersionType string

// The types. A version that is neither is not part of an experiment.
const (
	Control   VersionType = "control"
	Treatment VersionType = "treatment"
)

// Version is one deployment of a model behind an endpoint: it has either a model or an upstream.
type Version struct {
	// 1 to 63 lower-case letters, digits and '-'. Unique in the endpoint, and not the endpoint's own name.
	Name string `json:"name" jsonschema:"minLength=1,maxLength=63,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`

	// The path of an ONNX file, with a slash or ending in .onnx, relative to the document's folder; or name:version of a registered model.
	Model string `json:"model,omitempty" jsonschema:"minLength=1"`

	// Servers of another kind that have the model, such as Azure ML's containers, Triton or MLServer.
	Upstream *Upstream `json:"upstream,omitempty"`

	// Percent of the endpoint's traffic, 0 to 100 with at most two decimals. All versions together claim at most 100; the rest goes to the default version on top of its own.
	TrafficPercentile float64 `json:"trafficPercentile,omitempty" jsonschema:"minimum=0,maximum=100,default=0"`

	// Whether this version takes the traffic that no percentile claims. At most one does; if none does, the first.
	Default bool `json:"default,omitempty"`

	// The version's part in an experiment. At most one is the control. Default neither.
	Type VersionType `json:"type,omitempty" jsonschema:"enum=control,enum=treatment"`

	// The kind of device by name, such as cpu, cuda, fpga, sim or "null"; auto is CUDA where it is, else the CPU. Default auto.
	Accelerator Accelerator `json:"accelerator,omitempty" jsonschema:"maxLength=63,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$,default=auto"`

	// Threads of one run on a CPU. Default 0, automatic.
	Threads int `json:"threads,omitempty" jsonschema:"minimum=0,maximum=1024,default=0"`

	// The most rows of one run on the device. Default 0, automatic.
	MaxBatchSize int `json:"maxBatchSize,omitempty" jsonschema:"minimum=0,maximum=1048576,default=0"`

	// How requests are put together into runs. Default learnt from what runs cost.
	Batching *Batching `json:"batching,omitempty"`

	// How many requests one replica works on at once; further ones wait. Default 0, automatic: enough to fill the device's next batch. Of an upstream's servers, which do not say how much they take, 1 with protocol: azureml, which is Azure ML's default, and else 64, since such servers have queues and batches of their own.
	MaxConcurrentRequestsPerContainer int `json:"maxConcurrentRequestsPerContainer,omitempty" jsonschema:"minimum=0,maximum=1048576,default=0"`

	// Milliseconds that a request may wait for a replica before it is refused with 503. Default 500.
	MaxQueueWaitMs int `json:"maxQueueWaitMs,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=500"`

	// Milliseconds that a request may take once a replica has it, before it is answered with 504. Default 60000.
	ScoringTimeoutMs int `json:"scoringTimeoutMs,omitempty" jsonschema:"minimum=1,maximum=300000,default=60000"`

	// A fixed number of replicas, instead of autoScaler. Default none: the autoscaler decides. Without effect on one machine.
	NumReplicas int `json:"numReplicas,omitempty" jsonschema:"minimum=1,maximum=2147483647"`

	// How many replicas there are, by load. Without effect on one machine.
	AutoScaler AutoScaler `json:"autoScaler,omitzero"`

	// What one replica asks the cluster for. Without effect on one machine.
	ContainerResourceRequirements ContainerResourceRequirements `json:"containerResourceRequirements,omitzero"`

	// When the cluster restarts a replica. Without effect on one machine.
	LivenessProbeRequirements LivenessProbeRequirements `json:"livenessProbeRequirements,omitzero"`

	// What is kept of requests and answers. Without effect on one machine.
	DataCollection DataCollection `json:"dataCollection,omitzero"`

	// Whether telemetry goes to Application Insights. Default false. Without effect on one machine.
	AppInsightsEnabled bool `json:"appInsightsEnabled,omitempty"`
}

// Accelerator is the name of a kind of device. It is a type of its own because
// one of the names is "null", which YAML reads as nothing unless it is quoted.
type Accelerator string

// AcceleratorAuto leaves the choice of the device to the scorer.
const AcceleratorAuto Accelerator = "auto"

// BasisPoints is the traffic percentile in hundredths of a percent: exact, for
// sums and comparisons.
func (v *Version) BasisPoints() int { return basisPoints(v.TrafficPercentile) }

func basisPoints(percent float64) int { return int(math.Round(percent * 100)) }

// AutoScaler decides how many replicas there are. Its numbers are only allowed while it is on.
type AutoScaler struct {
	// Default true where numReplicas is not given.
	AutoscaleEnabled *bool `json:"autoscaleEnabled,omitempty"`

	// The fewest replicas. Default 1.
	MinReplicas int `json:"minReplicas,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=1"`

	// The most replicas. Default 10, or minReplicas where that is more.
	MaxReplicas int `json:"maxReplicas,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=10"`

	// Seconds between two decisions. Default 1.
	RefreshPeriodInSeconds int `json:"refreshPeriodInSeconds,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=1"`

	// The part of the replicas' slots that should be busy, in percent. Default 70.
	TargetUtilization int `json:"targetUtilization,omitempty" jsonschema:"minimum=1,maximum=100,default=70"`
}

// ContainerResourceRequirements is what one replica asks the cluster for.
type ContainerResourceRequirements struct {
	// CPU cores that are reserved. Default 0.1.
	CPU float64 `json:"cpu,omitempty" jsonschema:"exclusiveMinimum=0,default=0.1"`

	// The most CPU cores, at least cpu. Default no limit.
	CPULimit float64 `json:"cpuLimit,omitempty" jsonschema:"exclusiveMinimum=0"`

	// Memory that is reserved, in GB. Default 0.5.
	MemoryInGB float64 `json:"memoryInGB,omitempty" jsonschema:"exclusiveMinimum=0,default=0.5"`

	// The most memory in GB, at least memoryInGB. Default no limit.
	MemoryInGBLimit float64 `json:"memoryInGBLimit,omitempty" jsonschema:"exclusiveMinimum=0"`

	// Whole GPUs. Default 0.
	GPU int `json:"gpu,omitempty" jsonschema:"minimum=0,maximum=2147483647,default=0"`

	// FPGAs, a multiple of 2. Default 0.
	FPGA int `json:"fpga,omitempty" jsonschema:"minimum=0,maximum=2147483647,multipleOf=2,default=0"`
}

// LivenessProbeRequirements says when a replica counts as dead.
type LivenessProbeRequirements struct {
	// Seconds from the start to the first probe. Default 310.
	InitialDelaySeconds int `json:"initialDelaySeconds,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=310"`

	// Seconds between two probes. Default 10.
	PeriodSeconds int `json:"periodSeconds,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=10"`

	// Seconds that a probe may take. Default 2.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=2"`

	// Good probes in a row after which a replica is alive. Default 1.
	SuccessThreshold int `json:"successThreshold,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=1"`

	// Failed probes in a row after which a replica is restarted. Default 3.
	FailureThreshold int `json:"failureThreshold,omitempty" jsonschema:"minimum=1,maximum=2147483647,default=3"`
}

// DataCollection says what is kept of requests and answers.
type DataCollection struct {
	// Whether they are kept in storage. Default false.
	StorageEnabled bool `json:"storageEnabled,omitempty"`

	// Whether they are sent to an event hub. Default false.
	EventHubEnabled bool `json:"eventHubEnabled,omitempty"`
}
