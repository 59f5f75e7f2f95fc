package httpapi

import (
	"strings"
	"testing"

	"sluice.dev/auth/apikey"
	"sluice.dev/gateway"
)

func TestPagesMayCallWhereTheEndpointSaysSo(t *testing.T) {
	address, server := serve(t, Config{})
	e := server.path.Snapshot().Endpoints()["e"]
	set := func(c *gateway.CORS) {
		server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: apikey.New(apikey.NewPepper(), "the-key", ""), Split: e.Split, Versions: e.Versions, CORS: c}}))
	}
	f := func(method, path string, status int, sent, want string) {
		t.Helper()
		var header, got []string
		for line := range strings.Lines(sent) {
			name, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
			header = append(header, name, v)
		}
		answered, _, h := asks(t, method, "http://"+address+path, "abc", header...)
		for _, name := range []string{"Allow-Origin", "Allow-Credentials", "Allow-Methods", "Allow-Headers", "Expose-Headers", "Max-Age"} {
			if v := h.Get("Access-Control-" + name); v != "" {
				got = append(got, name+": "+v)
			}
		}
		if v := h.Get("Vary"); v != "" {
			got = append(got, "Vary: "+v)
		}
		if text := strings.Join(got, "; "); answered != status || text != want {
			t.Errorf("%s %s from %q: %d %s; want %d %s", method, path, sent, answered, text, status, want)
		}
	}
	const score, swagger, infer = "/api/v1/service/e/score", "/api/v1/service/e/swagger.json", "/v2/models/e/infer"
	const page, other = "Origin: https://a.example\n", "Origin: https://b.example\n"
	const may, key = "Access-Control-Request-Method: POST\nAccess-Control-Request-Headers: authorization\n", "Authorization: Bearer the-key\n"

	set(&gateway.CORS{Origins: map[string]bool{"https://a.example": true}, Credentials: true, Sent: []byte("Authorization"), Read: []byte("X-Request-Id"), MaxAge: []byte("600")})
	const preflight = "Allow-Origin: https://a.example; Allow-Credentials: true; Allow-Methods: GET, POST; Allow-Headers: Authorization; Max-Age: 600; Vary: Origin"
	const shared = "Allow-Origin: https://a.example; Allow-Credentials: true; Expose-Headers: X-Request-Id; Vary: Origin"
	f("OPTIONS", score, 204, page+may, preflight)
	f("OPTIONS", infer, 204, page+may, strings.Replace(preflight, "GET, POST", "POST", 1))
	f("OPTIONS", swagger, 204, page+may, strings.Replace(preflight, "GET, POST", "GET, HEAD", 1))
	f("OPTIONS", score, 403, other+may, "Vary: Origin")
	f("OPTIONS", score, 403, "Origin: null\n"+may, "Vary: Origin")
	f("OPTIONS", score, 403, "Origin: https://a.example.evil\n"+may, "Vary: Origin")
	f("OPTIONS", score, 405, page, "") // no preflight
	f("OPTIONS", "/v2", 405, page+may, "")
	f("OPTIONS", "/api/v1/service/x/score", 405, page+may, "")
	f("POST", score, 200, page+key, shared)
	f("POST", score, 200, other+key, "Vary: Origin") // the browser keeps it from the page
	f("POST", score, 200, key, "Vary: Origin")
	f("POST", score, 401, page, shared) // the page can say so
	f("POST", infer, 401, page, shared)
	f("GET", swagger, 401, page, shared)

	set(&gateway.CORS{Sent: []byte("X-Api-Key"), Read: []byte("X-Request-Id"), MaxAge: []byte("1")})
	f("OPTIONS", score, 204, other+may, "Allow-Origin: *; Allow-Methods: GET, POST; Allow-Headers: X-Api-Key; Max-Age: 1")
	f("POST", score, 200, other+key, "Allow-Origin: *; Expose-Headers: X-Request-Id")
	f("POST", score, 200, key, "")

	set(nil)
	f("OPTIONS", score, 405, page+may, "")
	f("POST", score, 200, page+key, "")
}
