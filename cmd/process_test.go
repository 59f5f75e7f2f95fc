package cmd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// binaries is the folder of the commands, built once.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "./sluice", "./gateway", "./scorer").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := binaries(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

const key = "a-key-for-tests-0123456789"

// process is a running command.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log *journal
	end chan error
}

// journal is what a process has written so far.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(args, "--http") && !slices.Contains(args, "--grpc") {
		args = append(args, "--grpc", "") // its default is a fixed port
	}
	if name != "scorer" && !slices.Contains(args, "--management") {
		args = append(args, "--management", "") // several run at a time
	}
	p := &process{t: t, cmd: exec.Command(filepath.Join(dir, name), args...), log: &journal{}, end: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), "DIGITS_KEY="+key)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.end <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.end
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.log)
		}
	})
	return p
}

// stop ends a process by signal and wants it to end well.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.end:
		p.end <- err
		if err != nil {
			p.t.Errorf("ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		p.t.Error("does not end")
	}
}

// taken are the ports that free has given away.
var taken sync.Map

// free is an address that nobody listens on, and that nobody gets by chance before
// its process does: below the ports that the system gives to connections.
func free(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 10_000 + mathrand.N(20_000)
		if _, again := taken.LoadOrStore(port, true); again {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// eventually waits until ok, which asks a process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never %s", what)
		case <-tick.C:
		}
	}
}

// answer is what a request came back with.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func call(method, url string, body []byte, header ...string) (answer, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, all}, err
}

