package grpcapi

import (
	"context"
	"slices"

	"sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

// Extensions are what Triton's clients may call beside scoring. What is nil is
// answered with UNIMPLEMENTED. Methods may be called from any number of goroutines;
// their errors are *scorer.Error or gRPC's own. Who may call what changes the server,
// they decide themselves; see Credential.
type Extensions struct {
	Models       Models
	Repository   Repository
	SharedMemory SharedMemory
	CudaMemory   CudaMemory
	Settings     Settings
}

// Models tells about models. Its callers may call the model that they ask for; of all
// models, they see those that they may call.
type Models interface {
	ModelConfig(context.Context, *inferencepb.ModelConfigRequest) (*inferencepb.ModelConfigResponse, error)
	ModelStatistics(context.Context, *inferencepb.ModelStatisticsRequest) (*inferencepb.ModelStatisticsResponse, error)
}

// Repository is where models come from.
type Repository interface {
	RepositoryIndex(context.Context, *inferencepb.RepositoryIndexRequest) (*inferencepb.RepositoryIndexResponse, error)
	RepositoryModelLoad(context.Context, *inferencepb.RepositoryModelLoadRequest) (*inferencepb.RepositoryModelLoadResponse, error)
	RepositoryModelUnload(context.Context, *inferencepb.RepositoryModelUnloadRequest) (*inferencepb.RepositoryModelUnloadResponse, error)
}

// SharedMemory are regions of the system's shared memory that tensors may be in.
type SharedMemory interface {
	SystemSharedMemoryStatus(context.Context, *inferencepb.SystemSharedMemoryStatusRequest) (*inferencepb.SystemSharedMemoryStatusResponse, error)
	SystemSharedMemoryRegister(context.Context, *inferencepb.SystemSharedMemoryRegisterRequest) (*inferencepb.SystemSharedMemoryRegisterResponse, error)
	SystemSharedMemoryUnregister(context.Context, *inferencepb.SystemSharedMemoryUnregisterRequest) (*inferencepb.SystemSharedMemoryUnregisterResponse, error)
}

// CudaMemory are such regions on a GPU.
type CudaMemory interface {
	CudaSharedMemoryStatus(context.Context, *inferencepb.CudaSharedMemoryStatusRequest) (*inferencepb.CudaSharedMemoryStatusResponse, error)
	CudaSharedMemoryRegister(context.Context, *inferencepb.CudaSharedMemoryRegisterRequest) (*inferencepb.CudaSharedMemoryRegisterResponse, error)
	CudaSharedMemoryUnregister(context.Context, *inferencepb.CudaSharedMemoryUnregisterRequest) (*inferencepb.CudaSharedMemoryUnregisterResponse, error)
}

// Settings are of traces and logs.
type Settings interface {
	TraceSetting(context.Context, *inferencepb.TraceSettingRequest) (*inferencepb.TraceSettingResponse, error)
	LogSettings(context.Context, *inferencepb.LogSettingsRequest) (*inferencepb.LogSettingsResponse, error)
}

// forward has an extension's method answer, unless the extension is missing.
func forward[X comparable, Q, R any](ctx context.Context, extension X, what string, method func(X, context.Context, *Q) (*R, error), q *Q) (*R, error) {
	var none X
	if extension == none {
		return nil, failure(scorer.Errorf(scorer.Unsupported, "this server does not offer %s over gRPC", what))
	}
	r, err := method(extension, ctx, q)
	if err != nil {
		return nil, failure(err)
	}
	return r, nil
}

// ModelConfig implements Triton's extension.
func (i inferenceServer) ModelConfig(ctx context.Context, q *inferencepb.ModelConfigRequest) (*inferencepb.ModelConfigResponse, error) {
	if _, _, err := i.s.find(ctx, q.Name, q.Version); err != nil {
		return nil, failure(err)
	}
	return forward(ctx, i.s.config.Extensions.Models, "model configurations", Models.ModelConfig, q)
}

// ModelStatistics implements Triton's extension.
func (i inferenceServer) ModelStatistics(ctx context.Context, q *inferencepb.ModelStatisticsRequest) (*inferencepb.ModelStatisticsResponse, error) {
	if q.Name != "" {
		if _, _, err := i.s.find(ctx, q.Name, q.Version); err != nil {
			return nil, failure(err)
		}
	}
	r, err := forward(ctx, i.s.config.Extensions.Models, "model statistics", Models.ModelStatistics, q)
	if err != nil {
		return nil, err
	}
	credential := Credential(ctx)
	r.ModelStats = slices.DeleteFunc(r.ModelStats, func(m *inferencepb.ModelStatistics) bool {
		return !i.s.path.MayCall([]byte(m.Name), credential)
	})
	return r, nil
}

// RepositoryIndex implements Triton's extension.
func (i inferenceServer) RepositoryIndex(ctx context.Context, q *inferencepb.RepositoryIndexRequest) (*inferencepb.RepositoryIndexResponse, error) {
	return forward(ctx, i.s.config.Extensions.Repository, "a model repository", Repository.RepositoryIndex, q)
}

// RepositoryModelLoad implements Triton's extension.
func (i inferenceServer) RepositoryModelLoad(ctx context.Context, q *inferencepb.RepositoryModelLoadRequest) (*inferencepb.RepositoryModelLoadResponse, error) {
	return forward(ctx, i.s.config.Extensions.Repository, "a model repository", Repository.RepositoryModelLoad, q)
}

// RepositoryModelUnload implements Triton's extension.
func (i inferenceServer) RepositoryModelUnload(ctx context.Context, q *inferencepb.RepositoryModelUnloadRequest) (*inferencepb.RepositoryModelUnloadResponse, error) {
	return forward(ctx, i.s.config.Extensions.Repository, "a model repository", Repository.RepositoryModelUnload, q)
}

// SystemSharedMemoryStatus implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryStatus(ctx context.Context, q *inferencepb.SystemSharedMemoryStatusRequest) (*inferencepb.SystemSharedMemoryStatusResponse, error) {
	return forward(ctx, i.s.config.Extensions.SharedMemory, "system shared memory", SharedMemory.SystemSharedMemoryStatus, q)
}

