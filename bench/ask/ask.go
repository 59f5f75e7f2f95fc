// Package ask renders what targets are asked.
package ask

import (
	"bytes"
	"fmt"
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

func (r *Row) inputs() Inputs {
	return Inputs{Tensors: []Tensor{{r.Input, "FP32", []int64{1, int64(r.Width)}}}, Nth: r.Nth}
}

// JSON asks in JSON.
func (r *Row) JSON() bench.Item {
	in := r.inputs()
	return bench.Item{Name: r.Endpoint + ", JSON", Wire: Post("bench", Infer(r.Endpoint), r.headers("Content-Type: application/json"), in.JSON())}
}

// Raw asks with raw tensors, and for such as the answer.
func (r *Row) Raw() bench.Item {
	in := r.inputs()
	head, body := in.Binary()
	return bench.Item{Name: r.Endpoint + ", binary", Wire: Post("bench", Infer(r.Endpoint), r.headers(HeadLength(head)), body)}
}

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
