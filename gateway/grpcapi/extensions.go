package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"sluice.dev/gateway"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
)

// Triton's extensions are answered by gateway/triton, as over HTTP; here they are
// read from messages and written to them.

// asked answers what is about models, with the caller's credential.
func asked[R any](ctx context.Context, tell func(credential []byte) (*R, error)) (*R, error) {
	credential, err := headersOf(ctx).credential()
	if err != nil {
		return nil, failure(gateway.Refusal(err))
	}
	r, err := tell(credential)
	if err != nil {
		return nil, failure(err)
	}
	return r, nil
}

// manage does what is about the process, if the caller may. No page of a web browser
// speaks gRPC without something that translates, which says where the page is from.
func manage[R any](ctx context.Context, x *triton.Extensions, do func() (*R, error)) (*R, error) {
	return asked(ctx, func(credential []byte) (*R, error) {
		if err := x.Manage(credential, headersOf(ctx).get("origin") != ""); err != nil {
			return nil, err
		}
		return do()
	})
}

// ModelConfig implements Triton's extension.
func (i inferenceServer) ModelConfig(ctx context.Context, q *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	return asked(ctx, func(credential []byte) (*pb.ModelConfigResponse, error) {
		text, err := i.s.config.Triton.ModelConfig(credential, q.Name, q.Version)
		if err != nil {
			return nil, err
		}
		r := &pb.ModelConfigResponse{Config: &pb.ModelConfig{}}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, r.Config); err != nil {
			return nil, scorer.Errorf(scorer.Internal, "the configuration of model '%.64s' is not readable; ask for it over HTTP", q.Name)
		}
		return r, nil
	})
}

// ModelStatistics implements Triton's extension.
func (i inferenceServer) ModelStatistics(ctx context.Context, q *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	return asked(ctx, func(credential []byte) (*pb.ModelStatisticsResponse, error) {
		list, err := i.s.config.Triton.Statistics(credential, q.Name, q.Version)
		r := &pb.ModelStatisticsResponse{}
		for k := range list {
			r.ModelStats = append(r.ModelStats, statistics(&list[k]))
		}
		return r, err
	})
}

func total(t scorer.Total) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: t.Count, Ns: t.Nanos}
}

func statistics(m *triton.ModelStatistics) *pb.ModelStatistics {
	q := &m.Requests
	s := &pb.ModelStatistics{
		Name: m.Name, Version: m.Version, LastInference: uint64(m.LastInference), InferenceCount: m.Inferences, ExecutionCount: m.Executions,
		InferenceStats: &pb.InferStatistics{
			Success: total(q.Success), Fail: total(q.Fail), Queue: total(q.Queue), ComputeInput: total(q.Input), ComputeInfer: total(q.Infer),
			ComputeOutput: total(q.Output), CacheHit: total(q.Hit), CacheMiss: total(q.Miss),
		},
	}
	for _, b := range m.Batches {
		s.BatchStats = append(s.BatchStats, &pb.InferBatchStatistics{
			BatchSize: b.Rows, ComputeInput: total(b.Input), ComputeInfer: total(b.Infer), ComputeOutput: total(b.Output),
		})
	}
	return s
}

// wholeRepository is an error if a call names one of several repositories.
func wholeRepository(name string) error {
	if name == "" {
		return nil
	}
	return scorer.Errorf(scorer.Unsupported, "'repository_name' specification is not supported")
}

// RepositoryIndex implements Triton's extension.
func (i inferenceServer) RepositoryIndex(ctx context.Context, q *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	x := i.s.config.Triton
	return manage(ctx, x, func() (*pb.RepositoryIndexResponse, error) {
		r := &pb.RepositoryIndexResponse{}
		if err := wholeRepository(q.RepositoryName); err != nil {
			return nil, err
		}
		for _, e := range x.Index(q.Ready) {
			r.Models = append(r.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: string(e.State), Reason: e.Reason})
		}
		return r, nil
	})
}