// SystemSharedMemoryRegister implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryRegister(ctx context.Context, q *inferencepb.SystemSharedMemoryRegisterRequest) (*inferencepb.SystemSharedMemoryRegisterResponse, error) {
	return forward(ctx, i.s.config.Extensions.SharedMemory, "system shared memory", SharedMemory.SystemSharedMemoryRegister, q)
}

// SystemSharedMemoryUnregister implements Triton's extension.
func (i inferenceServer) SystemSharedMemoryUnregister(ctx context.Context, q *inferencepb.SystemSharedMemoryUnregisterRequest) (*inferencepb.SystemSharedMemoryUnregisterResponse, error) {
	return forward(ctx, i.s.config.Extensions.SharedMemory, "system shared memory", SharedMemory.SystemSharedMemoryUnregister, q)
}

// CudaSharedMemoryStatus implements Triton's extension.
func (i inferenceServer) CudaSharedMemoryStatus(ctx context.Context, q *inferencepb.CudaSharedMemoryStatusRequest) (*inferencepb.CudaSharedMemoryStatusResponse, error) {
	return forward(ctx, i.s.config.Extensions.CudaMemory, "CUDA shared memory", CudaMemory.CudaSharedMemoryStatus, q)
}

// CudaSharedMemoryRegister implements Triton's extension.
func (i inferenceServer) CudaSharedMemoryRegister(ctx context.Context, q *inferencepb.CudaSharedMemoryRegisterRequest) (*inferencepb.CudaSharedMemoryRegisterResponse, error) {
	return forward(ctx, i.s.config.Extensions.CudaMemory, "CUDA shared memory", CudaMemory.CudaSharedMemoryRegister, q)
}

// CudaSharedMemoryUnregister implements Triton's extension.
func (i inferenceServer) CudaSharedMemoryUnregister(ctx context.Context, q *inferencepb.CudaSharedMemoryUnregisterRequest) (*inferencepb.CudaSharedMemoryUnregisterResponse, error) {
	return forward(ctx, i.s.config.Extensions.CudaMemory, "CUDA shared memory", CudaMemory.CudaSharedMemoryUnregister, q)
}

// TraceSetting implements Triton's extension.
func (i inferenceServer) TraceSetting(ctx context.Context, q *inferencepb.TraceSettingRequest) (*inferencepb.TraceSettingResponse, error) {
	return forward(ctx, i.s.config.Extensions.Settings, "trace settings", Settings.TraceSetting, q)
}

// LogSettings implements Triton's extension.
func (i inferenceServer) LogSettings(ctx context.Context, q *inferencepb.LogSettingsRequest) (*inferencepb.LogSettingsResponse, error) {
	return forward(ctx, i.s.config.Extensions.Settings, "log settings", Settings.LogSettings, q)
}
