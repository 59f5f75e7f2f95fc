package httpapi

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/auth/issue"
	tokens "sluice.dev/auth/token"
	"sluice.dev/gateway"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// external is a verifier of another issuer's tokens, with one that it has made.
func external(b *testing.B, m jwt.SigningMethod, private crypto.Signer) (auth.Authenticator, string) {
	jwk := must(jwkset.NewJWKFromKey(private.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "one"}}))
	file := filepath.Join(b.TempDir(), "keys.json")
	set := must(json.Marshal(map[string]any{"keys": []any{jwk.Marshal()}}))
	if err := os.WriteFile(file, set, 0o600); err != nil {
		b.Fatal(err)
	}
	keys := tokens.OpenKeys(tokens.Source{File: file}, slog.New(slog.DiscardHandler))
	b.Cleanup(keys.Close)
	t := jwt.NewWithClaims(m, jwt.MapClaims{
		"iss": "https://login.example.com/0123456789abcdef0123456789abcdef/v2.0", "aud": "e", "sub": "0123456789abcdef0123456789abcdef",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "azp": "0123456789abcdef0123456789abcdef", "roles": []string{"score"},
	})
	t.Header["kid"] = "one"
	v := tokens.New(tokens.Config{Issuer: "https://login.example.com/0123456789abcdef0123456789abcdef/v2.0", Audience: "e", Keys: keys})
	return v, must(t.SignedString(private))
}

// caller sends one request again and again.
type caller struct {
	conn    net.Conn
	request []byte
	answer  []byte // room for one
}

// dial makes a caller of the endpoint e with a credential.
func dial(b *testing.B, address, credential string) *caller {
	const body = `{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9]}]}`
	c := &caller{conn: must(net.Dial("tcp", address))}
	b.Cleanup(func() { _ = c.conn.Close() })
	c.request = fmt.Appendf(nil, "POST /v2/models/e/infer HTTP/1.1\r\nHost: sluice\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", credential, len(body), body)
	must(c.conn.Write(c.request))
	first := make([]byte, 4096)
	n := must(c.conn.Read(first))
	if !bytes.HasPrefix(first, []byte("HTTP/1.1 200")) || !strings.HasSuffix(string(first[:n]), body) {
		b.Fatalf("%s", first[:n])
	}
	c.answer = make([]byte, n)
	return c
}

// run sends n requests and returns the CPU time that the process took.
func (c *caller) run(n int) time.Duration {
	before := cpu()
	for range n {
		must(c.conn.Write(c.request))
		must(io.ReadFull(c.conn, c.answer))
	}
	return cpu() - before
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a request with a token that is known costs more than one with a key: CPU
// time through the whole front, client included, in turns.
func BenchmarkTokenAgainstKey(b *testing.B) {
	house := issue.New([]byte("0123456789abcdef0123456789abcdef"))
	own := tokens.OpenKeys(tokens.Source{Own: house}, slog.New(slog.DiscardHandler))
	b.Cleanup(own.Close)
	made := must(house.Issue(issue.Request{Endpoint: "e", Subject: "admin", Scopes: []string{issue.Call, issue.Pin}, Life: time.Hour}))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	compare := func(name string, who auth.Authenticator, access string) {
		b.Run(name, func(b *testing.B) {
			key := apikey.Generate()
			with := map[auth.Authenticator]*caller{}
			keys := apikey.New(apikey.NewPepper(), key, "")
			for a, credential := range map[auth.Authenticator]string{keys: key, who: access} {
				address, server := serve(b, Config{})
				e := server.path.Snapshot().Endpoints()["e"]
				server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: a, Split: e.Split, Versions: e.Versions}}))
				with[a] = dial(b, address, credential)
			}
			var byKey, byToken time.Duration
			const turn = 500
			rounds := 0
			for b.Loop() {
				byKey += with[keys].run(turn)
				byToken += with[who].run(turn)
				rounds++
			}
			n := float64(rounds * turn)
			b.ReportMetric(float64(byKey)/n, "ns/key")
			b.ReportMetric(float64(byToken)/n, "ns/token")
			b.ReportMetric(float64(byToken)/float64(byKey), "token/key")
			b.ReportMetric(float64(len(access)), "bytes")
		})
	}
	compare("own", tokens.New(tokens.Config{Issuer: issue.Name, Audience: "e", Keys: own}), made.Access)
	who, access := external(b, jwt.SigningMethodEdDSA, ed)
	compare("EdDSA", who, access)
	who, access = external(b, jwt.SigningMethodRS256, must(rsa.GenerateKey(rand.Reader, 2048)))
	compare("RS256", who, access)
	who, access = external(b, jwt.SigningMethodES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	compare("ES256", who, access)
}
