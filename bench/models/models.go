// Package models fetches real models for tests and benchmarks: from the wheels
// of the Python packages that ship them, pinned and verified, into the user's
// cache.
package models

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sluice.dev/accel/ort/library/wheel"
)

// Model names a model.
type Model string

const (
	// Magika tells what type a file is: "bytes" INT32 [N,2048], the first and the
	// last 1,024 bytes, padded with 256; "target_label" FP32 [N,214], the
	// probabilities of MagikaLabels in their order.
	Magika Model = "magika.onnx"
	// MagikaLabels is a JSON object; target_labels_space lists the labels.
	MagikaLabels Model = "magika.json"
	// Direction tells whether a picture of a line of text is upside down: "x" FP32
	// [N,3,H,W], made for 48 x 192, to FP32 [N,2], a softmax.
	Direction Model = "direction.onnx"
	// Recogniser reads a line of text: "x" FP32 [N,3,H,W], made for H 48, to FP32 [N,W/8,6625],
	// softmaxes over the characters.
	Recogniser Model = "recogniser.onnx"
	// Voice tells whether somebody speaks: "input" FP32 [N,576], "state" FP32
	// [2,N,128] and the scalar "sr" INT64, 16000; "output" FP32 [N,1] and the
	// next state, "stateN".
	Voice Model = "voice.onnx"
)

var (
	magika = wheel.Wheel{
		Package: "magika==1.0.3", File: "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl", Platform: "manylinux_2_28_x86_64",
		Sum: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
	}
	rapidocr = wheel.Wheel{
		Package: "rapidocr-onnxruntime==1.4.4", File: "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
		Sum: "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
	}
	silero = wheel.Wheel{
		Package: "silero-vad==6.2.3", File: "silero_vad-6.2.3-py3-none-any.whl",
		Sum: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
	}
)

// source is where a model comes from.
type source struct {
	model  Model
	wheel  *wheel.Wheel
	member wheel.Member
}

var sources = []source{
	{Magika, &magika, wheel.Member{Name: "magika/models/standard_v3_3/model.onnx", Sum: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"}},
	{MagikaLabels, &magika, wheel.Member{Name: "magika/models/standard_v3_3/config.min.json", Sum: "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"}},
	{Direction, &rapidocr, wheel.Member{Name: "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", Sum: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"}},
	{Recogniser, &rapidocr, wheel.Member{Name: "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", Sum: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"}},
	{Voice, &silero, wheel.Member{Name: "silero_vad/data/silero_vad_16k_op15.onnx", Sum: "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"}},
}

func folder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	return filepath.Join(cache, "sluice", "models"), nil
}

// Path is where a model is, once Fetch has run.
func Path(m Model) (string, error) {
	dir, err := folder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, string(m))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the model %s is not there; run 'make models'", m)
	}
	return path, nil
}

// Fetch makes sure that every model is there; what is there and right is not
// fetched again. Progress goes to say.
func Fetch(ctx context.Context, say io.Writer) error {
	dir, err := folder()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "sluice-models-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(temp)
	fetched := map[*wheel.Wheel]string{}
	for i := range sources {
		s := &sources[i]
		path := filepath.Join(dir, string(s.model))
		if s.member.Is(path) {
			continue
		}
		if fetched[s.wheel] == "" {
			fmt.Fprintf(say, "Fetching test models: %s …\n", s.wheel.Package)
			if fetched[s.wheel], err = wheel.Fetch(ctx, s.wheel, temp, say); err != nil {
				return fmt.Errorf("fetch %s: %w", s.wheel.Package, err)
			}
		}
		if err := wheel.Extract(s.wheel, fetched[s.wheel], &s.member, path); err != nil {
			return err
		}
	}
	return nil
}
