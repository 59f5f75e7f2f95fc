package httpapi

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// certificate is one for 127.0.0.1 that signs itself, and a pool that trusts it.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// transports are ways to talk to a server of c: in plain, and encrypted. Each dial
// is a client of the one server of its transport.
func transports(t testing.TB, c Config) map[string]func() (net.Conn, *Server) {
	t.Helper()
	pair, trust := certificate(t)
	plainAt, plain := serve(t, c)
	c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secureAt, secure := serve(t, c)
	return map[string]func() (net.Conn, *Server){
		"plain": func() (net.Conn, *Server) { return connect(t, plainAt), plain },
		"TLS": func() (net.Conn, *Server) {
			c := tls.Client(connect(t, secureAt), &tls.Config{RootCAs: trust, ServerName: "127.0.0.1"})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			return c, secure
		},
	}
}

// connect dials; the connection ends with the test, or when it lasts forever.
func connect(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(forever))
	return c
}

// answer reads one.
func answer(t testing.TB, r *bufio.Reader) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// phased counts a server's connections in a phase.
func phased(s *Server, p phase) (n int) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for _, c := range s.watch.conns {
		if c.phase() == p {
			n++
		}
	}
	return n
}
