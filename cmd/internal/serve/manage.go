package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"sluice.dev/auth/apikey"
	"sluice.dev/auth/issue"
	"sluice.dev/deploy/api"
	"sluice.dev/deploy/spec"
)

// manage serves the management API, where one is wanted.
func (f *front) manage(failed chan<- error) (net.Addr, error) {
	if f.o.Management == "" {
		return nil, nil
	}
	s := secured{Server: &http.Server{
		Handler: api.New(services{f}, f.admin, f.o.Log), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(f.o.Log.Handler(), slog.LevelDebug),
	}}
	if f.certs != nil {
		var err error
		if s.tls, err = f.certs.Server("http/1.1"); err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
	}
	at, err := listen(f.o.Management, nil, s, failed)
	if err != nil {
		return nil, err
	}
	if tcp, ok := at.(*net.TCPAddr); ok && s.tls == nil && !tcp.IP.IsLoopback() {
		f.o.Log.Warn("keys and tokens cross the network in plain text; set --tls-cert, or --management to an address of this machine", "management", at.String())
	}
	f.managed, f.manager = f.scheme()+"://"+at.String(), s.Server
	return at, nil
}

// endManagement stops listening and answers what was asked.
func (f *front) endManagement(ctx context.Context) error {
	if f.manager == nil {
		return nil
	}
	return f.manager.Shutdown(ctx)
}

// managementKey is the key of the management API, which also Triton's management
// calls take; empty without that API.
func (f *front) managementKey() (string, error) {
	if f.o.Management == "" {
		return "", nil
	}
	key, fresh, err := f.state.Admin(apikey.Generate)
	if fresh && err == nil {
		fmt.Fprintf(f.o.Out, "\nA management key was generated. It is in %s.\n", f.state.AdminFile())
	}
	return key, err
}

// secured serves HTTPS where it has certificates.
type secured struct {
	*http.Server
	tls *tls.Config // nil serves plain HTTP
}

// Serve implements server.
func (s secured) Serve(l net.Listener) error {
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	return s.Server.Serve(l)
}

// services is what the management API manages.
type services struct{ f *front }

// endpoint is one that is served with a mode of authentication.
func (s services) endpoint(name string, mode spec.AuthMode) (*spec.Endpoint, error) {
	e := (*s.f.specs.Load())[name]
	switch {
	case e == nil:
		return nil, api.Errorf(http.StatusNotFound, "ServiceNotFound", "there is no endpoint of this name")
	case e.Spec.Auth.Mode != mode:
		return nil, api.Errorf(http.StatusConflict, "AuthModeMismatch", "endpoint %s has spec.auth.mode %s; this needs %s", name, e.Spec.Auth.Mode, mode)
	}
	return e, nil
}

func wire(texts [2]string) api.Keys { return api.Keys{Primary: texts[0], Secondary: texts[1]} }

// Keys implements api.Services.
func (s services) Keys(name string) (api.Keys, error) {
	e, err := s.endpoint(name, spec.AuthKey)
	if err != nil {
		return api.Keys{}, err
	}
	texts, err := s.f.keys.list(e)
	return wire(texts), err
}

// SetKey implements api.Services.
func (s services) SetKey(name string, which apikey.Which, key string) (api.Keys, error) {
	e, err := s.endpoint(name, spec.AuthKey)
	if err != nil {
		return api.Keys{}, err
	}
	if err := spec.CheckKey(key); err != nil {
		return api.Keys{}, api.Errorf(http.StatusBadRequest, "BadRequest", "%v", err)
	}
	var served *apikey.Keys
	if now := s.f.path.Snapshot().Endpoint([]byte(name)); now != nil {
		served, _ = now.Auth.(*apikey.Keys)
	}
	if served == nil {
		return api.Keys{}, api.Errorf(http.StatusConflict, "Conflict", "endpoint %s is just being changed; try again", name)
	}
	texts, err := s.f.keys.set(e, served, which, key)
	if errors.Is(err, errNotKept) {
		return api.Keys{}, api.Errorf(http.StatusConflict, "KeyFromSpecification",
			"the %v key comes from what spec.auth.keys.%[1]v names; replace it there, or leave that out, and the key is kept here", which)
	}
	return wire(texts), err
}

// Token implements api.Services.
func (s services) Token(name string, r api.TokenRequest) (t api.Token, id string, err error) {
	e, err := s.endpoint(name, spec.AuthToken)
	if err != nil {
		return t, "", err
	}
	own := e.Spec.Auth.Token
	if !own.Own() {
		return t, "", api.Errorf(http.StatusConflict, "ExternalIssuer", "tokens for endpoint %s are made by %s; get one there", name, own.Issuer)
	}
	life := own.MaxLifetimeSeconds
	if r.LifetimeSeconds != 0 {
		if life = r.LifetimeSeconds; life < 1 || life > own.MaxLifetimeSeconds {
			return t, "", api.Errorf(http.StatusBadRequest, "BadRequest", "lifetimeSeconds must be 1 to %d", own.MaxLifetimeSeconds)
		}
	}
	if r.Scopes == nil {
		r.Scopes = []string{issue.Call, issue.Pin}
	}
	made, err := s.f.compiler.Issuer().Issue(issue.Request{Endpoint: name, Subject: r.Subject, Scopes: r.Scopes, Life: time.Duration(life) * time.Second})
	if err != nil {
		return t, "", api.Errorf(http.StatusBadRequest, "BadRequest", "%v", err)
	}
	return api.Token{Access: made.Access, Type: "Bearer", RefreshAfter: made.Refresh.Unix(), Expires: made.Expires.Unix()}, made.ID, nil
}

// JWKS implements api.Services.
func (s services) JWKS() ([]byte, error) { return s.f.compiler.Issuer().JWKS() }
