// Package spec is the schema of what Sluice is told to run.
//
// The same document is read from a YAML file, stored as a Kubernetes custom
// resource, and compiled into the snapshot that gateways and scorers serve from.
// It goes through four steps, each of which tells all its findings at once:
//
//	Load or Decode   text to values: unknown fields, wrong types, single values out of range
//	Validate         rules between values: names, percentiles, keys, scaling
//	Default          fills in what was left out; it changes no verdict of Validate
//	ClusterOnly      warns of what only a cluster gives meaning to
//
// The names and defaults of Azure ML's deployment configuration are kept, with
// one exception: a concurrency that is left out is automatic, not 1.
// DecodeDeploymentConfig reads that configuration as it is.
package spec

//go:generate go test -run ^TestSchemaFileIsCurrent$ -update .

import "time"

// What the documents of this package say in apiVersion and kind.
const (
	APIVersion   = "sluice.dev/v1alpha1"
	KindEndpoint = "Endpoint"
)

// MaxVersions is how many versions an endpoint may have.
const MaxVersions = 6

// TypeMeta says what a document is.
type TypeMeta struct {
	// Always sluice.dev/v1alpha1.
	APIVersion string `json:"apiVersion" jsonschema:"enum=sluice.dev/v1alpha1"`

	// What the rest describes.
	Kind string `json:"kind" jsonschema:"enum=Endpoint"`
}

// Endpoint is one name that clients call, served by 1 to 6 versions that share its traffic.
type Endpoint struct {
	TypeMeta
	Metadata Metadata     `json:"metadata"`
	Spec     EndpointSpec `json:"spec"`

	source *source // where it was read; nil for one made by a program
}

