package ask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"sluice.dev/bench"
)

const tolerance = 1e-4 // of numbers, relative, or absolute below 1

// Like takes answers that are want. Where both are JSON, numbers may differ as they
// do between batches, and the answer may have members that want has not.
func Like(want []byte) func(*bench.Answer) error {
	var wanted any
	isJSON := json.Unmarshal(want, &wanted) == nil
	return func(a *bench.Answer) error {
		if bytes.Equal(a.Body, want) {
			return nil
		}
		var got any
		if !isJSON || json.Unmarshal(a.Body, &got) != nil {
			return fmt.Errorf("got %.200q, want %.200q", a.Body, want)
		}
		return like("answer", got, wanted)
	}
}

func like(at string, got, want any) error {
	switch w := want.(type) {
	case float64:
		if g, ok := got.(float64); ok && math.Abs(g-w) <= tolerance*max(1, math.Abs(w)) {
			return nil
		}
		return differs(at, got, want)
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return differs(at, got, want)
		}
		for i := range w {
			if err := like(fmt.Sprintf("%s[%d]", at, i), g[i], w[i]); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return differs(at, got, want)
		}
		for name := range w {
			if err := like(at+"."+name, g[name], w[name]); err != nil {
				return err
			}
		}
		return nil
	}
	if got != want {
		return differs(at, got, want)
	}
	return nil
}

func differs(at string, got, want any) error {
	return fmt.Errorf("%s is %.100s, want %.100s", at, fmt.Sprint(got), fmt.Sprint(want))
}
