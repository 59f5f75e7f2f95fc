package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates and writes them into a folder.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir(), key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// files are of a new certificate for name, whose own authority is of the peers.
func (a *authority) files(name string, peers *authority) Files {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+"-key.pem", "EC PRIVATE KEY", private)
	f := Files{Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+"-key.pem")}
	if peers != nil {
		f.Authority = filepath.Join(peers.dir, "ca.pem")
	}
	return f
}

func load(t *testing.T, f Files) *Certs {
	t.Helper()
	c, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve answers every connection with one byte.
func serve(t *testing.T, c *Certs, protocols ...string) (address string) {
	t.Helper()
	config, err := c.Server(protocols...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			n, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = n.Write([]byte{'!'})
			_ = n.Close()
		}
	}()
	return l.Addr().String()
}

// greet connects, and reads what the server says.
func greet(t *testing.T, address string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	n, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	_ = n.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(n, config)
	_, err = io.ReadAll(c) // the tickets come first
	return c.ConnectionState(), err
}

func TestOnlyTheServedProtocolIsSpoken(t *testing.T) {
	a := newAuthority(t, "a")
	address := serve(t, load(t, a.files("server", nil)), "http/1.1")
	client := load(t, Files{Authority: filepath.Join(a.dir, "ca.pem")})
	if s, err := greet(t, address, client.Client("server", "h2", "http/1.1")); err != nil || s.NegotiatedProtocol != "http/1.1" {
		t.Errorf("spoken is %q, %v", s.NegotiatedProtocol, err)
	}
	if _, err := greet(t, address, client.Client("server")); err != nil {
		t.Errorf("who names no protocol: %v", err)
	}
	if _, err := greet(t, address, client.Client("server", "h2")); err == nil {
		t.Error("h2 was taken")
	}
	if _, err := greet(t, address, client.Client("other")); err == nil {
		t.Error("the client took a certificate for another name")
	}
	old := client.Client("server")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := greet(t, address, old); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

func TestClientsNeedACertificateOfTheAuthority(t *testing.T) {
	servers, clients, others := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "others")
	address := serve(t, load(t, servers.files("server", clients)))
	for name, test := range map[string]struct {
		files Files
		ok    bool
	}{
		"none":    {Files{Authority: filepath.Join(servers.dir, "ca.pem")}, false},
		"good":    {clients.files("good", servers), true},
		"another": {others.files("another", servers), false},
	} {
		if _, err := greet(t, address, load(t, test.files).Client("server")); (err == nil) != test.ok {
			t.Errorf("with %s: %v", name, err)
		}
	}
}

// Files that change are used for the next connection, for sessions that are resumed
// too; files that cannot be used change nothing.
func TestChangedFilesAreUsed(t *testing.T) {
	servers, clients, others := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "others")
	c := load(t, servers.files("server", clients))
	address := serve(t, c)
	good, another := load(t, clients.files("good", servers)).Client("server"), load(t, others.files("another", servers)).Client("server")
	good.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var first *big.Int
	for i := range 3 {
		s, err := greet(t, address, good)
		if err != nil || s.DidResume != (i > 0) {
			t.Fatalf("connection %d: resumed %v, %v", i, s.DidResume, err)
		}
		first = s.PeerCertificates[0].SerialNumber
	}

	servers.write("server.pem", "CERTIFICATE", []byte("nonsense"))
	if err := c.reload(); err == nil {
		t.Error("nonsense was loaded")
	}
	if _, err := greet(t, address, good); err != nil {
		t.Errorf("after nonsense: %v", err)
	}

	servers.files("server", clients)
	if err := c.reload(); err != nil {
		t.Fatal(err)
	}
	fresh := good.Clone()
	fresh.ClientSessionCache = nil
	if s, err := greet(t, address, fresh); err != nil || s.PeerCertificates[0].SerialNumber.Cmp(first) == 0 {
		t.Errorf("the certificate before is still served, %v", err)
	}

	clients.write("ca.pem", "CERTIFICATE", others.cert.Raw)
	if err := c.reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := greet(t, address, another); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
	if s, err := greet(t, address, good); err == nil {
		t.Errorf("a client of the authority before was let in, resumed: %v", s.DidResume)
	}
}

func TestACertificateGoesWithItsKey(t *testing.T) {
	f := newAuthority(t, "a").files("server", nil)
	for _, bad := range []Files{{Cert: f.Cert}, {Key: f.Key}, {Cert: f.Key, Key: f.Cert}, {Cert: f.Cert, Key: f.Key, Authority: f.Key}, {Cert: "none", Key: f.Key}} {
		if _, err := Load(bad); err == nil {
			t.Errorf("%+v was loaded", bad)
		}
	}
	if _, err := load(t, Files{Authority: f.Cert}).Server(); err == nil {
		t.Error("a server without a certificate")
	}
}

// A connection keeps its configuration as long as it lasts, so there is one for all
// until the files change.
func TestConnectionsShareAConfiguration(t *testing.T) {
	a := newAuthority(t, "a")
	c := load(t, a.files("server", nil))
	server, err := c.Server("http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	next := func() *tls.Config {
		config, err := server.GetConfigForClient(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	first := next()
	if next() != first {
		t.Error("a second connection has another configuration")
	}
	a.files("server", nil)
	if err := c.reload(); err != nil {
		t.Fatal(err)
	}
	if next() == first {
		t.Error("a changed certificate is not served")
	}
}
