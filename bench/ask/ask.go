// Package ask renders what targets are asked.
package ask

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"sluice.dev/bench"
)

// Post is an HTTP/1.1 request on the wire. Each header is "Name: value".
func Post(host, path string, headers []string, body []byte) []byte {
	return render("POST", host, path, headers, body)
}

// Get is one without a body.
func Get(host, path string, headers []string) []byte { return render("GET", host, path, headers, nil) }

func render(method, host, path string, headers []string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", method, path, host, len(body))
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Bearer is the header of a key or token.
func Bearer(key string) string { return "Authorization: Bearer " + key }

// Infer is where the Open Inference Protocol has an endpoint.
func Infer(endpoint string) string { return "/v2/models/" + endpoint + "/infer" }

// Row is one row of FP32 for an endpoint's only input.
type Row struct {
	Endpoint, Input string
	Width           int
	Key             string // or token; empty for none
	Nth             int    // rows of another number, below 17, are others
}

func (r *Row) headers(more ...string) []string {
	if r.Key != "" {
		more = append(more, Bearer(r.Key))
	}
	return more
}

// JSON asks in JSON.
func (r *Row) JSON() bench.Item {
	values := make([]int, r.Width)
	for i := range values {
		values[i] = r.value(i)
	}
	data, _ := json.Marshal(values) // of integers: cannot fail
	body := fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","data":%s}]}`, r.Input, r.Width, data)
	return bench.Item{Name: r.Endpoint + ", JSON", Wire: Post("bench", Infer(r.Endpoint), r.headers("Content-Type: application/json"), body)}
}

// Raw asks with raw tensors, and for such as the answer.
func (r *Row) Raw() bench.Item {
	row := make([]byte, 0, 4*r.Width)
	for i := range r.Width {
		row = binary.LittleEndian.AppendUint32(row, math.Float32bits(float32(r.value(i))))
	}
	head := fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, r.Input, r.Width, len(row))
	return bench.Item{Name: r.Endpoint + ", binary", Wire: Post("bench", Infer(r.Endpoint), r.headers(HeadLength(len(head))), append(head, row...))}
}

func (r *Row) value(i int) int { return (i*7 + r.Nth) % 17 }

// HeadLength is the header that says how much JSON comes before raw tensors.
func HeadLength(n int) string { return "Inference-Header-Content-Length: " + strconv.Itoa(n) }

// Same takes only body, which it keeps.
func Same(body []byte) func(*bench.Answer) error {
	return func(a *bench.Answer) error {
		if !bytes.Equal(a.Body, body) {
			return fmt.Errorf("got %.200q, want %.200q", a.Body, body)
		}
		return nil
	}
}
