package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/cmd/internal/certs"
	"sluice.dev/scorer/model"
)

// operators is where a process that runs models tells operators about itself.
type operators struct {
	address string // HOST:PORT, with tls:// before it over TLS
	files   certs.Files
}

func (o *operators) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.address, "metrics", "127.0.0.1:8002", "address of the metrics of the server, or scorer, that runs the models, with tls:// before it where they are served over TLS")
	f.StringVar(&o.files.Authority, "metrics-ca", "", "PEM file of the authority that signed the certificate of a tls:// address; empty takes those that this machine trusts")
	f.StringVar(&o.files.Cert, "metrics-cert", "", "PEM file of a certificate and its chain, for a server that asks for one")
	f.StringVar(&o.files.Key, "metrics-key", "", "PEM file of that certificate's key")
}

// batching asks what is known of versions: all, or those that name says, an endpoint or an
// endpoint and a version.
func (o *operators) batching(ctx context.Context, name string) (list []model.Explained, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := o.get(ctx, "/batching")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var all []model.Explained
	if err := json.NewDecoder(io.LimitReader(body, 64<<20)).Decode(&all); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", o.address, err)
	}
	for _, e := range all {
		if name == "" || name == e.Endpoint || name == e.Endpoint+"/"+e.Version {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s serves no %s", o.address, cmp.Or(name, "model"))
	}
	return list, nil
}

// get asks for a path; the caller closes the answer.
func (o *operators) get(ctx context.Context, path string) (io.ReadCloser, error) {
	address, secure := strings.CutPrefix(o.address, "tls://")
	url, client := "http://"+address+path, http.DefaultClient
	if secure {
		c, err := certs.Load(o.files)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", o.address, err)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", o.address, err)
		}
		url = "https://" + address + path
		client = &http.Client{Transport: &http.Transport{TLSClientConfig: c.Client(host), DisableKeepAlives: true}}
	} else if o.files != (certs.Files{}) {
		return nil, fmt.Errorf("ask %s: --metrics-ca, --metrics-cert and --metrics-key are for --metrics tls://%s", address, address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", o.address, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w; %s", o.address, err, remedy(err))
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusBadRequest && !secure {
		return nil, fmt.Errorf("%s answered %s; if it is served over TLS, ask tls://%s", address, resp.Status, address)
	}
	return nil, fmt.Errorf("%s answered %s; is it the address of --metrics of a process that runs models?", o.address, resp.Status)
}

// remedy is what may help where no answer came.
func remedy(err error) string {
	var unknown *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.As(err, &unknown):
		return "name the authority of its certificate with --metrics-ca"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls"): // alerts that a connection brings have no type of their own
		return "it takes clients with a certificate only: --metrics-cert and --metrics-key"
	}
	return "is a server there, and is this the address of its --metrics?"
}
