package repository

import "strings"

// schema is Triton's ModelConfig: per message its fields in order, with type and
// what becomes of them. A type is a scalar, an enum or a message of this text, []
// before it says repeated, map: a map from strings (or numbers) to it.
//
//	(nothing)  it is honoured, or describes the model to clients
//	kept       it is shown to clients; set to something else than its default it warns
//	refused    the model is not served with it
const schema = `
ModelConfig
	name string
	platform string
	backend string
	runtime string kept
	version_policy ModelVersionPolicy
	max_batch_size int32
	input []ModelInput
	output []ModelOutput
	batch_input []any refused
	batch_output []any refused
	optimization ModelOptimizationPolicy kept
	dynamic_batching ModelDynamicBatching
	sequence_batching any refused
	ensemble_scheduling any refused
	instance_group []ModelInstanceGroup
	default_model_filename string
	cc_model_filenames map:string kept
	metric_tags map:string kept
	parameters map:ModelParameter
	model_warmup []ModelWarmup kept
	model_operations any refused
	model_transaction_policy ModelTransactionPolicy
	model_repository_agents any refused
	response_cache ModelResponseCache
	model_metrics any kept
ModelVersionPolicy
	latest Latest
	all All
	specific Specific
Latest
	num_versions uint32
All
Specific
	versions []int64
ModelInput
	name string
	data_type DataType
	format Format
	dims []int64
	reshape ModelTensorReshape
	is_shape_tensor bool refused
	allow_ragged_batch bool refused
	optional bool kept
	is_non_linear_format_io bool refused
ModelOutput
	name string
	data_type DataType
	dims []int64
	reshape ModelTensorReshape
	label_filename string
	is_shape_tensor bool refused
	is_non_linear_format_io bool refused
ModelTensorReshape
	shape []int64
ModelDynamicBatching
	preferred_batch_size []int32
	max_queue_delay_microseconds uint64
	preserve_ordering bool kept
	priority_levels uint64
	default_priority_level uint64
	default_queue_policy ModelQueuePolicy
	priority_queue_policy map:ModelQueuePolicy kept
ModelQueuePolicy
	timeout_action TimeoutAction
	default_timeout_microseconds uint64
	allow_timeout_override bool
	max_queue_size uint32
ModelInstanceGroup
	name string
	kind Kind
	count int32
	rate_limiter ModelRateLimiter
	gpus []int32 kept
	secondary_devices []any kept
	profile []string kept
	passive bool kept
	host_policy string kept
ModelRateLimiter
	resources []Resource
	priority uint32
Resource
	name string
	global bool kept
	count uint32
ModelWarmup
	name string
	batch_size uint32
	inputs map:WarmupInput
	count uint32
WarmupInput
	data_type DataType
	dims []int64
	zero_data bool
	random_data bool
	input_data_file string
ModelParameter
	string_value string
ModelOptimizationPolicy
	graph Graph
	priority ModelPriority
	cuda any
	execution_accelerators Accelerators
	input_pinned_memory PinnedMemory
	output_pinned_memory PinnedMemory
	gather_kernel_buffer_threshold uint32
	eager_batching bool
Graph
	level int32
PinnedMemory
	enable bool
Accelerators
	gpu_execution_accelerator []Accelerator
	cpu_execution_accelerator []Accelerator
Accelerator
	name string
	parameters map:string
ModelTransactionPolicy
	decoupled bool refused
ModelResponseCache
	enable bool kept
DataType = TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16
Format = FORMAT_NONE FORMAT_NHWC FORMAT_NCHW
TimeoutAction = REJECT DELAY
Kind = KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL
ModelPriority = PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN
`

// field is one of a message of the schema.
type field struct {
	name     string
	kind     string // a scalar, an enum, a message, or any
	repeated bool
	mapped   bool // from strings to kind
	fate     string
}

// messages are the fields of each message, and enums the names of each enum in the
// order of their numbers.
var messages, enums = func() (map[string][]field, map[string][]string) {
	m, e := map[string][]field{}, map[string][]string{}
	message := ""
	for line := range strings.Lines(strings.TrimSpace(schema)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[1] == "=":
			e[f[0]] = f[2:]
		case line[0] != '\t':
			message = f[0]
			m[message] = nil
		default:
			one := field{name: f[0], kind: f[1]}
			one.kind, one.repeated = strings.CutPrefix(one.kind, "[]")
			one.kind, one.mapped = strings.CutPrefix(one.kind, "map:")
			if len(f) > 2 {
				one.fate = f[2]
			}
			m[message] = append(m[message], one)
		}
	}
	return m, e
}()

// of finds a field of a message.
func of(message, name string) *field {
	list := messages[message]
	for i := range list {
		if list[i].name == name {
			return &list[i]
		}
	}
	return nil
}
