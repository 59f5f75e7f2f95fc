package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
)

// exchange is what a client sends, and how that must be taken. What is refused is
// answered once, with status, and the connection is closed: what the client sent
// behind it is not served. What is not refused is answered with status, and the
// next request is served, unless the exchange ends the connection.
type exchange struct {
	what, sent string
	status     int
	body       string // of a 200
	ends       bool
}

func (e *exchange) refused() bool {
	switch e.status {
	case 200, 404, 405:
		return false
	}
	return true
}

const (
	chunked = score + "Transfer-Encoding: chunked\r\n\r\n"
	three   = "Content-Length: 3\r\n\r\nabc"
	none    = "0\r\n\r\n"
	live    = `{"live":true}`
)

// ask is a request without a body.
func ask(method, target string) string { return method + " " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }

func old(request string) string { return strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1) }

// exchanges are the classes of request smuggling and of abuse of frames, and what
// looks like them and is clean.
// Source of the classes: RFC 9110 and 9112, and what was found in other servers.
func exchanges() (list []exchange) {
	add := func(status int, what, sent string) {
		list = append(list, exchange{what: what, sent: sent, status: status})
	}
	bad := func(what, sent string) { add(400, what, sent) }
	served := func(what, sent, body string) {
		list = append(list, exchange{what: what, sent: sent, status: 200, body: body})
	}
	last := func(what, sent, body string) {
		list = append(list, exchange{what: what, sent: sent, status: 200, body: body, ends: true})
	}
	lengths(bad, served, last)
	encodingsOf(bad, served)
	chunks(bad, served, add)
	lines(bad, served, add)
	requestLines(bad, served, last, add)
	hosts(bad, served, last)
	hops(served, last, add)
	return list
}

type adder = func(what, sent string)
type taker = func(what, sent, body string)