// RepositoryModelLoad implements Triton's extension.
func (i inferenceServer) RepositoryModelLoad(ctx context.Context, q *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	x := i.s.config.Triton
	return manage(ctx, x, func() (*pb.RepositoryModelLoadResponse, error) {
		if err := wholeRepository(q.RepositoryName); err != nil {
			return nil, err
		}
		config, files, err := loadParameters(q.Parameters)
		if err != nil {
			return nil, err
		}
		return &pb.RepositoryModelLoadResponse{}, x.Load(ctx, q.ModelName, []byte(config), files)
	})
}

// maxConfig bounds a configuration that comes with a load, in bytes.
const maxConfig = 64 << 10

// loadParameters are the configuration to load a model with, and whether files of the
// model came along.
func loadParameters(parameters map[string]*pb.ModelRepositoryParameter) (config string, files bool, err error) {
	for name, v := range parameters {
		text, isText := v.GetParameterChoice().(*pb.ModelRepositoryParameter_StringParam)
		switch {
		case strings.HasPrefix(name, "file:"):
			files = true
		case name != "config":
			return "", false, scorer.Errorf(scorer.InvalidArgument, "unrecognized load parameter '%.64s'", name)
		case !isText:
			return "", false, scorer.Errorf(scorer.InvalidArgument, "Unable to parse 'config': it must be a string with the configuration's JSON")
		case len(text.StringParam) > maxConfig:
			return "", false, scorer.Errorf(scorer.TooLarge, "the configuration exceeds %d bytes", maxConfig)
		default:
			config = text.StringParam
		}
	}
	return config, files, nil
}

// RepositoryModelUnload implements Triton's extension. Its parameter unload_dependents
// says nothing: no model is made of others.
func (i inferenceServer) RepositoryModelUnload(ctx context.Context, q *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	x := i.s.config.Triton
	return manage(ctx, x, func() (*pb.RepositoryModelUnloadResponse, error) {
		if err := wholeRepository(q.RepositoryName); err != nil {
			return nil, err
		}
		return &pb.RepositoryModelUnloadResponse{}, x.Unload(ctx, q.ModelName)
	})
}

// withMemory does what is about the clients' shared memory.
func withMemory[R any](ctx context.Context, x *triton.Extensions, do func(triton.Regions) (*R, error)) (*R, error) {
	return manage(ctx, x, func() (*R, error) {
		m, err := x.Memory()
		if err != nil {
			return nil, err
		}
		return do(m)
	})
}

// SystemSharedMemoryStatus implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryStatus(ctx context.Context, q *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	return withMemory(ctx, i.s.config.Triton, func(m triton.Regions) (*pb.SystemSharedMemoryStatusResponse, error) {
		list, err := m.Status(q.Name)
		r := &pb.SystemSharedMemoryStatusResponse{Regions: make(map[string]*pb.SystemSharedMemoryStatusResponse_RegionStatus, len(list))}
		for _, one := range list {
			r.Regions[one.Name] = &pb.SystemSharedMemoryStatusResponse_RegionStatus{Name: one.Name, Key: one.Key, Offset: one.Offset, ByteSize: one.Size}
		}
		return r, err
	})
}

// SystemSharedMemoryRegister implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryRegister(ctx context.Context, q *pb.SystemSharedMemoryRegisterRequest) (*pb.SystemSharedMemoryRegisterResponse, error) {
	return withMemory(ctx, i.s.config.Triton, func(m triton.Regions) (*pb.SystemSharedMemoryRegisterResponse, error) {
		return &pb.SystemSharedMemoryRegisterResponse{}, m.Register(q.Name, q.Key, q.Offset, q.ByteSize)
	})
}

// SystemSharedMemoryUnregister implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryUnregister(ctx context.Context, q *pb.SystemSharedMemoryUnregisterRequest) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	return withMemory(ctx, i.s.config.Triton, func(m triton.Regions) (*pb.SystemSharedMemoryUnregisterResponse, error) {
		m.Unregister(q.Name)
		return &pb.SystemSharedMemoryUnregisterResponse{}, nil
	})
}

