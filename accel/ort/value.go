package ort

import (
	"errors"
	"fmt"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"sluice.dev/accel/tensor"
)

// scalar makes a value of a tensor without dimensions, filled anew before every
// run.
func (c *call) scalar(info *tensor.Info, t tensor.Tensor) (ort.Value, error) {
	switch info.DType {
	case tensor.Bool:
		return newScalar[bool](c, t)
	case tensor.Uint8:
		return newScalar[uint8](c, t)
	case tensor.Uint16:
		return newScalar[uint16](c, t)
	case tensor.Uint32:
		return newScalar[uint32](c, t)
	case tensor.Uint64:
		return newScalar[uint64](c, t)
	case tensor.Int8:
		return newScalar[int8](c, t)
	case tensor.Int16:
		return newScalar[int16](c, t)
	case tensor.Int32:
		return newScalar[int32](c, t)
	case tensor.Int64:
		return newScalar[int64](c, t)
	case tensor.Float32:
		return newScalar[float32](c, t)
	case tensor.Float64:
		return newScalar[float64](c, t)
	}
	return nil, fmt.Errorf("scalar %q: type %v is not supported without dimensions", info.Name, info.DType)
}

func newScalar[T ort.TensorData](c *call, t tensor.Tensor) (ort.Value, error) {
	v, err := ort.NewEmptyScalar[T]()
	if err != nil {
		return nil, fmt.Errorf("scalar: %w", err)
	}
	c.refresh = append(c.refresh, func() error {
		var x T
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&x)), unsafe.Sizeof(x)), t.Data) // x outlives the copy
		v.Set(x)
		return nil
	})
	return v, nil
}

// taken turns a value that the runtime provided into a tensor over Go memory, and
// frees the rest. An error goes before.
func taken(v ort.Value, t tensor.DType, before error) (tensor.Tensor, error) {
	defer v.Destroy()
	out := tensor.Tensor{DType: t, Shape: v.GetShape()}
	var err error
	switch v := v.(type) {
	case *ort.StringTensor:
		out.Data, err = texts(v)
	case *ort.Tensor[bool]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[uint8]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[uint16]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[uint32]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[uint64]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[int8]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[int16]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[int32]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[int64]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[float32]:
		out.Data = bytesOf(v.GetData())
	case *ort.Tensor[float64]:
		out.Data = bytesOf(v.GetData())
	default:
		err = fmt.Errorf("the model gave a %T, which cannot be read", v)
	}
	return out, errors.Join(before, err)
}

// bytesOf is the memory of s, which the garbage collector keeps while the bytes
// are referred to.
func bytesOf[T ort.TensorData](s []T) []byte {
	if len(s) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
