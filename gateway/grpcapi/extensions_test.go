package grpcapi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
)

// configuration is that of every version of the house.
const configuration = `{"name":"e","max_batch_size":4,"version_policy":{"latest":{"num_versions":1}},"input":[{"name":"in","data_type":"TYPE_UINT8","dims":[-1]}],` +
	`"dynamic_batching":{"max_queue_delay_microseconds":100},"later":true}`

// counting is a scorer with statistics.
var counting = identity{before: func(req *scorer.Request, resp *scorer.Response) bool {
	if req.Kind != scorer.Stats {
		return true
	}
	resp.Body = append(resp.Body[:0], `{"last_inference":5,"inference_count":7,"execution_count":4,"inference_stats":{"success":{"count":3,"ns":50},"queue":{"count":3,"ns":1}},`+
		`"batch_stats":[{"batch_size":2,"compute_infer":{"count":4,"ns":9}}]}`...)
	return false
}}

// repository is a model repository of one model, m.
type repository struct {
	mu     sync.Mutex
	config string
	loaded bool
}

func (r *repository) Index() []triton.Entry {
	return []triton.Entry{{Name: "m", Version: "1", State: triton.Ready}, {Name: "n", State: triton.Unavailable, Reason: "unloaded"}}
}

func (r *repository) Load(_ context.Context, name string, config []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name != "m" {
		return scorer.Errorf(scorer.NotFound, "failed to load '%s', failed to poll from model repository", name)
	}
	r.config, r.loaded = string(config), true
	return nil
}

func (r *repository) Unload(context.Context, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = false
	return nil
}

func (r *repository) want(t *testing.T, config string, loaded bool) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config != config || r.loaded != loaded {
		t.Errorf("loaded: %v, with %q; want %v, %q", r.loaded, r.config, loaded, config)
	}
}

// logger keeps settings.
type logger struct{ triton.LogSettings }

func (l *logger) Settings() triton.LogSettings { return l.LogSettings }
func (l *logger) Set(s triton.LogSettings)     { l.LogSettings = s }

// regions is shared memory; calls about it follow one another here.
type regions struct{ registered []scorer.Region }

func (r *regions) Register(name, key string, offset, size uint64) error {
	r.registered = append(r.registered, scorer.Region{Name: name, Key: key, Offset: offset, Size: size})
	return nil
}

func (r *regions) Unregister(string) { r.registered = nil }

func (r *regions) Status(name string) ([]scorer.Region, error) {
	if name != "" {
		return nil, scorer.Errorf(scorer.NotFound, "Unable to find system shared memory region: '%s'", name)
	}
	return r.registered, nil
}

// equal holds an answer against what it is as JSON.
func equal[M proto.Message](t *testing.T, got M, err error, want string) {
	t.Helper()
	m := got.ProtoReflect().New().Interface()
	if bad := protojson.Unmarshal([]byte(want), m); bad != nil {
		t.Fatal(bad)
	}
	if err != nil || !proto.Equal(got, m) {
		t.Errorf("answered\n%v, %v\nwant\n%v", got, err, m)
	}
}

