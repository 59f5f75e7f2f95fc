package triton

import (
	"maps"
	"slices"
	"strconv"
	"sync"

	"sluice.dev/scorer"
)

// Log is what a process logs. Safe for concurrent use.
type Log interface {
	// Settings are those that are in effect.
	Settings() LogSettings
	// Set puts others into effect.
	Set(LogSettings)
}

// LogSettings are Triton's. The file and the format are chosen when the process
// starts.
type LogSettings struct {
	File    string `json:"log_file"`
	Info    bool   `json:"log_info"`
	Warning bool   `json:"log_warning"`
	Error   bool   `json:"log_error"`
	Verbose uint32 `json:"log_verbose_level"` // 0 is off
	Format  string `json:"log_format"`
}

var logging sync.Mutex // one change at a time

// LogSettings are what is logged.
func (x *Extensions) LogSettings() (LogSettings, error) {
	if x.config.Log == nil {
		return LogSettings{}, errorf(scorer.Unsupported, "this process does not tell what it logs")
	}
	return x.config.Log.Settings(), nil
}

// SetLog changes what the given settings name: bool, uint64 and string by Triton's
// names. Unknown names are ignored, as Triton does.
func (x *Extensions) SetLog(change map[string]any) (LogSettings, error) {
	logging.Lock()
	defer logging.Unlock()
	s, err := x.LogSettings()
	if err != nil {
		return s, err
	}
	for name, v := range change {
		flag, isFlag := v.(bool)
		number, isNumber := v.(uint64)
		text, isText := v.(string)
		known := true
		switch name {
		case "log_info":
			s.Info, known = flag, isFlag
		case "log_warning":
			s.Warning, known = flag, isFlag
		case "log_error":
			s.Error, known = flag, isFlag
		case "log_verbose_level":
			s.Verbose, known = uint32(number), isNumber && number <= 1<<31-1
		case "log_file":
			known = isText && text == s.File
			err = errorf(scorer.InvalidArgument, "log file location can not be updated through network protocol")
		case "log_format":
			known = isText && text == s.Format
			err = errorf(scorer.InvalidArgument, "the log's format is chosen when the server starts, with --log-format")
		}
		if !known {
			if err == nil {
				err = errorf(scorer.InvalidArgument, "Unable to parse '%s': it has another type", name)
			}
			return s, err
		}
		err = nil
	}
	x.config.Log.Set(s)
	return s, nil
}

// TraceSettings are Triton's; numbers are texts.
type TraceSettings struct {
	Level     []string `json:"trace_level"`
	Rate      string   `json:"trace_rate"`
	Count     string   `json:"trace_count"`
	Frequency string   `json:"log_frequency"`
	File      string   `json:"trace_file"`
	Mode      string   `json:"trace_mode"`
}

// Texts are the settings by name, but for the level, which has several.
func (s *TraceSettings) Texts() map[string]string {
	return map[string]string{
		"trace_rate": s.Rate, "trace_count": s.Count, "log_frequency": s.Frequency, "trace_file": s.File, "trace_mode": s.Mode,
	}
}

// untraced are the settings of a server that writes no traces of its own: spans
// belong to whoever sends a traceparent.
var untraced = TraceSettings{Level: []string{"OFF"}, Rate: "1000", Count: "-1", Frequency: "0", Mode: "triton"}

// Trace is how requests for a model are traced; an empty name is all models.
func (x *Extensions) Trace(model string) (TraceSettings, error) {
	if model != "" && x.config.Path.Snapshot().Endpoint([]byte(model)) == nil {
		return TraceSettings{}, errorf(scorer.NotFound, "Request for unknown model: '%s' is not found", model)
	}
	return untraced, nil
}

// SetTrace takes a change of trace settings that changes nothing (also no values,
// which clear a setting), and refuses others: a setting without an effect would be
// worse than an error.
func (x *Extensions) SetTrace(model string, change map[string][]string) (TraceSettings, error) {
	s, err := x.Trace(model)
	if err != nil {
		return s, err
	}
	same := s.Texts()
	for _, name := range slices.Sorted(maps.Keys(change)) {
		values := change[name]
		switch now, isText := same[name]; {
		case len(values) == 0:
		case name == "trace_level" && slices.Equal(values, s.Level):
		case name == "trace_level":
			return s, errorf(scorer.Unsupported, "trace_level %q: this server does not trace requests; it passes the trace context on", values)
		case isText && isNumber(name) && !numeric(values[0]):
			return s, errorf(scorer.InvalidArgument, "Unable to parse '%s', got: %.64s", name, values[0])
		case isText && values[0] != now:
			return s, errorf(scorer.Unsupported, "%s: this server does not trace requests; leave it at %q", name, now)
		}
	}
	return s, nil
}

func isNumber(setting string) bool {
	return setting == "trace_rate" || setting == "trace_count" || setting == "log_frequency"
}

func numeric(text string) bool {
	_, err := strconv.ParseInt(text, 10, 64)
	return err == nil
}
