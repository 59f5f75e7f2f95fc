package spec

import (
	"fmt"
	"strconv"
	"strings"
)

// ModelRef says where a model is: at Path, or registered as Name with Version.
type ModelRef struct {
	Path    string
	Name    string // empty for a path
	Version int    // from 1
}

// ParseModel reads what Version.Model says. What has a slash or ends in .onnx is
// a path. The error says what to write instead.
func ParseModel(s string) (ModelRef, error) {
	switch {
	case strings.Contains(s, "://"):
		return ModelRef{}, fmt.Errorf("is the address %s; copy the model to a local file and give its path", quote(s))
	case strings.ContainsRune(s, 0):
		return ModelRef{}, fmt.Errorf("is %s, with a zero byte; give the path of an .onnx file", quote(s))
	case strings.Contains(s, "/") || strings.HasSuffix(s, ".onnx"):
		return ModelRef{Path: s}, nil
	}
	name, text, ok := strings.Cut(s, ":")
	version, err := strconv.ParseUint(text, 10, 31)
	if !ok || name == "" || err != nil || version == 0 {
		return ModelRef{}, fmt.Errorf("is %s; must be a path, such as ./%s.onnx, or name:version of a registered model", quote(s), fileStem(s))
	}
	return ModelRef{Name: name, Version: int(version)}, nil
}

// fileStem is s as part of an example path, if it can be one.
func fileStem(s string) string {
	if !isLabel(s) {
		return "model"
	}
	return s
}
