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

// Row is one row of FP32 for an endpoint, always the same, in JSON and as raw
// tensors that are answered as such.
func Row(endpoint, input string, width int, key string) (text, raw bench.Item) {
	row, values := make([]byte, 0, 4*width), make([]int, width)
	for i := range width {
		values[i] = i * 7 % 17
		row = binary.LittleEndian.AppendUint32(row, math.Float32bits(float32(values[i])))
	}
	data, _ := json.Marshal(values) // of integers: cannot fail
	body := fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","data":%s}]}`, input, width, data)
	head := fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, input, width, len(row))
	text = bench.Item{Name: endpoint + ", JSON", Wire: Post("bench", Infer(endpoint), []string{Bearer(key), "Content-Type: application/json"}, body)}
	raw = bench.Item{Name: endpoint + ", binary", Wire: Post("bench", Infer(endpoint), []string{Bearer(key), HeadLength(len(head))}, append(head, row...))}
	return text, raw
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
