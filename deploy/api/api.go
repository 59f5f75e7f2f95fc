// Package api is the management API over HTTP: keys and tokens of the endpoints,
// for whoever has the management key. Routes, names and types are those of Azure
// ML's management API.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"sluice.dev/auth/apikey"
)

// Services is what the API manages. Errors that are an *Error reach the client as
// they are; of others it only learns that there was one. Any number of goroutines
// may call.
type Services interface {
	Keys(endpoint string) (Keys, error)
	// SetKey replaces one key. When it returns, the new key is good and the old one
	// is not; the other has been good all the time.
	SetKey(endpoint string, which apikey.Which, key string) (Keys, error)
	// Token makes a token for an endpoint; id is its claim jti.
	Token(endpoint string, r TokenRequest) (t Token, id string, err error)
	// JWKS is the public keys that tokens are signed with.
	JWKS() ([]byte, error)
}

// Keys are an endpoint's two keys; an empty one is none.
type Keys struct {
	Primary   string `json:"primaryKey"`
	Secondary string `json:"secondaryKey"`
}

// KeyRequest replaces a key; without a value by one that is generated.
type KeyRequest struct {
	Type  string `json:"keyType"` // Primary or Secondary, in any case
	Value string `json:"keyValue,omitempty"`
}

// TokenRequest is what a token is to say. The zero value means what keys may:
// call, and choose a version, for an hour or what the endpoint says.
type TokenRequest struct {
	Subject         string   `json:"subject,omitempty"`
	Scopes          []string `json:"scopes,omitempty"`
	LifetimeSeconds int      `json:"lifetimeSeconds,omitempty"`
}

// Token is one for an endpoint. Times are in seconds since 1970.
type Token struct {
	Access       string `json:"accessToken"`
	Type         string `json:"tokenType"`
	RefreshAfter int64  `json:"refreshAfter"`
	Expires      int64  `json:"expiryOn"`
}

// Error is what a client did wrong, or cannot have.
type Error struct {
	Code    string   `json:"code"`
	Status  int      `json:"statusCode"`
	Message string   `json:"message"`
	Details []Detail `json:"details"`
}

// Detail is more about an Error.
type Detail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Code: code, Status: status, Message: fmt.Sprintf(format, args...), Details: []Detail{}}
}

// Admin is who has the management key, in logs and as the subject of the tokens
// that it asks for.
const Admin = "admin"

// New makes the handler of the API. Every operation on keys and tokens is logged
// once, without what is secret.
func New(s Services, key string, log *slog.Logger) http.Handler {
	a := &server{services: s, admin: apikey.New(apikey.NewPepper(), key, ""), log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /services/{name}/listkeys", a.operation("list_keys", http.StatusOK, a.listKeys))
	mux.HandleFunc("POST /services/{name}/regenerateKeys", a.operation("set_key", http.StatusOK, a.setKey))
	mux.HandleFunc("POST /services/{name}/token", a.operation("make_token", http.StatusCreated, a.makeToken))
	mux.HandleFunc("GET /.well-known/jwks.json", a.jwks)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, Errorf(http.StatusNotFound, "NotFound", "there is no such route"))
	})
	return shortened(mux)
}

// scope is what Azure ML's clients put before a route.
var scope = regexp.MustCompile(`^(?i:/modelmanagement/v1\.0|/api)(?i:/subscriptions)/[^/]+(?i:/resourceGroups)/[^/]+` +
	`(?i:/providers/Microsoft\.MachineLearningServices/workspaces)/[^/]+`)

// shortened takes the scope off a request's path.
func shortened(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if found := scope.FindString(r.URL.Path); found != "" {
			short := *r
			short.URL = &url.URL{Path: r.URL.Path[len(found):]}
			r = &short
		}
		h.ServeHTTP(w, r)
	})
}

type server struct {
	services Services
	admin    *apikey.Keys
	log      *slog.Logger
}

// do is one operation on an endpoint; it may note more for the log.
type do func(endpoint string, body []byte, note func(...any)) (any, error)

// maxBody is the longest body of a request in bytes.
const maxBody = 64 << 10

// operation serves, and logs, one for those who may.
func (a *server) operation(name string, status int, do do) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		endpoint := r.PathValue("name")
		attrs := []any{"operation", name, "endpoint", clip(endpoint), "remote", r.RemoteAddr}
		note := func(more ...any) { attrs = append(attrs, more...) }
		answer, err := a.run(w, r, endpoint, do, note)
		if err != nil {
			e := public(err)
			fail(w, e)
			a.log.Warn("management operation refused", append(attrs, "status", e.Status, "error", err)...)
			return
		}
		a.log.Info("management operation", append(attrs, "status", status)...)
		reply(w, status, answer)
	}
}

func (a *server) run(w http.ResponseWriter, r *http.Request, endpoint string, do do, note func(...any)) (any, error) {
	if err := a.authorize(w, r); err != nil {
		return nil, err
	}
	note("who", Admin)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, "BadRequest", "the body cannot be read, or is longer than %d bytes", maxBody)
	}
	return do(endpoint, body, note)
}

// authorize lets in who has the management key.
func (a *server) authorize(w http.ResponseWriter, r *http.Request) error {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		key = ""
	}
	if _, err := a.admin.Authenticate([]byte(key)); err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="sluice management"`)
		e := Errorf(http.StatusUnauthorized, "Unauthorized", "no valid management key; send it as 'Authorization: Bearer KEY'")
		e.Details = append(e.Details, Detail{"EmptyOrInvalidToken", err.Error()})
		return e
	}
	return nil
}

func (a *server) listKeys(endpoint string, _ []byte, _ func(...any)) (any, error) {
	return a.services.Keys(endpoint)
}

func (a *server) setKey(endpoint string, body []byte, note func(...any)) (any, error) {
	var r KeyRequest
	if err := decode(body, &r); err != nil {
		return nil, err
	}
	var which apikey.Which
	switch {
	case strings.EqualFold(r.Type, "Primary"):
	case strings.EqualFold(r.Type, "Secondary"):
		which = apikey.Secondary
	default:
		return nil, Errorf(http.StatusBadRequest, "BadRequest", "keyType must be Primary or Secondary")
	}
	note("key", which.String(), "given", r.Value != "")
	if r.Value == "" {
		r.Value = apikey.Generate()
	}
	return a.services.SetKey(endpoint, which, r.Value)
}

func (a *server) makeToken(endpoint string, body []byte, note func(...any)) (any, error) {
	var r TokenRequest
	if len(body) > 0 {
		if err := decode(body, &r); err != nil {
			return nil, err
		}
	}
	if r.Subject == "" {
		r.Subject = Admin
	}
	t, id, err := a.services.Token(endpoint, r)
	if err == nil {
		note("subject", r.Subject, "token_id", id, "expires", time.Unix(t.Expires, 0).UTC())
	}
	return t, err
}

func (a *server) jwks(w http.ResponseWriter, _ *http.Request) {
	set, err := a.services.JWKS()
	if err != nil {
		a.log.Error("public keys", "error", err)
		fail(w, public(err))
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(set)
}

// decode reads a body that is one JSON object of known fields.
func decode(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("there is more after the object")
	}
	return Errorf(http.StatusBadRequest, "BadRequest", "the body is not as it must be: %v", err)
}

// public is what a client is told of an error.
func public(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(http.StatusInternalServerError, "InternalServerError", "the operation failed; the server's log says why")
}

func fail(w http.ResponseWriter, e *Error) { reply(w, e.Status, e) }

func reply(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{}`) // our types always can be
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// clip keeps a client's name in the log short.
func clip(name string) string { return name[:min(len(name), 64)] }