// CudaSharedMemoryStatus implements Triton's extension: none is registered.
func (i inferenceServer) CudaSharedMemoryStatus(ctx context.Context, _ *pb.CudaSharedMemoryStatusRequest) (*pb.CudaSharedMemoryStatusResponse, error) {
	return manage(ctx, i.s.config.Triton, func() (*pb.CudaSharedMemoryStatusResponse, error) { return &pb.CudaSharedMemoryStatusResponse{}, nil })
}

// CudaSharedMemoryRegister implements Triton's extension.
func (i inferenceServer) CudaSharedMemoryRegister(ctx context.Context, _ *pb.CudaSharedMemoryRegisterRequest) (*pb.CudaSharedMemoryRegisterResponse, error) {
	return manage(ctx, i.s.config.Triton, func() (*pb.CudaSharedMemoryRegisterResponse, error) { return nil, triton.ErrDeviceMemory })
}

// CudaSharedMemoryUnregister implements Triton's extension. Clients that use none call
// it, too, to begin with nothing registered.
func (i inferenceServer) CudaSharedMemoryUnregister(ctx context.Context, _ *pb.CudaSharedMemoryUnregisterRequest) (*pb.CudaSharedMemoryUnregisterResponse, error) {
	return manage(ctx, i.s.config.Triton, func() (*pb.CudaSharedMemoryUnregisterResponse, error) {
		return &pb.CudaSharedMemoryUnregisterResponse{}, nil
	})
}

// TraceSetting implements Triton's extension.
func (i inferenceServer) TraceSetting(ctx context.Context, q *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	x := i.s.config.Triton
	return manage(ctx, x, func() (*pb.TraceSettingResponse, error) {
		change := make(map[string][]string, len(q.Settings))
		for name, v := range q.Settings {
			change[name] = v.GetValue()
		}
		s, err := x.SetTrace(q.ModelName, change)
		r := &pb.TraceSettingResponse{Settings: map[string]*pb.TraceSettingResponse_SettingValue{"trace_level": {Value: s.Level}}}
		for name, v := range s.Texts() {
			r.Settings[name] = &pb.TraceSettingResponse_SettingValue{Value: []string{v}}
		}
		return r, err
	})
}

// LogSettings implements Triton's extension. A setting without a value stays.
func (i inferenceServer) LogSettings(ctx context.Context, q *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	x := i.s.config.Triton
	return manage(ctx, x, func() (*pb.LogSettingsResponse, error) {
		change := make(map[string]any, len(q.Settings))
		for name, v := range q.Settings {
			switch v := v.GetParameterChoice().(type) {
			case *pb.LogSettingsRequest_SettingValue_BoolParam:
				change[name] = v.BoolParam
			case *pb.LogSettingsRequest_SettingValue_Uint32Param:
				change[name] = uint64(v.Uint32Param)
			case *pb.LogSettingsRequest_SettingValue_StringParam:
				change[name] = v.StringParam
			}
		}
		s, err := x.SetLog(change)
		return logSettings(&s), err
	})
}

func logSettings(s *triton.LogSettings) *pb.LogSettingsResponse {
	type value = pb.LogSettingsResponse_SettingValue
	text := func(v string) *value {
		return &value{ParameterChoice: &pb.LogSettingsResponse_SettingValue_StringParam{StringParam: v}}
	}
	flag := func(v bool) *value {
		return &value{ParameterChoice: &pb.LogSettingsResponse_SettingValue_BoolParam{BoolParam: v}}
	}
	return &pb.LogSettingsResponse{Settings: map[string]*value{
		"log_file": text(s.File), "log_info": flag(s.Info), "log_warning": flag(s.Warning), "log_error": flag(s.Error), "log_format": text(s.Format),
		"log_verbose_level": {ParameterChoice: &pb.LogSettingsResponse_SettingValue_Uint32Param{Uint32Param: s.Verbose}},
	}}
}
