package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	jose "github.com/golang-jwt/jwt/v5"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/local"
	"sluice.dev/bench/stats"
	"sluice.dev/deploy/api"
)

// jwt compares what a token costs against a key, and against none, and the same of
// HAProxy, which verifies a token's signature for each request.
func jwt(s *stage) error {
	asked, err := s.tokens()
	if err != nil {
		return err
	}
	peers, err := s.haproxies()
	if err != nil {
		return err
	}
	for i := range peers {
		peers[i].base = len(asked)
	}
	asked = append(asked, peers...)
	found := make([]series, len(asked))
	for range *rounds {
		for i, a := range asked {
			if err := found[i].add(s.closed(a.address, busy, a.pid, a.item)); err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
		}
	}
	for i, a := range asked {
		r, what := stats.Ratio(found[i].cpu, found[a.base].cpu), "CPU per request, "+a.name
		measured := fmt.Sprintf("%.2f µs, %.3f times %s (95%%: %.3f to %.3f), %d errors", stats.Median(found[i].cpu), r.Mid, asked[a.base].name, r.Low, r.High, found[i].errors)
		if a.goal > 0 {
			s.decide(what, a.goal, r, "%s", measured)
		} else {
			s.tell(what, "%s", measured)
		}
	}
	return nil
}

// asked is one way to ask.
type asked struct {
	name, address string
	pid           int // whose CPU time counts
	item          bench.Item
	base          int     // index of what it is compared with, the first of its server
	goal          float64 // most times as much; 0 for none
}

// tokens are endpoints of one server with a key, with tokens, and with neither.
func (s *stage) tokens() ([]asked, error) {
	model, err := digits()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for name, auth := range map[string]string{"open": "{mode: none}", "keyed": "{mode: key, keys: {primary: {env: BENCH_KEY}}}", "tokens": "{mode: token}"} {
		fmt.Fprintf(&text, "---\napiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: %s}\nspec:\n  auth: %s\n  versions:\n    - {name: only, model: %s, accelerator: \"null\"}\n", name, auth, model)
	}
	file := filepath.Join(s.dir, "auth.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	server, err := s.Sluice(s.dir, file)
	if err != nil {
		return nil, err
	}
	admin, err := os.ReadFile(filepath.Join(s.dir, "admin-key"))
	if err != nil {
		return nil, err
	}
	token, err := api.NewClient("http://"+server.Management, strings.TrimSpace(string(admin))).Token(s.ctx, "tokens", api.TokenRequest{Subject: "bench"})
	if err != nil {
		return nil, err
	}
	var list []asked
	for _, e := range []struct {
		endpoint, name, key string
		goal                float64
	}{{"keyed", "sluice serve, null, a key", local.Key, 0}, {"tokens", "sluice serve, null, its own token (EdDSA)", token.Access, 1.05}, {"open", "sluice serve, null, no check", "", 0}} {
		row := ask.Row{Endpoint: e.endpoint, Input: "input", Width: 64, Key: e.key}
		item, err := s.taught(server.Address, row.Raw())
		if err != nil {
			return nil, err
		}
		list = append(list, asked{e.name, server.Address, server.Process.PID(), item, 0, e.goal})
	}
	return list, nil
}

// haproxies are frontends of one HAProxy without a check and with one for each
// algorithm, before a server that does nothing; none where HAProxy is not installed.
func (s *stage) haproxies() ([]asked, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		s.tell("HAProxy", "not measured: it is not installed (apt-get install haproxy)")
		return nil, nil
	}
	checks, err := s.checks()
	if err != nil {
		return nil, err
	}
	upstream, err := s.echo()
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "%sbackend out\n  server s %s\n", local.HAProxy, upstream)
	var list []asked
	for i, c := range checks {
		at := local.Free()
		fmt.Fprintf(&config, "frontend f%d\n  bind %s\n%s  default_backend out\n", i, at, c.rules)
		var headers []string
		if c.token != "" {
			headers = append(headers, ask.Bearer(c.token))
		}
		item := bench.Item{Name: c.name, Wire: ask.Post("bench", "/", headers, make([]byte, 256)), Check: ask.Same([]byte("fine"))}
		list = append(list, asked{name: "HAProxy, " + c.name, address: at, item: item})
	}
	file := filepath.Join(s.dir, "haproxy.conf")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := s.Start(path, "-f", file)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].pid = p.PID()
		if err := p.Listening(list[i].address); err != nil {
			return nil, err
		}
		if err := s.rejects(list[i]); i > 0 && err != nil {
			return nil, err
		}
	}
	return list, nil
}

// rejects fails where a token with another signature is let through: then nothing is
// checked, and there is nothing to measure.
func (s *stage) rejects(a asked) error {
	if _, err := load.Right(s.ctx, client.HTTP(a.address, nil), &a.item); err != nil {
		return err
	}
	forged := bench.Item{Wire: bytes.Replace(a.item.Wire, []byte("\r\n\r\n"), []byte("A\r\n\r\n"), 1)}
	answer, err := load.Once(s.ctx, client.HTTP(a.address, nil), &forged)
	if err == nil && answer.Failure == "" {
		err = fmt.Errorf("%s: a forged token is let through", a.name)
	}
	return err
}

// check is what a frontend of HAProxy does with a token.
type check struct{ name, rules, token string }

// checks make a key and a token for each algorithm.
func (s *stage) checks() ([]check, error) {
	list := []check{{name: "no check"}}
	secret := "a-secret-of-thirty-two-bytes-or-more"
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	for _, k := range []struct {
		method jose.SigningMethod
		sign   any
		public crypto.PublicKey
	}{{jose.SigningMethodHS256, []byte(secret), nil}, {jose.SigningMethodRS256, rsaKey, &rsaKey.PublicKey}, {jose.SigningMethodES256, ecKey, &ecKey.PublicKey}} {
		token, err := jose.NewWithClaims(k.method, jose.RegisteredClaims{Issuer: "bench", Subject: "bench", ExpiresAt: jose.NewNumericDate(time.Now().Add(time.Hour))}).SignedString(k.sign)
		if err != nil {
			return nil, err
		}
		verifier := secret
		if k.public != nil {
			if verifier, err = s.public(k.method.Alg(), k.public); err != nil {
				return nil, err
			}
		}
		rules := fmt.Sprintf("  http-request set-var(txn.token) http_auth_bearer\n  http-request deny deny_status 401 unless { var(txn.token),jwt_verify(%q,%q) 1 }\n", k.method.Alg(), verifier)
		list = append(list, check{name: "jwt_verify " + k.method.Alg(), rules: rules, token: token})
	}
	return list, nil
}

// public writes a public key down and returns its path.
func (s *stage) public(name string, key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name+".pem")
	return path, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}
