package httpapi

import (
	"bufio"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

func TestAnswersSayWhatTheyBelongTo(t *testing.T) {
	address := listen(t, Config{})
	f := func(sent string, want ...string) {
		t.Helper()
		c := connect(t, address)
		if _, err := io.WriteString(c, score+sent+"Content-Length: 3\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		status, h, _, err := readStrictly(bufio.NewReader(c), false)
		if err != nil || status != 200 {
			t.Fatalf("answered %d, %v", status, err)
		}
		for _, w := range want {
			name, pattern, _ := strings.Cut(w, ": ")
			if !regexp.MustCompile("^(?:" + pattern + ")$").MatchString(h.Get(name)) {
				t.Errorf("with %q: %s is %q; want %s", sent, name, h.Get(name), pattern)
			}
		}
	}
	const id = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	f("", "X-Request-Id: "+id, "X-Ms-Request-Id: "+id, "X-Ms-Client-Request-Id: ", "Traceresponse: ", "Server-Timing: ", "Traceid: ",
		"Server: sluice", "X-Ms-Run-Function-Failed: False", `X-Ms-Run-Fn-Exec-Ms: \d+\.\d{3}`, "Azureml-Model-Deployment: v")
	f("X-Request-Id: r\r\nX-Ms-Request-Id: a\r\n", "X-Request-Id: r", "X-Ms-Request-Id: a", "X-Ms-Client-Request-Id: a")
	f("X-Ms-Client-Request-Id: b\r\nX-Ms-Request-Id: a\r\n", "X-Request-Id: "+id, "X-Ms-Request-Id: b", "X-Ms-Client-Request-Id: b")
	f("TraceId: mine\r\ntraceparent: "+trace+"\r\ntracestate: a=b\r\n", "Traceid: mine", "Traceresponse: "+trace)
	f("traceparent: none\r\nTraceId: "+strings.Repeat("x", 101)+"\r\n", "Traceresponse: ", "Traceid: ")
	const ms = `\d+\.\d{3}`
	f("x-sluice-timing: 1\r\n", "Server-Timing: queue;dur="+ms+", batch;dur="+ms+", device;dur="+ms+", total;dur="+ms)
	f("x-sluice-timing: 0\r\n", "Server-Timing: ")
}

// As Azure ML's server makes a body of a query.
func TestAQueryIsABody(t *testing.T) {
	f := func(query, want string) {
		t.Helper()
		var a fasthttp.Args
		a.Parse(query)
		if got := string(queryBody(&a)); got != want {
			t.Errorf("%q is %s; want %s", query, got, want)
		}
	}
	f("", `{}`)
	f("data=[[1,2]]", `{"data":[[1,2]]}`)
	f("data="+url.QueryEscape(`{"a": "b"}`)+"&x=1.5e3&y=true&z=null", `{"data":{"a": "b"},"x":1.5e3,"y":true,"z":null}`)
	f("a=text&b=&c=01&d=%22quoted%22&e=NaN&f=a%22b", `{"a":"text","b":"","c":"01","d":"quoted","e":"NaN","f":"a\"b"}`)
	f("a=1&b=x&a=two&a=[3]", `{"a":[1,"two",[3]],"b":"x"}`)
	f("a", `{"a":""}`)
	f("a+b=c+d&%C3%A9=%ff", "{\"a b\":\"c d\",\"é\":\"\ufffd\"}")

	address := listen(t, Config{})
	statuses, bodies, _ := talk(t, address, ask("GET", "/api/v1/service/e/score?data=[[1]]&x=y"), 1, silence)
	if len(statuses) != 1 || statuses[0] != 200 || bodies[0] != `{"data":[[1]],"x":"y"}` {
		t.Errorf("answered %v %q", statuses, bodies)
	}
}
