package spec

import (
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Validate finds everything that is wrong with e's values, whether Default was
// called or not. Findings know their line if e was decoded, and pass over what
// Decode has already found fault with.
func (e *Endpoint) Validate() Findings { return e.validate(&check{source: e.source}) }

// ValidateRegistered is Validate where versions may be of registered models, which
// whoever has the registry looks up.
func (e *Endpoint) ValidateRegistered() Findings {
	return e.validate(&check{source: e.source, registry: true})
}

func (e *Endpoint) validate(c *check) Findings {
	d := e.defaulted()
	c.ranges("", reflect.ValueOf(e).Elem())
	c.head(d)
	c.metadata(&d.Metadata)
	c.auth("spec.auth", &d.Spec.Auth)
	c.split("spec.split", d)
	c.mirror("spec.mirror", d)
	c.cors("spec.cors", d.Spec.CORS)
	c.versions(d)
	c.findings.sort()
	return c.findings
}

// ClusterOnly warns of values that have no effect on one machine. Those that are
// the default anyway are passed over.
func (e *Endpoint) ClusterOnly() Findings {
	c := &check{source: e.source}
	if e.Metadata.Namespace != "" {
		c.warn("metadata.namespace", "has no effect on one machine")
	}
	var plain Version
	plain.setDefaults()
	for i, v := range e.defaulted().Spec.Versions {
		at := fmt.Sprintf("spec.versions[%d]", i)
		c.clusterOnly(at+".numReplicas", v.NumReplicas > 1)
		// With one replica given the autoscaler is off, which is not what plain says.
		c.clusterOnly(at+".autoScaler", v.NumReplicas == 0 && !reflect.DeepEqual(v.AutoScaler, plain.AutoScaler))
		c.clusterOnly(at+".containerResourceRequirements", v.ContainerResourceRequirements != plain.ContainerResourceRequirements)
		c.clusterOnly(at+".livenessProbeRequirements", v.LivenessProbeRequirements != plain.LivenessProbeRequirements)
		c.clusterOnly(at+".dataCollection", v.DataCollection != plain.DataCollection)
		c.clusterOnly(at+".appInsightsEnabled", v.AppInsightsEnabled)
	}
	c.findings.sort()
	return c.findings
}

// check collects findings of one document.
type check struct {
	source   *source
	registry bool // there is one
	findings Findings
}

// fail reports what is wrong with the value at path, unless it could not be read.
func (c *check) fail(path, format string, args ...any) {
	if !c.source.isFaulty(path) {
		c.findings = append(c.findings, c.source.finding(path, fmt.Sprintf(format, args...)))
	}
}

func (c *check) warn(path, message string) {
	f := c.source.finding(path, message)
	f.Warning = true
	c.findings = append(c.findings, f)
}

func (c *check) clusterOnly(path string, given bool) {
	if given {
		c.warn(path, "has no effect on one machine")
	}
}

// ranges checks each value of a struct by itself, as Decode does. Zero means left
// out; whether it must not be is for the rules below.
func (c *check) ranges(path string, v reflect.Value) {
	known := fieldsOf(v.Type())
	for i := range known {
		f := &known[i]
		value, at := v.FieldByIndex(f.index), join(path, f.name)
		switch {
		case value.IsZero():
		case value.Kind() == reflect.Struct:
			c.ranges(at, value)
		case value.Kind() == reflect.Pointer && value.Elem().Kind() == reflect.Struct:
			c.ranges(at, value.Elem())
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			for j := range value.Len() {
				c.ranges(fmt.Sprintf("%s[%d]", at, j), value.Index(j))
			}
		default:
			if message := f.check(value); message != "" {
				c.fail(at, "%s", message)
			}
		}
	}
}

func (c *check) head(e *Endpoint) {
	if e.APIVersion == "" {
		c.fail("apiVersion", "is missing; must be %s", APIVersion)
	}
	if e.Kind == "" {
		c.fail("kind", "is missing; must be %s", KindEndpoint)
	}
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// isLabel reports whether s is a DNS label as Kubernetes has it (RFC 1123).
func isLabel(s string) bool {
	const longest = 63
	return len(s) <= longest && label.MatchString(s)
}

// name checks a name of ours.
func (c *check) name(path, name string) {
	switch {
	case name == "":
		c.fail(path, "is missing; give it a name of lower-case letters, digits and '-'")
	case !isLabel(name):
		c.fail(path, "is %s; must be 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends", quote(name))
	}
}

func (c *check) metadata(m *Metadata) {
	c.name("metadata.name", m.Name)
	if m.Namespace != "" {
		c.name("metadata.namespace", m.Namespace)
	}
	for _, key := range sortedKeys(m.Labels) {
		at := element("metadata.labels", key)
		c.labelKey(at, key)
		if value := m.Labels[key]; !isLabelValue(value) {
			c.fail(at, "is %s; a label must be at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends; "+
				"other text can be an annotation", quote(value))
		}
	}
	for _, key := range sortedKeys(m.Annotations) {
		c.labelKey(element("metadata.annotations", key), key)
	}
}

var (
	labelText   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

const (
	maxLabelValue  = 63                                        // bytes; also of the name part of a key
	maxLabelPrefix = 253                                       // bytes
	maxLabelKey    = maxLabelPrefix + len("/") + maxLabelValue // bytes
)

func isLabelValue(s string) bool {
	return s == "" || len(s) <= maxLabelValue && labelText.MatchString(s)
}

// labelKey checks a key of labels or annotations: name or prefix/name.
func (c *check) labelKey(path, key string) {
	prefix, name, hasPrefix := strings.Cut(key, "/")
	if !hasPrefix {
		prefix, name = "", key
	}
	badPrefix := hasPrefix && (len(prefix) > maxLabelPrefix || !labelPrefix.MatchString(prefix))
	if badPrefix || name == "" || !isLabelValue(name) {
		c.fail(path, "the key must be at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' before it or not")
	}
}

// auth checks who may call; path is where a says it.
func (c *check) auth(path string, a *Auth) {
	c.token(path+".token", a)
	keys, at := a.Keys, join(path, "keys")
	if (a.Mode == AuthToken || a.Mode == AuthNone) && keys != (Keys{}) {
		c.fail(at, "has no effect with mode %s; remove the keys, or set mode: key", a.Mode)
		return
	}
	c.key(at+".primary", keys.Primary)
	c.key(at+".secondary", keys.Secondary)
	if keys.Primary != nil && keys.Secondary != nil && *keys.Primary == *keys.Secondary && keys.Primary.sources() == 1 {
		c.warn(at+".secondary", "is the same as primary, so that neither can be replaced without a gap; choose another")
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// split checks how clients are named; path is where e says it.
func (c *check) split(path string, e *Endpoint) {
	s := &e.Spec.Split
	switch {
	case s.Sticky == StickyHeader && s.Header == "":
		c.fail(path+".header", "is missing; with sticky: header, name the header that names the client")
	case s.Sticky != StickyHeader && s.Header != "":
		c.fail(path+".header", "has no effect without sticky: header; remove it, or set that")
	case s.Header != "" && !headerName.MatchString(s.Header):
		c.fail(path+".header", "is %s; must be the name of a header: letters, digits and '-'", quote(s.Header))
	}
	if s.Sticky == StickyPrincipal && e.Spec.Auth.Mode == AuthNone {
		c.fail(path+".sticky", "is principal, and with auth.mode none nobody says who they are; use sticky: header")
	}
}

// mirror checks where copies go; path is where e says it.
func (c *check) mirror(path string, e *Endpoint) {
	m := &e.Spec.Mirror
	switch {
	case *m == Mirror{}:
		return
	case m.To == "":
		c.fail(path+".to", "is missing; name the version that gets the copies, or remove mirror")
	case !slices.ContainsFunc(e.Spec.Versions, func(v Version) bool { return v.Name == m.To }):
		c.fail(path+".to", "is %s, which is no version of the endpoint", quote(m.To))
	case len(e.Spec.Versions) == 1:
		c.fail(path+".to", "is the only version, and so serves the requests itself; add one to compare it with")
	}
	switch {
	case m.Percentile == 0:
		c.fail(path+".percentile", "is missing; give the percentage of requests to copy")
	case !twoDecimals(m.Percentile):
		c.fail(path+".percentile", "is %s; must have at most two decimals", number(m.Percentile))
	}
}

// token checks whose tokens are good; path is where a says it.
func (c *check) token(path string, a *Auth) {
	t := a.Token
	if t == nil {
		return
	}
	if a.Mode != AuthToken {
		c.fail(path, "has no effect with mode %s; remove it, or set mode: token", a.Mode)
		return
	}
	c.scopes(path, t)
	c.revoked(path+".revoked", &t.Revoked)
	if t.Own() {
		c.ownToken(path, t)
		return
	}
	if t.Issuer == "" {
		c.fail(path+".issuer", "is missing; give the value of the claim iss, such as https://login.example.com/")
	}
	if t.Audience == "" {
		c.fail(path+".audience", "is missing; give the value of the claim aud; without it, tokens made for others would be good")
	}
	switch at := path + ".jwks"; {
	case (t.JWKS.URL == "") == (t.JWKS.File == ""):
		c.fail(at, "must have exactly one of url and file")
	case t.JWKS.URL != "" && !isKeyURL(t.JWKS.URL):
		c.fail(at+".url", "is %s; must be an https URL: whoever changes the keys on their way lets anybody in", quote(t.JWKS.URL))
	}
}

// maxOwnLifetime is the longest life in seconds of a token that this house makes.
const maxOwnLifetime = 24 * 60 * 60

// ownToken checks what is said about tokens that this house makes: nothing that
// only another issuer decides.
func (c *check) ownToken(path string, t *Token) {
	useless := append(t.scopes(), named{"endpointsClaim", t.EndpointsClaim})
	if len(t.RequiredClaims) > 0 {
		useless = append(useless, named{"requiredClaims", "given"})
	}
	for _, n := range useless {
		if n.text != "" {
			c.fail(join(path, n.name), "has no effect on the tokens that this house makes; remove it, or name the issuer, the audience and the jwks of others")
		}
	}
	if t.MaxLifetimeSeconds > maxOwnLifetime {
		c.fail(path+".maxLifetimeSeconds", "is %d; must be at most %d for the tokens that this house makes", t.MaxLifetimeSeconds, maxOwnLifetime)
	}
}

// scopeText is what a scope may be (RFC 6749, 3.3).
var scopeText = regexp.MustCompile(`^[!#-\[\]-~]+$`)

// named is the text of a field.
type named struct{ name, text string }

// scopes are the fields that name scopes.
func (t *Token) scopes() []named {
	return []named{{"scope", t.Scope}, {"pinScope", t.PinScope}, {"mirrorScope", t.MirrorScope}, {"highScope", t.HighScope}, {"lowScope", t.LowScope}}
}

func (c *check) scopes(path string, t *Token) {
	for _, n := range t.scopes() {
		if n.text != "" && !scopeText.MatchString(n.text) {
			c.fail(join(path, n.name), `is %s; must be printable ASCII without spaces, '"' and '\'`, quote(n.text))
		}
	}
}

func (c *check) revoked(path string, r *Revoked) {
	if _, err := time.Parse(time.RFC3339, r.Before); r.Before != "" && err != nil {
		c.fail(path+".before", "is %s; must be a time such as 2026-01-31T12:00:00Z", quote(r.Before))
	}
	c.texts(path+".subjects", r.Subjects)
	c.texts(path+".ids", r.IDs)
}

func (c *check) texts(path string, list []string) {
	for i, text := range list {
		if text == "" {
			c.fail(fmt.Sprintf("%s[%d]", path, i), "is empty; remove it")
		}
	}
}

// isKeyURL reports whether keys from there can be believed: https, or this machine.
func isKeyURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

var environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c *check) key(path string, k *KeySource) {
	switch {
	case k == nil, c.source.isFaulty(path + ".value"), c.source.isFaulty(path + ".env"), c.source.isFaulty(path + ".file"):
	case k.sources() != 1:
		c.fail(path, "must have exactly one of value, env and file, and has %d", k.sources())
	case k.Value != "":
		if err := CheckKey(k.Value); err != nil {
			c.fail(path+".value", "%s", err)
		}
	case k.Env != "" && !environmentName.MatchString(k.Env):
		c.fail(path+".env", "is %s; must be the name of an environment variable: letters, digits and '_'", quote(k.Env))
	case strings.ContainsRune(k.File, 0):
		c.fail(path+".file", "is %s, with a zero byte; give the path of a file", quote(k.File))
	}
}
