package cmd

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Lanes and metrics are encrypted where their address says so, and who has no
// certificate of the right authority is left out at both ends.
func TestLanesAreEncrypted(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	trusted := filepath.Join(dir, "ca.pem")
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})) // once: every process reads it as it starts
	files := func(name string, a *authority) []string {
		t.Helper()
		_, cert, key := a.sign(2)
		pair := filepath.Join(dir, name)
		write(pair+".pem", cert)
		write(pair+".key", key)
		return []string{"--lane-tls-cert", pair + ".pem", "--lane-tls-key", pair + ".key", "--lane-tls-ca", trusted}
	}
	lane, admin := free(t), free(t)
	start(t, "scorer", append(files("scorer", ca), "--file", digits+"endpoint.yaml", "--listen", "tls://"+lane, "--metrics", "tls://"+admin)...)
	gateway := func(lanes []string) (p *process, http, admin string) {
		http, admin = free(t), free(t)
		return start(t, "gateway", append(lanes, "--file", digits+"endpoint.yaml", "--scorer", "tls://"+lane, "--http", http, "--metrics", admin,
			"--state", t.TempDir(), "--log-level", "debug")...), http, admin
	}
	refused := func(why string, lanes []string) {
		t.Helper()
		p, _, admin := gateway(lanes)
		eventually(t, "refused by the scorer: "+why, func() bool { return strings.Contains(p.log.String(), "remote error: tls: "+why) })
		if ready(admin)() {
			t.Errorf("was let in: %s", why)
		}
	}
	_, served, mine := gateway(files("gateway", ca))
	eventually(t, "ready", ready(mine))
	refused("unknown certificate authority", files("stranger", newAuthority(t)))
	refused("certificate required", []string{"--lane-tls-ca", trusted})
	count(t, "http://"+served, 20)
	operator := []string{"--metrics", "tls://" + admin, "--metrics-ca", trusted, "--metrics-cert", filepath.Join(dir, "gateway.pem"), "--metrics-key", filepath.Join(dir, "gateway.key")}
	if out := string(sluiceCommand(t, append([]string{"explain", "batching"}, operator...)...)); !strings.Contains(out, "digits/") {
		t.Errorf("batching over TLS: %s", out)
	}
	client, _, _ := ca.sign(3)
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{client}}, DisableKeepAlives: true}}
	resp, err := secure.Get("https://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("metrics over TLS: %s", resp.Status)
	}
}
