package local

import (
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server may accept and never answer: that its process ends is noticed all the same.
func TestReadyDoesNotHangOnWhoNeverAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ps := &Processes{}
	p, err := ps.Start("true")
	if err != nil {
		t.Fatal(err)
	}
	<-p.gone
	if err := p.Ready("http://" + l.Addr().String()); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("ready: %v", err)
	}
}
