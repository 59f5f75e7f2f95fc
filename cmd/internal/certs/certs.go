// Package certs keeps certificates as their files are.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"sluice.dev/cmd/internal/watch"
)

// Files are where a certificate, and the authority of its peers' certificates, are,
// in PEM. The zero value is none.
type Files struct {
	Cert      string // its chain
	Key       string
	Authority string // who signs the peers' certificates; empty asks clients for none, and takes servers' that this machine trusts
}

// Certs is a certificate that changes with its files.
type Certs struct {
	files   Files
	current atomic.Pointer[loaded]
}

type loaded struct {
	pair  []tls.Certificate // none, or one
	peers *x509.CertPool    // nil without an authority
}

// Load reads the files. A certificate goes with its key; a client may do without.
func Load(f Files) (*Certs, error) {
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("TLS needs a certificate and its key, both")
	}
	c := &Certs{files: f}
	return c, c.reload()
}

func (c *Certs) reload() error {
	var l loaded
	if c.files.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		l.pair = []tls.Certificate{pair}
	}
	if c.files.Authority != "" {
		pem, err := os.ReadFile(c.files.Authority)
		if err != nil {
			return fmt.Errorf("load the authority of certificates: %w", err)
		}
		l.peers = x509.NewCertPool()
		if !l.peers.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate of an authority", c.files.Authority)
		}
	}
	c.current.Store(&l)
	return nil
}

// Server is for a listener that speaks protocols (ALPN): every connection gets the
// certificate of its time. Clients must have one where there is an authority. A
// connection keeps its configuration, so those of one certificate share it.
func (c *Certs) Server(protocols ...string) (*tls.Config, error) {
	if c.files.Cert == "" {
		return nil, errors.New("to serve TLS needs a certificate and its key")
	}
	type made struct {
		of     *loaded
		config *tls.Config
	}
	var last atomic.Pointer[made]
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		l := c.current.Load()
		if m := last.Load(); m != nil && m.of == l {
			return m.config, nil
		}
		config := &tls.Config{Certificates: l.pair, MinVersion: tls.VersionTLS12, NextProtos: protocols}
		if l.peers != nil {
			config.ClientCAs, config.ClientAuth = l.peers, tls.RequireAndVerifyClientCert
		}
		last.Store(&made{l, config})
		return config, nil
	}}, nil
}

// Client is for one connection to a server called name. Nil certificates are none.
func (c *Certs) Client(name string, protocols ...string) *tls.Config {
	l := &loaded{}
	if c != nil {
		l = c.current.Load()
	}
	return &tls.Config{Certificates: l.pair, RootCAs: l.peers, ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// Watch reads the files again whenever they change, until ctx ends. Files that
// cannot be used change nothing.
func (c *Certs) Watch(ctx context.Context, log *slog.Logger) {
	paths := []string{c.files.Cert, c.files.Key, c.files.Authority}
	watch.Files(ctx, watch.Now(paths), func() []string { return paths }, func() {
		if err := c.reload(); err != nil {
			log.Error("certificate not loaded; the one before goes on", "error", err)
			return
		}
		log.Info("certificate loaded", "file", c.files.Cert)
	})
}