// must is call of a test that cannot go on without an answer.
func must(t *testing.T, method, url string, body []byte, header ...string) answer {
	t.Helper()
	a, err := call(method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ready(admin string) func() bool {
	return func() bool {
		a, err := call("GET", "http://"+admin+"/readyz", nil)
		return err == nil && a.status == 200
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const digits = "../examples/digits/"

// serveDigits runs sluice serve on a copy of the digits example.
func serveDigits(t *testing.T) (p *process, base, admin, file string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"endpoint.yaml", "linear.onnx", "mlp.onnx"} {
		if err := os.WriteFile(filepath.Join(dir, name), read(t, digits+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	http, admin, file := free(t), free(t), filepath.Join(dir, "endpoint.yaml")
	p = start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(dir, "state"), "--drain-delay", "10ms")
	eventually(t, "ready", ready(admin))
	return p, "http://" + http, admin, file
}

var bearer = []string{"Authorization", "Bearer " + key}

// expected are the answers that the models gave when they were trained.
type expected struct {
	Label         []int64
	Probabilities [][]float32
}

// oip is an answer of the Open Inference Protocol.
type oip struct {
	Model   string `json:"model_name"`
	Version string `json:"model_version"`
	Outputs []struct {
		Name  string
		Shape []int64
		Data  []json.Number
	}
}

// check holds an answer for ten digits against what is expected of its version.
func (a *oip) check(t *testing.T) {
	t.Helper()
	var want expected
	if err := json.Unmarshal(read(t, digits+"expected/"+a.Version+".json"), &want); err != nil {
		t.Fatal(err)
	}
	for i, n := range a.Outputs[0].Data {
		if label, _ := n.Int64(); label != want.Label[i] {
			t.Errorf("%s says that digit %d is %d; want %d", a.Version, i, label, want.Label[i])
		}
	}
	for i, n := range a.Outputs[1].Data {
		p, _ := n.Float64()
		if w := float64(want.Probabilities[i/10][i%10]); p < w-1e-5 || p > w+1e-5 {
			t.Errorf("%s: probability %d is %v; want %v", a.Version, i, p, w)
		}
	}
}

func TestDigitsAreScoredAsExpected(t *testing.T) {
	p, base, _, _ := serveDigits(t)
	for _, version := range []string{"linear", "mlp"} {
		a := must(t, "POST", base+"/v2/models/digits/versions/"+version+"/infer", read(t, digits+"requests/ten.json"), bearer...)
		var got oip
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != 200 || got.Version != version || got.Model != "digits" {
			t.Fatalf("%d %s (%v)", a.status, a.body, err)
		}
		got.check(t)
		for h, want := range map[string]string{"Azureml-Model-Deployment": version, "X-Sluice-Version": version, "X-Sluice-Assign": "pinned", "X-Sluice-Generation": "1"} {
			if a.header.Get(h) != want {
				t.Errorf("%s is %q; want %q", h, a.header.Get(h), want)
			}
		}
	}
	a := must(t, "POST", base+"/api/v1/service/digits/score", read(t, digits+"requests/aml.json"), bearer...)
	if a.status != 200 || !strings.HasPrefix(string(a.body), `{"label":[2],"probabilities":[[`) || a.header.Get("X-Ms-Run-Function-Failed") != "False" {
		t.Errorf("Azure ML's route: %d %s", a.status, a.body)
	}
	length := strings.TrimSpace(string(read(t, digits+"requests/one.bin.head-length")))
	a = must(t, "POST", base+"/v2/models/digits/infer", read(t, digits+"requests/one.bin"), append(bearer, "Inference-Header-Content-Length", length)...)
	if head := a.header.Get("Inference-Header-Content-Length"); a.status != 200 || head == "" || a.body[len(a.body)-48] != 2 {
		t.Errorf("raw tensors: %d, head of %s bytes, %q", a.status, head, a.body)
	}
	p.stop()
}

func TestBadRequestsGetClearErrors(t *testing.T) {
	_, base, _, _ := serveDigits(t)
	one := read(t, digits+"requests/one.json")
	f := func(method, path string, body []byte, want int, text string, header ...string) {
		t.Helper()
		a := must(t, method, base+path, body, header...)
		if a.status != want || !strings.Contains(string(a.body), text) || !json.Valid(a.body) {
			t.Errorf("%s %s: %d %s; want %d with %q", method, path, a.status, a.body, want, text)
		}
	}
	infer := "/v2/models/digits/infer"
	f("POST", infer, one, 401, "no valid credential")
	f("POST", infer, one, 401, "no valid credential", "Authorization", "Bearer wrong")
	f("POST", infer, one, 200, "label", "X-Api-Key", key)
	f("POST", "/v2/models/nope/infer", one, 404, "unknown model: 'nope'", bearer...)
	f("POST", "/v2/models/digits/versions/nope/infer", one, 404, "version nope", bearer...)
	f("POST", infer, one, 404, "version nope", append(bearer, "Azureml-Model-Deployment", "nope")...)
	f("GET", infer, nil, 405, "Method Not Allowed", bearer...)
	f("GET", "/v3", nil, 404, "Not Found")
	f("POST", infer, nil, 400, "empty", bearer...)
	f("POST", infer, []byte(`{"inputs":[`), 400, "at 11", bearer...)
	f("POST", infer, []byte(`{"inputs":[]}`), 400, "missing required input", bearer...)
	f("POST", infer, bytes.Replace(one, []byte("FP32"), []byte("INT64"), 1), 400, "data-type", bearer...)
	f("POST", infer, bytes.Replace(one, []byte("[1,64]"), []byte("[1,65]"), 1), 400, "unexpected shape", bearer...)
	f("POST", infer, bytes.Replace(one, []byte("[1,64]"), []byte("[2,64]"), 1), 400, "true shape", bearer...)
	f("POST", infer, bytes.Replace(one, []byte(`"input"`), []byte(`"image"`), 1), 400, "unexpected inference input", bearer...)
	f("POST", infer, []byte(strings.Repeat("[", 100_000)), 400, "object", bearer...)
	f("POST", infer, one, 501, "compression", append(bearer, "Content-Encoding", "br")...)
	f("POST", infer, one, 431, "100 characters", append(bearer, "X-Request-Id", strings.Repeat("x", 101))...)
	f("POST", infer, read(t, digits+"requests/one.bin")[:200], 400, "expecting", append(bearer, "Inference-Header-Content-Length",
		strings.TrimSpace(string(read(t, digits+"requests/one.bin.head-length"))))...)
	f("POST", "/api/v1/service/digits/score", []byte(`{"data":[[1,2],[3]]}`), 400, "ragged", bearer...)
	f("POST", "/api/v1/service/digits/score", []byte(`[1]`), 400, `"code":"InvalidArgument"`, bearer...)
	f("GET", "/v2/models/digits", nil, 401, "no valid credential")
	f("GET", "/v2/models/digits", nil, 200, `"versions":["linear","mlp"]`, bearer...)
	f("GET", "/v2/health/ready", nil, 200, `{"ready":true}`)
	f("GET", "/api/v1/service/digits/swagger.json", nil, 200, `"swagger":"2.0"`, bearer...)
	f("POST", infer, one, 200, "label", bearer...) // and it still serves
}

// count sends n requests and counts the versions that served them.
func count(t *testing.T, base string, n int) map[string]int {
	t.Helper()
	one, served := read(t, digits+"requests/one.json"), map[string]int{}
	for range n {
		a := must(t, "POST", base+"/v2/models/digits/infer", one, bearer...)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		served[a.header.Get("X-Sluice-Version")]++
	}
	return served
}

func TestAThousandRequestsAreSplitAsSaid(t *testing.T) {
	_, base, _, _ := serveDigits(t)
	if got := count(t, base, 1000); got["mlp"] < 96 || got["mlp"] > 104 || got["linear"]+got["mlp"] != 1000 {
		t.Errorf("of 1000 requests %v; want 900 and 100", got)
	}
}

// Two gateways that share nothing but the secret send a client to the same
// version, and say so.
func TestStickyClientsGoToTheSameVersionOnEveryGateway(t *testing.T) {
	dir := t.TempDir()
	secret, file := filepath.Join(dir, "secret"), filepath.Join(dir, "endpoint.yaml")
	spec := strings.Replace(string(read(t, digits+"endpoint.yaml")), "spec:\n", "spec:\n  split: {sticky: header, header: x-user}\n", 1)
	for _, name := range []string{"linear", "mlp"} {
		model, err := filepath.Abs(digits + name + ".onnx")
		if err != nil {
			t.Fatal(err)
		}
		spec = strings.Replace(spec, "model: "+name+".onnx", "model: "+model, 1)
	}
	for path, text := range map[string]string{file: spec, secret: "0123456789abcdef0123456789abcdef\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one := read(t, digits+"requests/one.json")
	var went [2][200]string
	for g := range went {
		http, admin := free(t), free(t)
		start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(dir, fmt.Sprint(g)), "--secret-file", secret)
		eventually(t, "ready", ready(admin))
		for i := range went[g] {
			a := must(t, "POST", "http://"+http+"/v2/models/digits/infer", one, append([]string{"X-User", fmt.Sprint(i)}, bearer...)...)
			if went[g][i] = a.header.Get("X-Sluice-Version"); a.status != 200 || a.header.Get("X-Sluice-Assign") != "sticky" {
				t.Fatalf("client %d: %d %s, assigned by %q", i, a.status, a.body, a.header.Get("X-Sluice-Assign"))
			}
		}
	}
	if went[0] != went[1] {
		t.Errorf("the gateways disagree: %v and %v", went[0], went[1])
	}
}

// specMLP writes a specification of one version of the digits example into dir, for
// callers that auth, the specification's, lets in.
func specMLP(t *testing.T, dir, auth string) (file string) {
	t.Helper()
	model, err := filepath.Abs(digits + "mlp.onnx")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "endpoint.yaml")
	spec := `apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: ` + auth + `
  versions: [{name: mlp, model: ` + model + `}]
`
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// serveMLP serves what specMLP writes.
func serveMLP(t *testing.T, dir, auth string, flags ...string) (p *process, base string) {
	t.Helper()
	at, admin := free(t), free(t)
	args := []string{"serve", "--file", specMLP(t, dir, auth), "--http", at, "--metrics", admin, "--state", filepath.Join(dir, "state"), "--drain-delay", "10ms"}
	p = start(t, "sluice", append(args, flags...)...)
	eventually(t, "ready", ready(admin))
	return p, "http://" + at
}

// A token of an issuer that is known by its keys alone opens the endpoint, also
// while the issuer is down.
func TestTokensOfAnIssuer(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	j, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "one"}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []any{j.Marshal()}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	defer issuer.Close()

	_, base := serveMLP(t, t.TempDir(), `{mode: token, token: {issuer: "https://issuer", audience: digits, pinScope: pin, jwks: {url: "`+issuer.URL+`"}}}`)
	token := func(subject, scope string, life time.Duration) string {
		unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
			"iss": "https://issuer", "aud": "digits", "sub": subject, "scope": scope, "exp": time.Now().Add(life).Unix(),
		})
		unsigned.Header["kid"] = "one"
		signed, err := unsigned.SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	one := read(t, digits+"requests/one.json")
	ask := func(want int, token, path string) {
		t.Helper()
		a := must(t, "POST", base+path, one, "Authorization", "Bearer "+token)
		if a.status != want || want == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: %d %s %q; want %d", path, a.status, a.body, a.header.Get("WWW-Authenticate"), want)
		}
	}
	const infer, pinned = "/v2/models/digits/infer", "/v2/models/digits/versions/mlp/infer"
	ask(200, token("alice", "", time.Hour), infer)
	ask(403, token("alice", "", time.Hour), pinned)
	ask(200, token("alice", "pin", time.Hour), pinned)
	ask(401, token("alice", "", -time.Hour), infer)
	ask(401, key, infer)
	issuer.Close()
	ask(200, token("bob", "", time.Hour), infer)
}

// A key that is replaced in its file is good within a moment, the other one all
// the time.
func TestKeysAreAsTheirFilesAre(t *testing.T) {
	dir := t.TempDir()
	primary := filepath.Join(dir, "primary")
	const first, second = "the-first-key-0123456789", "the-second-key-0123456789"
	if err := os.WriteFile(primary, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	_, base := serveMLP(t, dir, "{keys: {primary: {file: primary}, secondary: {env: DIGITS_KEY}}}")
	one := read(t, digits+"requests/one.json")
	ask := func(key string) int {
		t.Helper()
		return must(t, "POST", base+"/v2/models/digits/infer", one, "X-Api-Key", key).status
	}
	if a, b, c := ask(first), ask(key), ask(second); a != 200 || b != 200 || c != 401 {
		t.Fatalf("before: %d, %d, %d", a, b, c)
	}
	if err := os.WriteFile(primary, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new key", func() bool {
		if status := ask(key); status != 200 {
			t.Errorf("the other key: %d", status)
		}
		return ask(second) == 200
	})
	if status := ask(first); status != 401 {
		t.Errorf("the old key: %d", status)
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  ed25519.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	var pair tls.Certificate
	pair, _, _ = a.sign(1)
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, pair.PrivateKey.(ed25519.PrivateKey)
	a.pool.AddCert(cert)
	return a
}

// sign makes a certificate for 127.0.0.1, of an authority if a has none yet.
func (a *authority) sign(serial int64) (pair tls.Certificate, certPEM, keyPEM []byte) {
	a.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "sluice"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: a.cert == nil, BasicConstraintsValid: true,
	}
	parent, key := template, private
	if a.cert != nil {
		parent, key = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// The certificate is the one that the files hold, without a restart; clients
// without a certificate of the right authority are not served.
func TestCertificatesAreAsTheirFilesAre(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, cert, private := ca.sign(2)
	certFile, keyFile := write("cert.pem", cert), write("key.pem", private)
	caFile := write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	at, admin := free(t), free(t)
	start(t, "sluice", "serve", "--file", digits+"endpoint.yaml", "--http", at, "--metrics", admin, "--state", filepath.Join(dir, "state"),
		"--tls-cert", certFile, "--tls-key", keyFile, "--tls-client-ca", caFile)
	eventually(t, "ready", ready(admin))
	serial := func(client ...tls.Certificate) (int64, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool, Certificates: client}, DisableKeepAlives: true}
		req, err := http.NewRequest("POST", "https://"+at+"/v2/models/digits/infer", bytes.NewReader(read(t, digits+"requests/one.json")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(bearer[0], bearer[1])
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return 0, fmt.Errorf("status %d", resp.StatusCode)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	mine, _, _ := ca.sign(3)
	if n, err := serial(mine); n != 2 || err != nil {
		t.Errorf("certificate %d, %v; want 2", n, err)
	}
	if _, err := serial(); err == nil {
		t.Error("a client without a certificate was served")
	}
	stranger, _, _ := newAuthority(t).sign(4)
	if _, err := serial(stranger); err == nil {
		t.Error("a client of another authority was served")
	}
	write("key.pem", []byte("broken")) // nothing changes
	_, cert, private = ca.sign(5)
	write("cert.pem", cert)
	if n, err := serial(mine); n != 2 || err != nil {
		t.Errorf("with a broken key file: certificate %d, %v; want 2", n, err)
	}
	write("key.pem", private)
	eventually(t, "the new certificate", func() bool { n, _ := serial(mine); return n == 5 })
}

// load asks all the time until stopped, and counts what came back.
type load struct {
	stop     atomic.Bool
	asked    atomic.Int64
	statuses [600]atomic.Int64
	broken   atomic.Int64
	done     sync.WaitGroup
}

func begin(t *testing.T, base string, callers int) *load {
	return beginWith(t, base, callers, bearer[1])
}

func beginWith(t *testing.T, base string, callers int, credential string) *load {
	one, l := read(t, digits+"requests/one.json"), &load{}
	for range callers {
		l.done.Go(func() {
			for !l.stop.Load() {
				l.asked.Add(1)
				a, err := call("POST", base+"/v2/models/digits/infer", one, bearer[0], credential)
				if err != nil {
					l.broken.Add(1)
					continue
				}
				l.statuses[a.status].Add(1)
			}
		})
	}
	return l
}

// end stops the load and returns how many were answered with each status.
func (l *load) end() map[int]int64 {
	l.stop.Store(true)
	l.done.Wait()
	got := map[int]int64{}
	for s := range l.statuses {
		if n := l.statuses[s].Load(); n > 0 {
			got[s] = n
		}
	}
	return got
}

func TestReloadsLoseNoRequest(t *testing.T) {
	p, base, admin, file := serveDigits(t)
	generation := func(n int) func() bool {
		return func() bool {
			a, err := call("GET", "http://"+admin+"/metrics", nil)
			return err == nil && strings.Contains(string(a.body), fmt.Sprintf("\nsluice_config_generation %d\n", n))
		}
	}
	l := begin(t, base, 4)
	text := string(read(t, file))
	for n, version := range []string{"mlp-two", "mlp-three", "mlp"} {
		text := strings.Replace(text, "name: mlp", "name: "+version, 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			_ = p.cmd.Process.Signal(syscall.SIGHUP) // the others are noticed
		}
		eventually(t, "reloaded", generation(n+2))
	}
	if err := os.WriteFile(file, []byte("kind: Nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "refused", func() bool {
		a, err := call("GET", "http://"+admin+"/metrics", nil)
		return err == nil && strings.Contains(string(a.body), "\nsluice_config_stale 1\n")
	})
	count(t, base, 50)
	if got := l.end(); l.broken.Load() > 0 || got[200] != l.asked.Load() {
		t.Errorf("of %d requests %v, %d broken; want all 200", l.asked.Load(), got, l.broken.Load())
	}
	if !generation(4)() {
		t.Error("a bad file changed what is served")
	}
	p.stop()
	if log := p.log.String(); !strings.Contains(log, "specification not applied") || !strings.Contains(log, "must be Endpoint") {
		t.Errorf("the bad file was not reported")
	}
}

// A process that starts while the specification cannot be used serves what was
// good last, and says so.
func TestWhatWasServedLastIsServedWhileTheFileIsBad(t *testing.T) {
	p, _, _, file := serveDigits(t)
	p.stop()
	good := read(t, file)
	for _, bad := range []func(){
		func() { _ = os.WriteFile(file, []byte("kind: Nonsense\n"), 0o600) },
		func() { _ = os.Remove(file) },
	} {
		bad()
		http, admin := free(t), free(t)
		p := start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(filepath.Dir(file), "state"), "--drain-delay", "10ms")
		eventually(t, "ready", ready(admin))
		stale := func(n int) func() bool {
			return func() bool {
				a, err := call("GET", "http://"+admin+"/metrics", nil)
				return err == nil && strings.Contains(string(a.body), fmt.Sprintf("\nsluice_config_stale %d\n", n))
			}
		}
		if !stale(1)() {
			t.Error("nothing says that what is served is old")
		}
		count(t, "http://"+http, 10)
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "applied", stale(0))
		p.stop()
	}
}

func TestSIGTERMFinishesWhatIsThere(t *testing.T) {
	p, base, _, _ := serveDigits(t)
	l := begin(t, base, 4)
	eventually(t, "under load", func() bool { return l.statuses[200].Load() > 100 })
	p.stop()
	got := l.end()
	if n := got[200]; n < 100 || len(got) != 1 {
		t.Errorf("answers %v; want nothing but 200, and refused connections after the end", got)
	}
}

func TestAnEndpointThatCannotBeServedIsRefused(t *testing.T) {
	f := func(change [2]string, want string) {
		t.Helper()
		dir := t.TempDir()
		text := strings.Replace(string(read(t, digits+"endpoint.yaml")), change[0], change[1], 1)
		broken := read(t, digits+"mlp.onnx")[:1000]
		for name, data := range map[string][]byte{"endpoint.yaml": []byte(text), "linear.onnx": read(t, digits+"linear.onnx"), "mlp.onnx": broken} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := start(t, "sluice", "serve", "--file", filepath.Join(dir, "endpoint.yaml"), "--http", free(t), "--metrics", "", "--state", dir)
		err := <-p.end
		p.end <- err
		if err == nil || !strings.Contains(p.log.String(), want) {
			t.Errorf("with %q: %v, %s; want an error with %q", change[1], err, p.log, want)
		}
	}
	f([2]string{"", ""}, "version mlp: load")
	f([2]string{"mlp.onnx", "none.onnx"}, "none.onnx")
	f([2]string{"trafficPercentile: 90", "trafficPercentile: 95"}, "endpoint.yaml:")
	f([2]string{"mode: key", "mode: token"}, "keys: has no effect with mode token")
	f([2]string{"mode: key\n    keys:\n      primary: {env: DIGITS_KEY}", "mode: token\n    token: {issuer: i}"}, "spec.auth.token.audience: is missing")
	f([2]string{"model: mlp.onnx", "model: mlp.onnx\n      accelerator: cuda"}, `accelerator "cuda" is not built in`)
}

// A scorer process is killed under load and started again: every request gets an
// answer, and afterwards all is as before.
func TestAKilledScorerComesBack(t *testing.T) {
	dir := t.TempDir()
	socket, http, admin := filepath.Join(dir, "lane"), free(t), free(t)
	scorer := func() *process {
		return start(t, "scorer", "--file", digits+"endpoint.yaml", "--listen", "unix://"+socket, "--metrics", "")
	}
	first := scorer()
	start(t, "gateway", "--file", digits+"endpoint.yaml", "--scorer", "unix://"+socket, "--http", http, "--metrics", admin,
		"--state", dir, "--drain-delay", "10ms")
	eventually(t, "ready", ready(admin))
	l := begin(t, "http://"+http, 8)
	eventually(t, "under load", func() bool { return l.statuses[200].Load() > 500 })
	_ = first.cmd.Process.Kill()
	scorer()
	before := l.statuses[200].Load()
	eventually(t, "back", func() bool { return l.statuses[200].Load() > before+500 })
	got := l.end()
	answered := int64(0)
	for status, n := range got {
		answered += n
		if status != 200 && status != 502 && status != 503 {
			t.Errorf("%d answers of status %d", n, status)
		}
	}
	if answered != l.asked.Load() || got[502] > 8 {
		t.Errorf("of %d requests %v, %d broken; want an answer each, and at most one 502 per caller", l.asked.Load(), got, l.broken.Load())
	}
	t.Logf("of %d requests: %v", l.asked.Load(), got)
}

// Every command explains itself, and the README's commands are these.
func TestHelpTexts(t *testing.T) {
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"sluice --help", "sluice serve --help", "sluice validate --help", "sluice schema", "sluice runtime install --help", "sluice runtime path",
		"sluice version", "sluice completion bash", "sluice service --help", "sluice service get-keys --help", "sluice service regen-key --help",
		"sluice service get-access-token --help", "sluice endpoint realtime get-keys --help", "sluice validate " + digits + "endpoint.yaml", "sluice validate -o json " + digits + "endpoint.yaml",
		"sluice explain batching --help", "sluice plan --help", "sluice plan --rate 3000 --p99 50ms --times 1=4ms,8=17ms --slots 2",
		"sluice simulate --help", "sluice simulate --times 1=4ms,8=17ms --slots 2", "sluice simulate --times 1=4ms,8=17ms --requests 6 --rate 500",
		"gateway --help", "scorer --help", "gateway version", "scorer version",
	} {
		words := strings.Fields(line)
		out, err := exec.Command(filepath.Join(dir, words[0]), words[1:]...).CombinedOutput()
		if err != nil || len(out) == 0 {
			t.Errorf("%s: %v, %s", line, err, out)
		}
	}
}
