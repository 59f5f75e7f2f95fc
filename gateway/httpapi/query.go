package httpapi

import (
	"encoding/json"

	"github.com/valyala/fasthttp"

	"sluice.dev/scorer/codec"
)

// queryBody makes the body of an Azure ML request of a GET's query, as Azure ML's
// server does: each parameter is a name of a JSON object; its value is JSON where it
// can be read so, else text; a name that comes several times has a list.
func queryBody(q *fasthttp.Args) []byte {
	values := map[string][][]byte{} // bytes are the query's
	var names []string
	for name, v := range q.All() {
		if values[string(name)] == nil {
			names = append(names, string(name))
		}
		values[string(name)] = append(values[string(name)], v)
	}
	body := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(codec.AppendString(body, name), ':')
		body = appendValues(body, values[name])
	}
	return append(body, '}')
}

func appendValues(dst []byte, values [][]byte) []byte {
	if len(values) > 1 {
		dst = append(dst, '[')
	}
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if json.Valid(v) {
			dst = append(dst, v...)
		} else {
			dst = codec.AppendString(dst, string(v))
		}
	}
	if len(values) > 1 {
		dst = append(dst, ']')
	}
	return dst
}
