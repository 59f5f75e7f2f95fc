package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// watched is an upstream whose offers come through a channel.
func watched(t *testing.T, c Config) (*Upstream, chan []gateway.Offered) {
	t.Helper()
	offers := make(chan []gateway.Offered, 1000)
	c.Endpoint, c.Version, c.OnOffers = "digits", "old", func(o []gateway.Offered) { offers <- o }
	c.Health.Period, c.Health.Timeout = 20*time.Millisecond, forever
	u, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u, offers
}

// until waits for offers that are ok.
func until(t *testing.T, offers chan []gateway.Offered, ok func([]gateway.Offered) bool) []gateway.Offered {
	t.Helper()
	for {
		select {
		case o := <-offers:
			if ok(o) {
				return o
			}
		case <-time.After(forever):
			t.Fatal("the offers never come")
		}
	}
}

func many(n int) func([]gateway.Offered) bool {
	return func(o []gateway.Offered) bool { return len(o) == n }
}

// flag answers GET with 200 while it is set.
type flag struct {
	atomic.Bool
	paths chan string
}

func (f *flag) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case f.paths <- r.URL.Path:
	default:
	}
	switch {
	case !f.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/v2/models/m":
		fmt.Fprint(w, `{"name":"m","platform":"p","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],"outputs":[]}`)
	}
}

func TestServersThatAnswerAreOffered(t *testing.T) {
	one, two := &flag{paths: make(chan string, 1)}, &flag{}
	one.Store(true)
	a, b := httptest.NewServer(one), httptest.NewServer(two)
	defer a.Close()
	defer b.Close()
	u, offers := watched(t, Config{HTTP: &HTTP{URLs: []string{a.URL, b.URL}, Protocol: AzureML}})
	ctx, cancel := context.WithTimeout(context.Background(), forever)
	defer cancel()
	u.Probed(ctx)
	o := until(t, offers, many(1))[0].Offer
	if o.Endpoint != "digits" || o.Version != "old" || o.Window != 1 || o.Platform != "azureml" || len(o.Signature.Inputs) != 0 {
		t.Errorf("offered %+v", o)
	}
	if path := <-one.paths; path != "/" {
		t.Errorf("probed at %s", path)
	}
	two.Store(true)
	until(t, offers, many(2))
	one.Store(false)
	until(t, offers, many(1))
	b.Close()
	until(t, offers, many(0))
}

func TestTheSignatureIsWhatTheServerSays(t *testing.T) {
	f := &flag{paths: make(chan string, 1)}
	f.Store(true)
	s := httptest.NewServer(f)
	defer s.Close()
	_, offers := watched(t, Config{HTTP: &HTTP{URLs: []string{s.URL}, Protocol: OIP, Model: "m"}})
	o := until(t, offers, many(1))[0].Offer
	if o.Window != 64 || o.Platform != "p" || len(o.Signature.Inputs) != 1 || o.Signature.Inputs[0].Name != "x" || !o.Signature.Inputs[0].Accepts([]int64{7, 2}) {
		t.Errorf("offered %+v", o)
	}
	if path := <-f.paths; path != "/v2/models/m/ready" {
		t.Errorf("probed at %s", path)
	}
}

// A request that meets nobody ends the offer at once, whatever the last probe said,
// and the server gets requests again as soon as it is there.
func TestARequestThatMeetsNobodyEndsTheOffer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flag{}
	f.Store(true)
	address := l.Addr().String()
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	s.Start()
	_, offers := watched(t, Config{HTTP: &HTTP{URLs: []string{"http://" + address}}, Health: Health{Failures: 1 << 30}})
	server := until(t, offers, many(1))[0].Scorer
	s.Close()
	r := newAsker().ask(server, scorer.AML, "{}", forever)
	if want(t, r, scorer.Unavailable, ""); !r.NotStarted {
		t.Error("it counts as started")
	}
	until(t, offers, many(0))
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	s = &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	s.Start()
	defer s.Close()
	server = until(t, offers, many(1))[0].Scorer
	want(t, newAsker().ask(server, scorer.AML, "{}", forever), scorer.OK, "")
}

// Azure ML's containers do one thing at a time: one that computes cannot answer a
// probe, and is not dead.
func TestAContainerThatComputesIsNotProbedToDeath(t *testing.T) {
	hold, asked := make(chan struct{}), make(chan struct{})
	turn := make(chan struct{}, 1)
	s := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		if r.Method == http.MethodPost {
			close(asked)
			<-hold
		}
	})
	h := open(t, AzureML, s.URL)
	answered := make(chan *scorer.Response, 1)
	go func() { answered <- newAsker().ask(h, scorer.AML, "{}", forever) }()
	<-asked
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := h.probe(ctx); err != nil {
		t.Errorf("a busy container: %v", err)
	}
	close(hold)
	want(t, <-answered, scorer.OK, "")
	if err := h.probe(ctx); err != nil { // it has answered: it is not asked
		t.Errorf("a container that has just answered: %v", err)
	}
	if err := h.probe(ctx); err == nil {
		t.Error("a probe that took too long is good")
	}
}

func TestHTTPSWithCertificatesOnBothSides(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		path := filepath.Join(dir, name)
		var text strings.Builder
		for _, b := range blocks {
			if err := pem.Encode(&text, b); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	own, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.PeerCertificates))
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = quiet
	s.StartTLS()
	defer s.Close()
	ca := write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ours := &TLS{CAFile: ca, CertFile: write("own.pem", &pem.Block{Type: "CERTIFICATE", Bytes: own}), KeyFile: write("own.key", &pem.Block{Type: "PRIVATE KEY", Bytes: private}), ServerName: "example.com"}
	f := func(tls *TLS, status scorer.Status, body string) {
		t.Helper()
		h := open(t, AzureML, s.URL, func(c *Config) { c.HTTP.TLS = tls })
		a := newAsker()
		for range 2 {
			want(t, a.ask(h, scorer.AML, "{}", forever), status, body)
		}
		if err := h.probe(context.Background()); (err == nil) != (status == scorer.OK) {
			t.Errorf("probe: %v", err)
		}
	}
	f(ours, scorer.OK, "1")
	f(nil, scorer.Unavailable, "does not take connections")
	other := *ours
	other.ServerName = "other.example"
	f(&other, scorer.Unavailable, "does not take connections")
	for _, bad := range []*TLS{{CAFile: filepath.Join(dir, "none")}, {CAFile: ours.KeyFile}, {CertFile: ca, KeyFile: ca}} {
		if _, err := Open(Config{HTTP: &HTTP{URLs: []string{s.URL}, TLS: bad}}); err == nil {
			t.Errorf("opened with %+v", bad)
		}
	}
}