func TestModelsAreDescribedAndCounted(t *testing.T) {
	call, _ := client(t, Config{}, counting)
	ctx := soon(t)
	c, err := call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "e"})
	equal(t, c, err, `{"config":`+strings.Replace(configuration, `,"later":true`, "", 1)+`}`)
	_, err = call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "nope"})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'nope' is not found")
	_, err = call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "e", Version: "99"})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'e' version 99 is not found")
	_, err = call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "locked"})
	wantError(t, err, codes.Unauthenticated, "no valid credential")
	_, err = call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: strings.Repeat("n", 100_000)})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'nnn")

	one := `{"name":%q,"version":%q,"last_inference":5,"inference_count":7,"execution_count":4,"inference_stats":{"success":{"count":3,"ns":50},"fail":{},` +
		`"queue":{"count":3,"ns":1},"compute_input":{},"compute_infer":{},"compute_output":{},"cache_hit":{},"cache_miss":{}},` +
		`"batch_stats":[{"batch_size":2,"compute_input":{},"compute_infer":{"count":4,"ns":9},"compute_output":{}}]}`
	all := func(names ...string) string {
		var list []string
		for _, name := range names {
			list = append(list, fmt.Sprintf(one, name, "v"), fmt.Sprintf(one, name, "7"))
		}
		return `{"model_stats":[` + strings.Join(list, ",") + `]}`
	}
	s, err := call.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "e", Version: "v"})
	equal(t, s, err, `{"model_stats":[`+fmt.Sprintf(one, "e", "v")+`]}`)
	s, err = call.ModelStatistics(ctx, &pb.ModelStatisticsRequest{})
	equal(t, s, err, all("e")) // without those of "locked"
	s, err = call.ModelStatistics(metadata.AppendToOutgoingContext(ctx, "authorization", key), &pb.ModelStatisticsRequest{})
	equal(t, s, err, all("e", "locked"))
	_, err = call.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "nope"})
	wantError(t, err, codes.InvalidArgument, "requested model 'nope' is not available")
	_, err = call.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "locked"})
	wantError(t, err, codes.Unauthenticated, "no valid credential")
	_, err = call.ModelStatistics(metadata.AppendToOutgoingContext(ctx, "authorization", key, "authorization", key), &pb.ModelStatisticsRequest{Name: "locked"})
	wantError(t, err, codes.InvalidArgument, "more than one credential")
}

// refuses is an authenticator that refuses everybody with its error.
type refuses struct{ err error }

func (r refuses) Authenticate([]byte) (*auth.Principal, error) { return nil, r.err }

// Whom scoring refuses, the other calls about a model refuse alike.
func TestRefusalsAreAlike(t *testing.T) {
	call, h := client(t, Config{}, identity{})
	ctx := metadata.AppendToOutgoingContext(soon(t), "x-api-key", "some")
	e := *h.path.Snapshot().Endpoint([]byte("e"))
	f := func(err error, c codes.Code, text string) {
		t.Helper()
		e := e
		e.Auth = refuses{err}
		h.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{&e}))
		for _, ask := range []func() error{
			func() error { _, err := call.ModelInfer(ctx, ask("i", 1)); return err },
			func() error { _, err := call.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "e"}); return err },
			func() error { _, err := call.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "e"}); return err },
			func() error { _, err := call.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "e"}); return err },
		} {
			wantError(t, ask(), c, text)
		}
	}
	f(auth.ErrMissing, codes.Unauthenticated, "no valid credential; send")
	f(auth.ErrForbidden, codes.PermissionDenied, "not for this endpoint")
	f(&auth.Lacking{Scope: "score"}, codes.PermissionDenied, "lacks the scope 'score'")
	f(auth.ErrBusy, codes.Unavailable, "try again later")
	f(auth.ErrUnavailable, codes.Unavailable, "try again later")
	f(fmt.Errorf("of another kind"), codes.Internal, "could not be checked")
}

func TestARepositoryIsManaged(t *testing.T) {
	repo := &repository{}
	h := openWith(t, Config{}, counting, triton.Config{Models: repo, Open: true})
	call, ctx := pb.NewGRPCInferenceServiceClient(h.dial(t)), soon(t)
	index, err := call.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
	served := `{"name":"e","version":"v","state":"READY"},{"name":"e","version":"7","state":"READY"},{"name":"locked","version":"v","state":"READY"},{"name":"locked","version":"7","state":"READY"}`
	equal(t, index, err, `{"models":[{"name":"m","version":"1","state":"READY"},{"name":"n","state":"UNAVAILABLE","reason":"unloaded"},`+served+`]}`)
	index, err = call.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: true})
	equal(t, index, err, `{"models":[{"name":"m","version":"1","state":"READY"},`+served+`]}`)
	_, err = call.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{RepositoryName: "r"})
	wantError(t, err, codes.Unimplemented, "'repository_name' specification is not supported")

	load := func(name, parameters string) error {
		q := &pb.RepositoryModelLoadRequest{}
		if err := protojson.Unmarshal([]byte(`{"parameters":{`+parameters+`}}`), q); err != nil {
			t.Fatal(err)
		}
		q.ModelName = name
		_, err := call.RepositoryModelLoad(ctx, q)
		return err
	}
	if err := load("m", `"config":{"string_param":"{\"max_batch_size\":2}"}`); err != nil {
		t.Error(err)
	}
	repo.want(t, `{"max_batch_size":2}`, true)
	wantError(t, load("nope", ""), codes.NotFound, "failed to load 'nope', failed to poll from model repository")
	wantError(t, load("m", `"file:1/model.onnx":{"bytes_param":"AAAA"}`), codes.Unimplemented, "a model's files are not taken from a request")
	wantError(t, load("m", `"x":{"int64_param":1}`), codes.InvalidArgument, "unrecognized load parameter 'x'")
	wantError(t, load("m", `"config":{"bool_param":true}`), codes.InvalidArgument, "Unable to parse 'config'")
	wantError(t, load("m", `"config":{"string_param":"`+strings.Repeat(" ", maxConfig+1)+`"}`), codes.ResourceExhausted, "the configuration exceeds 65536 bytes")
	if _, err := call.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "m"}); err != nil {
		t.Error(err)
	}
	repo.want(t, `{"max_batch_size":2}`, false)
	server, err := call.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
	equal(t, server, err, `{"name":"sluice","extensions":["binary_tensor_data","classification","model_configuration","statistics","trace","logging","model_repository"]}`)
}

