package clients

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// perf_analyzer asks for metadata, configuration and statistics, and reads every
// answer. The release is the newest that runs with the glibc of Debian 12. It
// takes the names of versions for numbers, as Triton has them, and ends where one is none.
func TestPerfAnalyzer(t *testing.T) {
	folder := installed(t, "perf_analyzer", "perf_analyzer.txt")
	libraries, err := filepath.Glob(filepath.Join(folder, "usr", "lib", "*")) // of the machine's kind
	if err != nil {
		t.Fatal(err)
	}
	libraries = append(libraries, filepath.Join(folder, "nvidia", "cuda_runtime", "lib"))
	open, keyed := repository(t, "--load-model", "digits"), serve(t)

	hung, busy := false, ""
	once := func(args string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(folder, "bin", "perf_analyzer"), strings.Fields(args)...)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
		hung = false
		cmd.Cancel = func() error {
			hung, busy = true, waiting(open)+waiting(keyed)
			return cmd.Process.Kill()
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// Asynchronous, on a busy machine, it was seen to wait for ever. That is its own affair
	// only where the server has answered all.
	run := func(args string) (string, error) {
		out, err := once(args)
		if hung && busy == "" {
			t.Logf("%s: it waits, and the server does not; once more", args)
			out, err = once(args)
		}
		if hung {
			t.Errorf("%s: it waits: %s", args, busy)
		}
		return out, err
	}
	const requests, callers = 100, 4
	works := func(args string, rows int) {
		t.Helper()
		before := answered(t, 0, open, keyed)
		out, err := run(fmt.Sprintf("%s -b %d --request-count %d", args, rows, requests))
		count := func(what string) int {
			n := -1
			if _, after, ok := strings.Cut(out, "    "+what+": "); ok {
				_, _ = fmt.Sscan(after, &n)
			}
			return n
		}
		if got := answered(t, before+requests, open, keyed) - before; got != requests {
			t.Errorf("%s: the servers counted %v answers, not %d", args, got, requests)
		}
		sent, served, inferred := count("Request count"), count("Successful request count"), count("Inference count")
		if strings.Contains(args, "tfserving") { // which has no statistics
			served, inferred = requests, requests*rows
		}
		// It reads the server's statistics when some requests have been answered already.
		if err != nil || sent != requests || served > requests || inferred != served*rows {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
	overHTTP, grpc := "-i http -m digits -u "+open.http, "-i grpc -m digits -u "+open.grpc
	for _, memory := range []string{"", " --shared-memory system"} {
		works(overHTTP+memory, 1)
		works(overHTTP+memory+" --async --concurrency-range "+fmt.Sprint(callers), 3)
		works(grpc+memory, 2)
		works(grpc+memory+" --async --concurrency-range "+fmt.Sprint(callers), 20) // more rows than a batch has
		works(grpc+memory+" --async --streaming", 2)
	}
	works(overHTTP+" --input-tensor-format json --output-tensor-format json", 2)
	works(grpc+" --grpc-compression-algorithm gzip", 1)
	works(grpc+" --request-rate-range 100", 1)
	works(grpc+" --service-kind tfserving --shape input:64", 2)
	works("-i grpc -m numbered -u "+keyed.grpc+" -H authorization:"+key, 1)
	works("-i http -m numbered -u "+keyed.http+" -H x-api-key:"+key, 1)

	fails := func(args, want string) {
		t.Helper()
		if out, err := run(args + " --request-count 10"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s; want %s", args, err, out, want)
		}
	}
	for _, at := range []string{overHTTP, grpc} {
		fails(strings.Replace(at, "digits", "nope", 1), "failed to get model metadata: Request for unknown model: 'nope' is not found")
		fails(at+" -x 9", "failed to get model metadata: Request for unknown model: 'digits' version 9 is not found")
		fails(at+" --trace-level TIMESTAMPS", "this server does not trace requests")
	}
	fails("-i grpc -m numbered -u "+keyed.grpc, "no valid credential")
	fails("-i http -m numbered -u "+keyed.http, "no valid credential")
}

// waiting are the metrics of a server that say that requests are in flight or wait.
func waiting(s server) string {
	text, err := scrape(s)
	if err != nil {
		return err.Error()
	}
	return strings.Join(regexp.MustCompile(`(?m)^sluice_(in_flight|queued)\{.* [^0]\S*$`).FindAllString(text, -1), "; ")
}

// answered is how many requests the servers have counted: at least want, or as many as
// they have a while later, since an answer may be counted after it was sent.
func answered(t *testing.T, want float64, servers ...server) (n float64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		n = 0
		for _, s := range servers {
			text, err := scrape(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range regexp.MustCompile(`(?m)^sluice_requests_total\{.*\} (\S+)$`).FindAllStringSubmatch(text, -1) {
				value, err := strconv.ParseFloat(line[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				n += value
			}
		}
		if n >= want || time.Now().After(end) {
			return n
		}
	}
}

func scrape(s server) (string, error) {
	resp, err := http.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
