package ort

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The runtime's table of functions, as far as it is used here: OrtApi in
// onnxruntime_c_api.h, of version 15 and newer. Functions are only ever added at its end.
typedef struct {
	void *unused1[2];
	const char *(*message)(const void *status);
	void *unused2[90];
	void (*release)(void *status);
	void *unused3[158];
	void *(*resize)(void *value, size_t index, size_t length, char **buffer);
} functions;

typedef struct { const functions *(*get)(uint32_t version); } base;

// find is the table of the library at path, which is loaded; NULL if it has none.
static const functions *find(const char *path) {
	void *library = dlopen(path, RTLD_LAZY);
	base *(*get)(void) = library ? (base *(*)(void)) dlsym(library, "OrtGetApiBase") : NULL;
	return get ? get()->get(15) : NULL;
}

// fill copies n elements into a value: each is its length, in four bytes, and its bytes.
// It returns an error's status, or NULL.
static void *fill(const functions *f, void *value, const char *data, size_t n) {
	for (size_t i = 0; i < n; i++) {
		uint32_t length;
		char *to = NULL;
		memcpy(&length, data, 4);
		data += 4;
		void *status = f->resize(value, i, length, &to);
		if (status) return status;
		memcpy(to, data, length);
		data += length;
	}
	return NULL;
}

static const char *message(const functions *f, const void *status) { return f->message(status); }
static void release(const functions *f, void *status) { f->release(status); }
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"sluice.dev/accel/tensor"
)

// The runtime's Go binding passes elements of strings as C has them, which end at a
// zero byte. These functions pass them with their length.
var functions *C.functions

func findFunctions(path string) error {
	name := append([]byte(path), 0)
	if functions = C.find((*C.char)(unsafe.Pointer(&name[0]))); functions == nil {
		return errors.New("it has no C interface of version 15")
	}
	return nil
}

// fillStrings makes the raw form of a Bytes tensor of n elements the contents of v.
func fillStrings(v *ort.StringTensor, data []byte, n int64) error {
	rest, there := data, int64(0)
	for ; len(rest) >= 4; there++ {
		size := int64(binary.LittleEndian.Uint32(rest))
		if size > int64(len(rest)-4) {
			return errors.New("the data ends within an element")
		}
		rest = rest[4+size:]
	}
	if there != n || len(rest) > 0 {
		return fmt.Errorf("the data has %d elements and %d bytes more, instead of %d elements", there, len(rest), n)
	}
	if n == 0 {
		return nil
	}
	// The binding's type is one pointer, to the runtime's value, which v keeps.
	value := *(*unsafe.Pointer)(unsafe.Pointer(v.GetInternals()))
	if status := C.fill(functions, value, (*C.char)(unsafe.Pointer(&data[0])), C.size_t(n)); status != nil {
		defer C.release(functions, status)
		return errors.New(C.GoString(C.message(functions, status)))
	}
	return nil
}

// strings makes a value of a Bytes tensor, filled anew before every run.
func (c *call) strings(info *tensor.Info, t tensor.Tensor) (ort.Value, error) {
	v, err := ort.NewStringTensor(ort.NewShape(t.Shape...))
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
	}
	n, _ := tensor.Elements(t.Shape)
	c.refresh = append(c.refresh, func() error {
		if err := fillStrings(v, t.Data, n); err != nil {
			return fmt.Errorf("tensor %q of shape %v: %w", info.Name, t.Shape, err)
		}
		return nil
	})
	return v, nil
}

// texts is the raw form of a string tensor.
func texts(v *ort.StringTensor) ([]byte, error) {
	list, err := v.GetContents()
	if err != nil {
		return nil, fmt.Errorf("read strings: %w", err)
	}
	data := []byte{}
	for _, s := range list {
		data = binary.LittleEndian.AppendUint32(data, uint32(len(s)))
		data = append(data, s...)
	}
	return data, nil
}
