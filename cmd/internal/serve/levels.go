package serve

import (
	"context"
	"log/slog"
	"sync/atomic"

	"sluice.dev/gateway/triton"
)

// Levels says which levels are logged. It implements triton.Log.
type Levels struct {
	settings atomic.Pointer[triton.LogSettings]
}

// NewLevels logs level and above.
func NewLevels(level slog.Level) *Levels {
	l := &Levels{}
	s := triton.LogSettings{Info: level <= slog.LevelInfo, Warning: level <= slog.LevelWarn, Error: true, Format: "default"}
	if level < slog.LevelInfo {
		s.Verbose = 1
	}
	l.Set(s)
	return l
}

// Settings implements triton.Log.
func (l *Levels) Settings() triton.LogSettings { return *l.settings.Load() }

// Set implements triton.Log.
func (l *Levels) Set(s triton.LogSettings) { l.settings.Store(&s) }

// Over passes on to h what is logged.
func (l *Levels) Over(h slog.Handler) slog.Handler { return leveled{h, l} }

type leveled struct {
	slog.Handler
	levels *Levels
}

// Enabled implements slog.Handler.
func (l leveled) Enabled(_ context.Context, level slog.Level) bool {
	s := l.levels.settings.Load()
	switch {
	case level >= slog.LevelError:
		return s.Error
	case level >= slog.LevelWarn:
		return s.Warning
	case level >= slog.LevelInfo:
		return s.Info
	}
	return s.Verbose > 0
}

// WithAttrs implements slog.Handler.
func (l leveled) WithAttrs(a []slog.Attr) slog.Handler {
	return leveled{l.Handler.WithAttrs(a), l.levels}
}

// WithGroup implements slog.Handler.
func (l leveled) WithGroup(name string) slog.Handler {
	return leveled{l.Handler.WithGroup(name), l.levels}
}
