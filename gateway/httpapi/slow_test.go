package httpapi

import (
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Two thousand clients that begin a request and do not go on take little memory,
// hold up nobody else, and are cut off.
func TestSlowClientsHurtNobody(t *testing.T) {
	const clients = 2000
	address := listen(t, Config{ReadTimeout: 2 * time.Second})
	before := heap()
	conns := make([]net.Conn, clients)
	for i := range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sent := score + "X-Slow: "
		if i%2 == 1 {
			sent = score + "Content-Length: 60000\r\n\r\n"
		}
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	for range 100 {
		resp, err := http.Post("http://"+address+"/api/v1/service/e/score", "application/json", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("beside slow clients: %d", resp.StatusCode)
		}
	}
	// A head's buffer of 16 KiB each, and the declared body of every second one.
	if used := heap() - before; used > clients*(16<<10+30_000+16<<10) {
		t.Errorf("%d bytes for each slow client", used/clients)
	}
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(forever))
		head, err := io.ReadAll(c) // until it is closed
		if err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 408 ") {
			t.Fatalf("client %d: %q, %v", i, head, err)
		}
	}
}

// heap is the bytes in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