// Metadata names a document, as in Kubernetes.
type Metadata struct {
	// The endpoint's name in URLs. 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends.
	Name string `json:"name" jsonschema:"minLength=1,maxLength=63,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`

	// The Kubernetes namespace. Without effect on one machine.
	Namespace string `json:"namespace,omitempty" jsonschema:"maxLength=63,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`

	// For selection; keys and values as Kubernetes allows them.
	Labels map[string]string `json:"labels,omitempty"`

	// For tools; any text.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// EndpointSpec is what an endpoint serves and to whom.
type EndpointSpec struct {
	// For people.
	Description string `json:"description,omitempty"`

	// Who may call.
	Auth Auth `json:"auth,omitzero"`

	// How requests are spread over the versions.
	Split Split `json:"split,omitzero"`

	// What each caller (a key, the subject of a token) may take per second, of all versions together. More gets 429 with Retry-After.
	Limits Limits `json:"limits,omitzero"`

	// Which version gets copies of requests, besides the one that answers them.
	Mirror Mirror `json:"mirror,omitzero"`

	// Which web pages may call from a browser. Left out: none.
	CORS *CORS `json:"cors,omitempty"`

	// 1 to 6 versions. The traffic that no percentile claims goes to the default one.
	Versions []Version `json:"versions" jsonschema:"minItems=1,maxItems=6"`
}

// Mirror is which version gets copies of requests. Its answers are compared with those that clients get, and then dropped. Requests that pin a version are not copied.
type Mirror struct {
	// The name of the version that gets copies of what the others served.
	To string `json:"to,omitempty" jsonschema:"maxLength=63,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`

	// Percent of the requests that are copied, with at most two decimals.
	Percentile float64 `json:"percentile,omitempty" jsonschema:"minimum=0,maximum=100"`

	// The most copies in flight. Default 2.
	MaxConcurrent int `json:"maxConcurrent,omitempty" jsonschema:"minimum=1,maximum=1024,default=2"`

	// The most copies that wait; further ones are dropped. Default 64.
	MaxQueued int `json:"maxQueued,omitempty" jsonschema:"minimum=1,maximum=65536,default=64"`

	// The largest body in bytes, of a request or an answer, that is copied. Default 262144.
	MaxBodyBytes int `json:"maxBodyBytes,omitempty" jsonschema:"minimum=1,maximum=104857600,default=262144"`
}

// BasisPoints is the percentile in hundredths of a percent.
func (m *Mirror) BasisPoints() int { return basisPoints(m.Percentile) }

// Limits are what one caller may take. What is left out is not limited.
type Limits struct {
	// Requests per second.
	RequestsPerSecond float64 `json:"requestsPerSecond,omitempty" jsonschema:"minimum=0,maximum=1000000000"`

	// Bytes of requests' bodies per second.
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty" jsonschema:"minimum=0,maximum=1000000000000"`

	// Rows scored per second.
	RowsPerSecond float64 `json:"rowsPerSecond,omitempty" jsonschema:"minimum=0,maximum=1000000000"`

	// Seconds of a device per second: 0.5 is half of one.
	DeviceSecondsPerSecond float64 `json:"deviceSecondsPerSecond,omitempty" jsonschema:"minimum=0,maximum=1000"`

	// How many seconds' worth a caller may take at once after a pause. Default 1.
	BurstSeconds float64 `json:"burstSeconds,omitempty" jsonschema:"minimum=0,maximum=3600,default=1"`
}

// StickyBy is what names a client that is to get the same version every time.
type StickyBy string

// What may name a client.
const (
	StickyHeader    StickyBy = "header"
	StickyPrincipal StickyBy = "principal"
)

// FallbackTo is what serves a request whose version has no ready replica.
type FallbackTo string

// The fallbacks.
const (
	FallbackNone    FallbackTo = "none"
	FallbackDefault FallbackTo = "default"
)

// Split is how requests are spread over an endpoint's versions, beside the percentiles.
type Split struct {
	// What names a client that is to get the same version every time: a header of the request, or who its credential says it is (the name of a key, the subject of a token). Left out, or with a client that has no name, every request is assigned by itself.
	Sticky StickyBy `json:"sticky,omitempty" jsonschema:"enum=header,enum=principal"`

	// The name of the header that names the client, with sticky: header.
	Header string `json:"header,omitempty" jsonschema:"maxLength=64,pattern=^[A-Za-z0-9-]+$"`

	// What serves a request whose version has no ready replica: none, which answers 503, or the default version. A request that pins a version gets that or none. Default none.
	Fallback FallbackTo `json:"fallback,omitempty" jsonschema:"enum=none,enum=default,default=none"`
}

// AuthMode is how callers prove who they are.
type AuthMode string

// The modes. A server may refuse those that it does not speak.
const (
	AuthKey   AuthMode = "key"
	AuthToken AuthMode = "token"
	AuthNone  AuthMode = "none"
)

// Auth is who may call an endpoint.
type Auth struct {
	// How callers prove who they are: by key, by token, or not at all. Never by two at once. Default key.
	Mode AuthMode `json:"mode,omitempty" jsonschema:"enum=key,enum=token,enum=none,default=key"`

	// The keys of mode key. One that is left out is the server's to generate or to do without.
	Keys Keys `json:"keys,omitzero"`

	// Whose tokens are good, with mode: token. Left out: those that this house makes.
	Token *Token `json:"token,omitempty"`
}

// Token is whose JSON Web Tokens are good, and what they must say. Without issuer, audience and jwks: those that this house makes, for this endpoint, on POST /services/NAME/token of its management API. Algorithms with public keys only: RS, PS, ES and EdDSA.
type Token struct {
	// The claim iss must be exactly this.
	Issuer string `json:"issuer,omitempty" jsonschema:"minLength=1"`

	// The claim aud must be, or contain, this.
	Audience string `json:"audience,omitempty" jsonschema:"minLength=1"`

	// Where the issuer's public keys are. They are fetched in the background, and stay as they are while their source is out of reach.
	JWKS JWKS `json:"jwks,omitzero"`

	// Claims that a token must have, and their text.
	RequiredClaims map[string]string `json:"requiredClaims,omitempty"`

	// How far the issuer's clock may be from ours. Default 60.
	ClockSkewSeconds int `json:"clockSkewSeconds,omitempty" jsonschema:"minimum=1,maximum=600,default=60"`

	// How long a token may be good, from iat to exp. Left out: however long its issuer says. Tokens of this house are made for this long: default 3600, at most 86400.
	MaxLifetimeSeconds int `json:"maxLifetimeSeconds,omitempty" jsonschema:"minimum=1,maximum=31536000"`

	// The claim that must list the endpoint's name, or *. Left out: none.
	EndpointsClaim string `json:"endpointsClaim,omitempty"`

	// The scope that a caller must have, in the claim scope, scp or roles. Left out: none.
	Scope string `json:"scope,omitempty" jsonschema:"pattern=^[!#-\\[\\]-~]+$"`

	// The scope that a caller must have to choose a version. Left out: none.
	PinScope string `json:"pinScope,omitempty" jsonschema:"pattern=^[!#-\\[\\]-~]+$"`

	// The scope that a caller must have to choose whether its requests are mirrored. Left out: nobody may.
	MirrorScope string `json:"mirrorScope,omitempty" jsonschema:"pattern=^[!#-\\[\\]-~]+$"`

	// The scope that a caller must have to ask for high priority. Left out: nobody may.
	HighScope string `json:"highScope,omitempty" jsonschema:"pattern=^[!#-\\[\\]-~]+$"`

	// The scope that keeps a caller at low priority, unless it has highScope.
	LowScope string `json:"lowScope,omitempty" jsonschema:"pattern=^[!#-\\[\\]-~]+$"`

	// Tokens that are no longer good. They end when this is applied.
	Revoked Revoked `json:"revoked,omitzero"`
}

// Own reports whether the tokens are those that this house makes.
func (t *Token) Own() bool { return t.Issuer == "" && t.Audience == "" && t.JWKS == (JWKS{}) }

// Revoked is tokens that are no longer good although they have not expired.
type Revoked struct {
	// All that were issued before this time, as in 2026-01-31T12:00:00Z (RFC 3339).
	Before string `json:"before,omitempty" jsonschema:"format=date-time"`

	// All of these subjects (the claim sub).
	Subjects []string `json:"subjects,omitempty" jsonschema:"maxItems=1000"`

	// Those with these ids (the claim jti).
	IDs []string `json:"ids,omitempty" jsonschema:"maxItems=1000"`
}

// Time is Before; the zero time if there is none, or it is not valid.
func (r *Revoked) Time() time.Time {
	t, _ := time.Parse(time.RFC3339, r.Before)
	return t
}

// JWKS is where a JSON Web Key Set (RFC 7517) is: exactly one of url and file.
type JWKS struct {
	// An https URL, or an http one of this machine. Redirects are not followed.
	URL string `json:"url,omitempty"`

	// The path of a file, relative to the document's.
	File string `json:"file,omitempty"`
}

// Keys are an endpoint's two keys. Both are good at any time, so that clients can move to one while the other is replaced.
type Keys struct {
	Primary   *KeySource `json:"primary,omitempty"`
	Secondary *KeySource `json:"secondary,omitempty"`
}

// KeySource says where a key comes from: exactly one of value, env and file. A key is 16 to 256 printable ASCII characters without spaces.
type KeySource struct {
	// The key itself. Whoever reads the document has it: env and file are better.
	Value string `json:"value,omitempty" jsonschema:"minLength=16,maxLength=256,pattern=^[!-~]+$"`

	// The name of the environment variable of the server that holds the key.
	Env string `json:"env,omitempty" jsonschema:"pattern=^[A-Za-z_][A-Za-z0-9_]*$"`

	// The path of a file that holds the key, relative to the document's. Space at its end is ignored.
	File string `json:"file,omitempty"`
}
