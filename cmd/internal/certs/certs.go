// Package certs keeps a server's certificate as its files are.
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

// Files are where a server's certificate is, in PEM. The zero value is none.
type Files struct {
	Cert     string // its chain
	Key      string
	ClientCA string // who signs clients' certificates; empty asks for none
}

// Certs is a certificate that changes with its files.
type Certs struct {
	files   Files
	current atomic.Pointer[tls.Config]
}

// Load reads the files. Nil and no error: there are none.
func Load(f Files) (*Certs, error) {
	if f == (Files{}) {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, errors.New("TLS needs both --tls-cert and --tls-key")
	}
	c := &Certs{files: f}
	return c, c.reload()
}

func (c *Certs) reload() error {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if c.files.ClientCA != "" {
		pem, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return fmt.Errorf("load the clients' authority: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate of a clients' authority", c.files.ClientCA)
		}
	}
	c.current.Store(config)
	return nil
}

// Config is for a listener: every connection gets the certificate of its time.
func (c *Certs) Config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return c.current.Load(), nil
	}}
}

// Watch reads the files again whenever they change, until ctx ends. Files that
// cannot be used change nothing.
func (c *Certs) Watch(ctx context.Context, log *slog.Logger) {
	paths := []string{c.files.Cert, c.files.Key, c.files.ClientCA}
	watch.Files(ctx, func() []string { return paths }, func() {
		if err := c.reload(); err != nil {
			log.Error("certificate not loaded; the one before is served", "error", err)
			return
		}
		log.Info("certificate loaded", "file", c.files.Cert)
	})
}
