package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"sluice.dev/cmd/internal/certs"
)

// server is something that serves a listener until it is shut down.
type server interface {
	Serve(net.Listener) error
}

// listen starts serving address in the background; an empty one is not served.
// One that begins with tls:// is, for connections with c's certificate, in the first
// of protocols. Errors after that go to failed.
func listen(address string, c *certs.Certs, s server, failed chan<- error, protocols ...string) (net.Addr, error) {
	if address == "" {
		return nil, nil
	}
	network, rest, secure := split(address)
	if network == "unix" {
		_ = os.Remove(rest) // what a process that was killed left behind
	}
	var config *tls.Config
	if secure {
		if c == nil {
			return nil, fmt.Errorf("listen at %s: to serve TLS needs a certificate and its key", address)
		}
		var err error
		if config, err = c.Server(protocols...); err != nil {
			return nil, fmt.Errorf("listen at %s: %w", address, err)
		}
	}
	l, err := net.Listen(network, rest)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	at := l.Addr()
	if secure {
		l = tls.NewListener(l, config)
	}
	go func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return at, nil
}

// split finds the network of an address: unix:///path, tls://host:port, or host:port.
func split(address string) (network, rest string, secure bool) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return "unix", path, false
	}
	rest, secure = strings.CutPrefix(address, "tls://")
	return "tcp", strings.TrimPrefix(rest, "tcp://"), secure
}