func TestMemoryAndSettingsAreManaged(t *testing.T) {
	log, memory := &logger{triton.LogSettings{Info: true, Warning: true, Error: true, Format: "default"}}, &regions{}
	h := openWith(t, Config{}, counting, triton.Config{Log: log, Regions: memory, Open: true})
	call, ctx := pb.NewGRPCInferenceServiceClient(h.dial(t)), soon(t)
	if _, err := call.SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{Name: "r", Key: "/k", Offset: 4, ByteSize: 64}); err != nil {
		t.Error(err)
	}
	there, err := call.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})
	equal(t, there, err, `{"regions":{"r":{"name":"r","key":"/k","offset":4,"byte_size":64}}}`)
	_, err = call.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{Name: "x"})
	wantError(t, err, codes.NotFound, "Unable to find system shared memory region: 'x'")
	if _, err := call.SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{}); err != nil || memory.registered != nil {
		t.Error(memory.registered, err)
	}
	cuda, err := call.CudaSharedMemoryStatus(ctx, &pb.CudaSharedMemoryStatusRequest{})
	equal(t, cuda, err, `{}`)
	_, err = call.CudaSharedMemoryRegister(ctx, &pb.CudaSharedMemoryRegisterRequest{Name: "r"})
	wantError(t, err, codes.Unimplemented, "CUDA shared memory is not supported")
	if _, err := call.CudaSharedMemoryUnregister(ctx, &pb.CudaSharedMemoryUnregisterRequest{}); err != nil {
		t.Error(err)
	}

	logs := func(change, want string) {
		t.Helper()
		q := &pb.LogSettingsRequest{}
		if err := protojson.Unmarshal([]byte(change), q); err != nil {
			t.Fatal(err)
		}
		got, err := call.LogSettings(ctx, q)
		equal(t, got, err, want)
	}
	settings := `{"settings":{"log_file":{"string_param":""},"log_info":{"bool_param":%v},"log_warning":{"bool_param":true},"log_error":{"bool_param":true},` +
		`"log_verbose_level":{"uint32_param":%d},"log_format":{"string_param":"default"}}}`
	logs(`{}`, fmt.Sprintf(settings, true, 0))
	logs(`{"settings":{"log_verbose_level":{"uint32_param":1},"log_info":{"bool_param":false},"log_error":{},"more":{"bool_param":true}}}`, fmt.Sprintf(settings, false, 1))
	_, err = call.LogSettings(ctx, &pb.LogSettingsRequest{Settings: map[string]*pb.LogSettingsRequest_SettingValue{
		"log_info": {ParameterChoice: &pb.LogSettingsRequest_SettingValue_Uint32Param{Uint32Param: 1}},
	}})
	wantError(t, err, codes.InvalidArgument, "Unable to parse 'log_info': it has another type")

	traces := func(name string, values ...string) (*pb.TraceSettingResponse, error) {
		q := &pb.TraceSettingRequest{ModelName: "e"}
		if name != "" {
			q.Settings = map[string]*pb.TraceSettingRequest_SettingValue{name: {Value: values}}
		}
		return call.TraceSetting(ctx, q)
	}
	off := `{"settings":{"trace_level":{"value":["OFF"]},"trace_rate":{"value":["1000"]},"trace_count":{"value":["-1"]},"log_frequency":{"value":["0"]},` +
		`"trace_file":{"value":[""]},"trace_mode":{"value":["triton"]}}}`
	for _, change := range [][]string{{""}, {"trace_level"}, {"trace_rate", "1000"}} {
		got, err := traces(change[0], change[1:]...)
		equal(t, got, err, off)
	}
	_, err = traces("trace_rate", "x")
	wantError(t, err, codes.InvalidArgument, "Unable to parse 'trace_rate', got: x")
	_, err = traces("trace_level", "TIMESTAMPS")
	wantError(t, err, codes.Unimplemented, "this server does not trace requests")
	_, err = call.TraceSetting(ctx, &pb.TraceSettingRequest{ModelName: "nope"})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'nope' is not found")
}