func lengths(bad adder, served, last taker) {
	for _, n := range []string{
		"4", "3, 3", "3, 4", "3,", ",3", "-3", "+3", "0x3", "3_0", "3 3", "3;", "3.0", "3e0", "\"3\"", "", " ", "３", "\v3",
		"9223372036854775807", "9223372036854775808", "18446744073709551616", "18446744073709551619", "000000000000000000003", "3\x00",
	} {
		if n != "4" {
			bad(fmt.Sprintf("the length %q", n), score+"Content-Length: "+n+"\r\n\r\nabc")
		}
		bad(fmt.Sprintf("the lengths 3 and %q", n), score+"Content-Length: 3\r\nContent-Length: "+n+"\r\n\r\nabcd")
	}
	bad("the same length twice", score+"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")
	bad("no length twice", score+"Content-Length: 0\r\nContent-Length: 0\r\n\r\n")
	bad("a length and chunks", score+"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"+none)
	bad("chunks and a length", score+"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"+none)
	bad("chunks and a length of nothing", score+"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"+none)
	bad("a length and chunks of a GET", strings.TrimSuffix(ask("GET", "/v2"), "\r\n")+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"+none)
	bad("space before the length's colon", score+"Content-Length : 3\r\n\r\nabc")
	bad("a tab before the length's colon", score+"Content-Length\t: 3\r\n\r\nabc")
	bad("a continued length", score+"Content-Length:\r\n 3\r\n\r\nabc")

	served("a length", score+three, "abc")
	served("a length in another case", score+"cOnTeNt-lEnGtH:\t3 \r\n\r\nabc", "abc")
	served("a length with zeros before it", score+"Content-Length: 003\r\n\r\nabc", "abc")
	served("nothing", score+"Content-Length: 0\r\n\r\n", "")
	served("no length", score+"\r\n", "")
	served("a header that only looks like a length", score+"Content_Length: 7\r\nX-Content-Length: 9\r\nContent-Lengths: 8\r\n"+three, "abc")
	for _, method := range []string{"GET", "HEAD"} {
		body := live
		if method == "HEAD" {
			body = ""
		}
		served("the body of a "+method, strings.TrimSuffix(ask(method, "/v2/health/live"), "\r\n")+three, body)
	}
	last("a length in HTTP/1.0", old(score)+three, "abc")
}

func encodingsOf(bad adder, served taker) {
	for _, e := range []string{
		"chunked, identity", "identity", "chunked, chunked", "gzip, chunked", "gzip", "xchunked", "chunkedx", "\"chunked\"", "chunked,", ",chunked", "\vchunked",
		"chunked\v", "\fchunked", "chunked;q=1", "chu nked", "", "cow", "chunked\x00", "\x00chunked", "chunKed\xc2\xa0", "\r\n chunked", "chunked\r\n\t, identity",
	} {
		bad(fmt.Sprintf("the encoding %q", e), score+"Transfer-Encoding: "+e+"\r\n\r\n"+none)
		bad(fmt.Sprintf("the encoding %q and a length", e), score+"Content-Length: 5\r\nTransfer-Encoding: "+e+"\r\n\r\n"+none)
	}
	bad("chunks twice", score+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"+none)
	bad("chunks, and identity", score+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"+none)
	bad("identity, and chunks", score+"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"+none)
	bad("chunks in HTTP/1.0", old(score)+"Transfer-Encoding: chunked\r\n\r\n"+none)
	bad("space before the encoding's colon", score+"Transfer-Encoding : chunked\r\n\r\n"+none)
	bad("space before the encoding", score+" Transfer-Encoding: chunked\r\n\r\n"+none)
	bad("the encoding behind a bare CR", score+"X: a\rTransfer-Encoding: chunked\r\n"+three)
	bad("the encoding behind a bare LF", score+"X: a\nTransfer-Encoding: chunked\r\n"+three)

	served("chunks", chunked+"1\r\na\r\n2\r\nbc\r\n"+none, "abc")
	served("chunks in another case", score+"transfer-ENCODING:\tCHUNKED \r\n\r\n3\r\nabc\r\n"+none, "abc")
	served("no chunk", chunked+none, "")
	served("the chunks of a GET", strings.TrimSuffix(ask("GET", "/v2/health/live"), "\r\n")+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"+none, live)
	served("a header that only looks like an encoding", score+"Transfer_Encoding: chunked\r\nTransfer-Encodings: chunked\r\n"+three, "abc")
}

func chunks(bad adder, served taker, add func(int, string, string)) {
	for _, size := range []string{
		"x", "-1", "+1", "0x1", "1_0", " 1", "1 ", "\t1", "1\t", "1 ;a", "1; a", "1;", "1;;a", "1;a;", "1;a=", "1;a=b=c", "1;=b", "1;a b", "", ";a", "1\x00", "1;a\x00b",
		"1;a\x01", "1;\"a\"", "1;a=\"b", "1;a=\"b\\\"\"", "1;a=\"b\r\nc\"", "1;a=\"b\nc\"", "1;a\nb", "1;a\rb", "1,1", "1.", "１", "10000000000000001", "ffffffffffffffff",
		"8000000000000000", "0000000000000001", "1;" + strings.Repeat("a", 300), "1;" + strings.Repeat("a", 64<<10),
	} {
		bad(fmt.Sprintf("the chunk size %.40q", size), chunked+size+"\r\na\r\n"+none)
	}
	bad("a chunk size ended by LF", chunked+"1\na\r\n"+none)
	bad("a chunk size ended by CR CR LF", chunked+"1\r\r\na\r\n"+none)
	bad("a chunk ended by LF", chunked+"1\r\na\n"+none)
	bad("a chunk ended by CR", chunked+"1\r\na\r"+none)
	bad("a chunk without an end", chunked+"1\r\na"+none)
	bad("a chunk longer than it says", chunked+"1\r\nabc\r\n"+none)
	bad("a chunk shorter than it says", chunked+"5\r\nabc\r\n"+none+next)
	bad("the last chunk ended by LF", chunked+"1\r\na\r\n0\n\r\n")
	bad("an end ended by LF", chunked+"1\r\na\r\n0\r\n\n")
	bad("no last chunk", chunked+"1\r\na\r\n"+next)
	bad("a negative last chunk", chunked+"-0\r\n\r\n")
	for _, trailer := range []string{
		"Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "Authorization: Bearer k", "Content-Type: a", "Expect: 100-continue",
		"X", "X : a", " X: a", ": a", "X: a\nY: b", "X: a\rY: b", "X: a\x00", "X\x00: a", "X: a\r\n b",
	} {
		bad(fmt.Sprintf("the trailer %.40q", trailer), chunked+"1\r\na\r\n0\r\n"+trailer+"\r\n\r\n")
	}
	add(431, "many trailer lines", chunked+none[:3]+strings.Repeat("X: a\r\n", 101)+"\r\n")
	add(431, "a large trailer", chunked+none[:3]+"X: "+strings.Repeat("a", 17<<10)+"\r\n\r\n")

	served("a size with zeros before it", chunked+"0000003\r\nabc\r\n000\r\n\r\n", "abc")
	served("a size in either case", chunked+"a\r\n0123456789\r\nA\r\n0123456789\r\n"+none, "01234567890123456789")
	served("extensions", chunked+"3;a;b=c;d=\"e f;\t\"\r\nabc\r\n0;x\r\n\r\n", "abc")
	served("a trailer", chunked+"3\r\nabc\r\n0\r\nX-Sum: 17\r\nX-Other:\r\n\r\n", "abc")
}

func lines(bad adder, served taker, add func(int, string, string)) {
	bad("lines ended by LF", strings.ReplaceAll(score+"Content-Length: 3\r\n\r\n", "\r\n", "\n")+"abc")
	bad("a request line ended by LF", strings.Replace(score, "\r\n", "\n", 1)+three)
	bad("a header line ended by LF", score+"X: a\n"+three)
	bad("a head ended by LF", score+"Content-Length: 3\r\n\nabc")
	bad("a head ended by CR", score+"Content-Length: 3\r\n\rabc\r\n")
	bad("a line ended by CR CR LF", score+"X: a\r\r\n"+three)
	bad("a request line ended by CR CR LF", strings.Replace(score, "\r\n", "\r\r\n", 1)+three)
	bad("an empty line of CR CR LF", score+"Content-Length: 0\r\n\r\r\n")
	bad("a bare CR in a value", score+"X: a\rb\r\n"+three)
	bad("a bare CR in a name", score+"X\rY: b\r\n"+three)
	bad("a continued line", score+"X: a\r\n b\r\n"+three)
	bad("a line continued by a tab", score+"X: a\r\n\tb\r\n"+three)
	bad("a line of spaces", score+"X: a\r\n  \r\n"+three)
	bad("a continued request line", "POST /api/v1/service/e/score HTTP/1.1\r\n Host: a\r\n"+three)
	for _, c := range []string{"\x00", "\x01", "\b", "\v", "\f", "\x1b", "\x7f"} {
		bad(fmt.Sprintf("%q in a value", c), score+"X: a"+c+"b\r\n"+three)
		bad(fmt.Sprintf("%q in a name", c), score+"X"+c+"Y: a\r\n"+three)
	}
	for _, name := range []string{"", "X Y", "X ", " X", "(X)", "X\"", "X,Y", "X/Y", "X;", "X@", "X[", "X{", "É", "\xff"} {
		bad(fmt.Sprintf("the name %q", name), score+name+": a\r\n"+three)
	}
	bad("a line without a colon", score+"X\r\n"+three)
	bad("three empty lines first", "\r\n\r\n\r\n"+score+three)
	bad("an empty line of LF first", "\n"+score+three)
	add(431, "a large header line", score+"X: "+strings.Repeat("a", 17<<10)+"\r\n"+three)
	add(431, "many header lines", score+strings.Repeat("X: a\r\n", 101)+three)
	add(431, "a large head of few lines", score+strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 20)+three)
	add(431, "a large request line", ask("GET", "/v2/"+strings.Repeat("a", 17<<10)))

	served("two empty lines first", "\r\n\r\n"+score+three, "abc")
	served("many header lines, and not too many", score+strings.Repeat("X: a\r\n", 98)+three, "abc")
	served("letters beyond ASCII in a value", score+"X: \xc3\xa9\xff\r\n"+three, "abc")
	served("an empty value, and a tab in another", score+"X:\r\nY: a\tb\r\n"+three, "abc")
}

func requestLines(bad adder, served, last taker, add func(int, string, string)) {
	for _, line := range []string{
		"GET /v2", "GET /v2 ", "GET", " GET /v2 HTTP/1.1", "GET  /v2 HTTP/1.1", "GET /v2  HTTP/1.1", "GET /v2 HTTP/1.1 ", "GET\t/v2\tHTTP/1.1", "GET /v2\tHTTP/1.1",
		"GET /v2 /x HTTP/1.1", "GET /v2 HTTP/0.9", "GET /v2 HTTP/1.2", "GET /v2 HTTP/1.01", "GET /v2 HTTP/1.10", "GET /v2 HTTP/01.1", "GET /v2 HTTP/2.0", "GET /v2 HTTP/2",
		"GET /v2 HTTP/3", "GET /v2 HTTP/9.9", "GET /v2 http/1.1", "GET /v2 HTTP/1,1", "GET /v2 HTTP/1.1x", "GET /v2 HTTPS/1.1", "GET /v2 ICAP/1.0", "GET /v2 HTTP /1.1", "GET /v2 HTTP/1.+1",
		"G(T /v2 HTTP/1.1", "GET\x00 /v2 HTTP/1.1", "G\xc3\x89T /v2 HTTP/1.1", "\"GET\" /v2 HTTP/1.1", "GET: /v2 HTTP/1.1", "CONNECT a:80 HTTP/1.1", "CONNECT /v2 HTTP/1.1",
		"GET a/v2 HTTP/1.1", "GET v2 HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "GET ? HTTP/1.1", "GET http://a/v2 HTTP/1.1", "GET http://b/v2 HTTP/1.1", "GET HTTP://a/v2 HTTP/1.1",
		"GET a:80 HTTP/1.1", "GET \\v2 HTTP/1.1", "GET file:///v2 HTTP/1.1", "PRI * HTTP/2.0",
	} {
		bad(fmt.Sprintf("the line %q", line), line+"\r\nHost: a\r\n\r\n")
	}
	for _, target := range []string{
		"/v2/../v2", "/..", "/.", "/./v2", "/v2/.", "/v2/..", "/../../v2", "/v2/%2e%2e/v2", "/v2/%2E./v2", "/v2/.%2e", "/%2e/v2", "/v2/..%2fv2", "/v2%2fhealth%2flive",
		"/v2/models/e%2Fversions%2fv", "/v2/models/e%5cinfer", "/v2\\health\\live", "/v2/..\\v2", "/v2/%", "/v2/%4", "/v2/%zz", "/v2/%u0041", "/v2/%00", "/v2/e%0d%0aX:%20a",
		"/v2/%0a", "/v2/%7f", "/v2/%c0%ae%c0%ae/v2", "/v2/%c0%af", "/v2/%ff", "/v2/%ed%a0%80", "/v2#a", "/v2/#", "/v2\x80", "/v2/\xc3\xa9", "/v2\x00", "/v2\x7f", "/v2\x0b", "/v2\x01",
	} {
		bad(fmt.Sprintf("the path %q", target), ask("GET", target))
	}
	for _, target := range []string{"//", "//v2", "/v2//health/live", "///", "/v2/health/live/", "/V2", "/v2/...", "/v2/.well-known", "/v2/;/health", "/v2/health;a=b/live", "/%76%33", "/v2/caf%C3%A9", "/@a/v2", "/*"} {
		add(404, fmt.Sprintf("the path %q", target), ask("GET", target))
	}
	for _, method := range []string{"TRACE", "DELETE", "PUT", "PATCH", "OPTIONS", "PROPFIND", "get", "Get", "GETT", "X-Y", "M-SEARCH", "!#$%&'*+-.^_`|~"} {
		add(405, "the method "+method, ask(method, "/v2"))
		add(405, "the body of "+method, strings.TrimSuffix(ask(method, "/v2"), "\r\n")+three)
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		add(405, method+" where POST belongs", ask(method, "/v2/models/e/infer"))
	}
	add(405, "POST where GET belongs", strings.Replace(score, "/api/v1/service/e/score", "/v2", 1)+three)
	bad("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	bad("a TLS hello inside", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
	bad("HTTP/0.9", "GET /v2\r\n")

	served("HEAD", ask("HEAD", "/v2/health/live"), "")
	served("a query that is anything", ask("GET", "/v2/health/live?a=/../%2f%zz\\&b=?*"), live)
	served("an encoded letter", ask("GET", "/v2/models/%65/ready"), `{"name":"e","ready":true}`)
	last("HTTP/1.0", old(ask("GET", "/v2/health/live")), live)
	last("HTTP/1.0 without a host", "GET /v2/health/live HTTP/1.0\r\n\r\n", live)
}

func hosts(bad adder, served, last taker) {
	get := func(lines string) string { return "GET /v2/health/live HTTP/1.1\r\n" + lines + "\r\n" }
	bad("no host", get(""))
	bad("two hosts", get("Host: a\r\nHost: b\r\n"))
	bad("the same host twice", get("Host: a\r\nHost: a\r\n"))
	for _, host := range []string{
		"", " ", "a, b", "a b", "u@a", "u:p@a", "a/b", "/", "http://a", "a:", "a:x", "a:80x", "a:-1", "a:123456", "a:80:80", ":80", "a?b", "a#b", "a\\b", "a\tb", "[::1", "::1]", "[]", "[a.b]x", "[g::1]", "a%00", "a\x00", "é", "\"a\"",
	} {
		if host != "a:" { // a port that is empty is none: RFC 3986
			bad(fmt.Sprintf("the host %q", host), get("Host: "+host+"\r\n"))
		}
	}
	for _, host := range []string{"a", "a.b-c_d~e", "A:8000", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000", "[::ffff:1.2.3.4]:1", "a:"} {
		served(fmt.Sprintf("the host %q", host), get("Host: "+host+"\r\n"), live)
	}
	last("two connections options", get("Host: a\r\nConnection: close, x-sluice-version\r\n"), live)
}

func hops(served, last taker, add func(int, string, string)) {
	for _, lines := range []string{
		"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n", "Proxy-Connection: close\r\n", "TE: trailers\r\n", "Connection: x-request-id, host, content-length\r\n", "Trailer: X\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "Upgrade: TLS/1.0\r\n", "X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /v3\r\n",
	} {
		served(fmt.Sprintf("with %.40q", lines), score+lines+three, "abc")
	}
	served("HTTP/1.0 that stays", old(score)+"Connection: keep-alive\r\n"+three, "abc")
	last("the end of the connection", score+"Connection: close\r\n"+three, "abc")
	last("the end of the connection, and another option", score+"Connection: keep-alive, close\r\n"+three, "abc")
	for _, e := range []string{"200-ok", "100-continue, x", "x", ""} {
		add(417, fmt.Sprintf("the expectation %q", e), score+"Expect: "+e+"\r\n"+three)
	}
	served("an expectation that is met without being waited for", score+"Expect: 100-Continue\r\n"+three, "abc")
}

// read reads the one answer that e must have, strictly, and checks it.
func (e *exchange) read(r *bufio.Reader) error {
	head := strings.HasPrefix(strings.TrimLeft(e.sent, "\r\n"), "HEAD ")
	status, header, body, err := readStrictly(r, head)
	if err == nil && status == 100 && strings.Contains(e.sent, "Expect:") {
		status, header, body, err = readStrictly(r, head)
	}
	switch {
	case err != nil:
		return err
	case status != e.status || status == 200 && body != e.body:
		return fmt.Errorf("answered %d %q; want %d %q", status, body, e.status, e.body)
	case e.refused() != (header.Get("Connection") == "close") && !e.ends:
		return fmt.Errorf("answered %d with Connection: %q", status, header.Get("Connection"))
	case status == 405 && header.Get("Allow") == "":
		return fmt.Errorf("answered 405 without Allow")
	case status >= 400 && !head && !strings.Contains(body, `"error":"`):
		return fmt.Errorf("answered %d %q, which does not say why", status, body)
	}
	return nil
}

// readStrictly reads an answer that leaves no doubt about its end.
func readStrictly(r *bufio.Reader, head bool) (status int, h textproto.MIMEHeader, body string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, nil, "", fmt.Errorf("no answer: %w", err)
	}
	version, rest, _ := strings.Cut(line, " ")
	code, reason, ok := strings.Cut(strings.TrimSuffix(rest, "\r\n"), " ")
	if status, err = strconv.Atoi(code); err != nil || version != "HTTP/1.1" || !ok || reason == "" || !strings.HasSuffix(line, "\r\n") {
		return 0, nil, "", fmt.Errorf("the status line is %q", line)
	}
	h = textproto.MIMEHeader{}
	for {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\r") != 1 {
			return 0, nil, "", fmt.Errorf("the line %q, %v", line, err)
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			break
		}
		name, v, ok := strings.Cut(line, ": ")
		if !ok || tokenIn([]byte(name)) != len(name) || len(h[name]) > 0 {
			return 0, nil, "", fmt.Errorf("the line %q", line)
		}
		h.Set(name, v)
	}
	if status == 100 {
		return status, h, "", nil
	}
	n, err := strconv.Atoi(h.Get("Content-Length"))
	if err != nil || n < 0 || h.Get("Transfer-Encoding") != "" {
		return 0, nil, "", fmt.Errorf("the answer's length is %q", h)
	}
	if head {
		return status, h, "", nil
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return status, h, string(text), err
}

// after checks what follows e's answer: the one to next, or the end.
func (e *exchange) after(r *bufio.Reader) error {
	if e.refused() || e.ends {
		if b, err := r.ReadByte(); err != io.EOF {
			return fmt.Errorf("then there is %q, %v; want the end", b, err)
		}
		return nil
	}
	if status, _, body, err := readStrictly(r, false); status != 200 || body != live {
		return fmt.Errorf("the next request got %d %q, %v", status, body, err)
	}
	return nil
}

// try sends e and another request in the given pieces, and checks what comes.
func (e *exchange) try(c net.Conn, pieces func(string) []string) error {
	defer c.Close()
	for _, p := range pieces(e.sent + next) {
		if _, err := io.WriteString(c, p); err != nil {
			break // what was answered tells
		}
	}
	r := bufio.NewReader(c)
	if err := e.read(r); err != nil {
		return err
	}
	return e.after(r)
}

func whole(s string) []string { return []string{s} }

func TestFramesAreServedOrRefused(t *testing.T) {
	for name, dial := range transports(t, Config{}) {
		for _, e := range exchanges() {
			c, _ := dial()
			if err := e.try(c, whole); err != nil {
				t.Errorf("%s, %s: %v", name, e.what, err)
			}
		}
	}
}

// The same, in pieces of one byte, and behind another request.
func TestFramesInPiecesAreServedOrRefused(t *testing.T) {
	single := func(s string) []string { return strings.Split(s, "") }
	second := func(s string) []string { return whole(s) }
	for name, dial := range transports(t, Config{}) {
		for _, e := range exchanges() {
			if len(e.sent) < 500 && !e.ends { // behind the last one nothing may be sent
				c, _ := dial()
				if err := e.try(c, single); err != nil {
					t.Errorf("%s, %s, in single bytes: %v", name, e.what, err)
				}
			}
			c, _ := dial()
			if _, err := io.WriteString(c, next); err != nil {
				t.Fatal(err)
			}
			if status, _, _, err := readStrictly(bufio.NewReader(c), false); status != 200 {
				t.Fatalf("%s: answered %d, %v", name, status, err)
			}
			if err := e.try(c, second); err != nil {
				t.Errorf("%s, %s, on a used connection: %v", name, e.what, err)
			}
		}
	}
}

// taken is how much of sent a framer lets through in pieces of n bytes, and why not
// more.
func taken(sent string, n int) (int, *unclean) {
	f := (&Server{config: Config{MaxHeader: 16 << 10, MaxFields: 100}}).framer()
	for i := 0; i < len(sent); i += n {
		if k, err := f.take([]byte(sent[i:min(i+n, len(sent))])); err != nil {
			return i + k, err
		}
	}
	return len(sent), nil
}

// How a request is cut into pieces does not change what it is.
func TestPiecesDoNotMatter(t *testing.T) {
	for _, e := range exchanges() {
		_, want := taken(e.sent, len(e.sent))
		for n := 1; n < min(len(e.sent), 400); n++ {
			if _, got := taken(e.sent, n); got != want {
				t.Errorf("%s in pieces of %d: %v; want %v", e.what, n, got, want)
			}
		}
	}
}

func TestAThousandPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	const n = 1000
	for name, dial := range transports(t, Config{}) {
		c, _ := dial()
		var sent bytes.Buffer
		for i := range n {
			body := fmt.Sprint("request ", i)
			if i%2 == 0 {
				fmt.Fprintf(&sent, "%sContent-Length: %d\r\n\r\n%s", score, len(body), body)
			} else {
				fmt.Fprintf(&sent, "%s%x\r\n%s\r\n0\r\n\r\n", chunked, len(body), body)
			}
		}
		go func() { _, _ = c.Write(sent.Bytes()) }() // as much as the server takes
		r := bufio.NewReader(c)
		for i := range n {
			if status, _, body, err := readStrictly(r, false); status != 200 || body != fmt.Sprint("request ", i) {
				t.Fatalf("%s, request %d: answered %d %q, %v", name, i, status, body, err)
			}
		}
	}
}

// Who is refused while it sends its body learns why, and is not listened to for long.
func TestARefusalReachesWhoIsStillSending(t *testing.T) {
	for name, dial := range transports(t, Config{MaxBody: 1 << 20}) {
		for what, head := range map[string]string{
			"too long":   fmt.Sprintf("%sContent-Length: %d\r\n\r\n", score, 8<<20),
			"not clean":  score + "X\r\n\r\n",
			"no host":    fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", 8<<20),
			"not chunks": chunked,
		} {
			c, _ := dial()
			if _, err := io.WriteString(c, head+strings.Repeat("x", 8<<20)); err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			r := bufio.NewReader(c)
			if status, _, body, err := readStrictly(r, false); status != 400 && status != 413 {
				t.Errorf("%s, %s: answered %d %q, %v", name, what, status, body, err)
			}
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("%s, %s: not closed: %v", name, what, err)
			}
			_ = c.Close()
		}
	}
}

// typical is a request as clients send it.
const typical = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n" +
	"Connection: keep-alive\r\nContent-Type: application/json\r\nAuthorization: Bearer 0123456789012345678901234567890123456789\r\n" +
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 300\r\n\r\n"

func TestFramesTakeNoMemory(t *testing.T) {
	sent := []byte(typical + strings.Repeat("a", 300))
	f := (&Server{config: Config{MaxHeader: 16 << 10, MaxFields: 100}}).framer()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := f.take(sent); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a request takes %v allocations; want 0", n)
	}
}

func BenchmarkFrame(b *testing.B) {
	sent := []byte(typical + strings.Repeat("a", 300))
	f := (&Server{config: Config{MaxHeader: 16 << 10, MaxFields: 100}}).framer()
	for b.Loop() {
		if _, err := f.take(sent); err != nil {
			b.Fatal(err)
		}
	}
}