// Every call that is about the process needs its key, and none does anything without.
func TestWhatIsAboutTheProcessNeedsItsKey(t *testing.T) {
	const admin = "the-key-of-management"
	repo, memory := &repository{}, &regions{}
	h := openWith(t, Config{}, counting, triton.Config{Models: repo, Log: &logger{}, Regions: memory, Key: admin})
	call := pb.NewGRPCInferenceServiceClient(h.dial(t))
	all := func(ctx context.Context) map[string]error {
		failed := map[string]error{}
		_, failed["index"] = call.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
		_, failed["load"] = call.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "m"})
		_, failed["unload"] = call.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "m"})
		_, failed["register"] = call.SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{Name: "r", Key: "/k", ByteSize: 1})
		_, failed["status"] = call.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})
		_, failed["unregister"] = call.SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{})
		_, failed["cuda status"] = call.CudaSharedMemoryStatus(ctx, &pb.CudaSharedMemoryStatusRequest{})
		_, failed["cuda unregister"] = call.CudaSharedMemoryUnregister(ctx, &pb.CudaSharedMemoryUnregisterRequest{})
		_, failed["logs"] = call.LogSettings(ctx, &pb.LogSettingsRequest{})
		_, failed["traces"] = call.TraceSetting(ctx, &pb.TraceSettingRequest{})
		return failed
	}
	refused := func(want codes.Code, headers ...string) {
		t.Helper()
		for name, err := range all(metadata.AppendToOutgoingContext(soon(t), headers...)) {
			if status.Code(err) != want {
				t.Errorf("%s with %v: %v", name, headers, err)
			}
		}
	}
	refused(codes.Unauthenticated)
	refused(codes.Unauthenticated, "x-api-key", key)
	refused(codes.InvalidArgument, "authorization", "Bearer "+admin, "authorization", "Bearer "+admin)
	repo.want(t, "", false)
	if memory.registered != nil {
		t.Error("a region was registered without the key")
	}
	for name, err := range all(metadata.AppendToOutgoingContext(soon(t), "authorization", "Bearer "+admin)) {
		if err != nil {
			t.Errorf("%s with the key: %v", name, err)
		}
	}
	h = openWith(t, Config{}, counting, triton.Config{Models: repo, Log: &logger{}, Regions: memory, Key: admin, Open: true})
	call = pb.NewGRPCInferenceServiceClient(h.dial(t))
	refused(codes.Unauthenticated, "origin", "https://example.com")
	for name, err := range all(soon(t)) {
		if err != nil {
			t.Errorf("%s where it is open: %v", name, err)
		}
	}
}

func TestExtensionsThatAreNotThereSaySo(t *testing.T) {
	h := openWith(t, Config{}, identity{}, triton.Config{Open: true})
	call, ctx := pb.NewGRPCInferenceServiceClient(h.dial(t)), soon(t)
	_, err := call.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})
	wantError(t, err, codes.Unimplemented, "--allow-client-shm")
	_, err = call.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "m"})
	wantError(t, err, codes.InvalidArgument, "explicit model load / unload is not allowed")
	_, err = call.LogSettings(ctx, &pb.LogSettingsRequest{})
	wantError(t, err, codes.Unimplemented, "does not tell what it logs")
}
