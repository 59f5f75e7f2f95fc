package serve

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/tensor"
	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/router"
	"sluice.dev/scorer"
	"sluice.dev/scorer/lane"
	"sluice.dev/scorer/model"
)

// slow is a device with one slot, on which a run takes a millisecond, and once shut
// is set also a token.
type slow struct {
	null.Driver
	shut   atomic.Bool
	tokens chan struct{}
	inside atomic.Int64
}

func (d *slow) Devices() ([]accel.Device, error) {
	return []accel.Device{{ID: "0", Name: "slow", Slots: 1}}, nil
}

func (d *slow) Open(m accel.Model, o accel.Options) (accel.Instance, error) {
	inst, err := d.Driver.Open(m, o)
	return slowInstance{inst, d}, err
}

type slowInstance struct {
	accel.Instance
	device *slow
}

func (i slowInstance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	c, err := i.Instance.Bind(in, out)
	return slowCall{c, i.device}, err
}

type slowCall struct {
	accel.Call
	device *slow
}

func (c slowCall) Run() error {
	c.device.inside.Add(1)
	defer c.device.inside.Add(-1)
	if time.Sleep(time.Millisecond); c.device.shut.Load() { // the run's own time: nothing waits for it
		<-c.device.tokens
	}
	return c.Call.Run()
}

// named is an authenticator that believes what callers say they are.
type named struct{}

func (named) Authenticate(credential []byte) (*auth.Principal, error) {
	return &auth.Principal{ID: string(credential), MayPin: true, MaxPriority: auth.High}, nil
}

// bench is a gateway's path before a scorer's one model, which lets as many requests
// wait at the scorer as come.
type bench struct {
	t       *testing.T
	device  *slow
	path    *gateway.Path
	version *model.Version

	asked sync.WaitGroup
	mu    sync.Mutex
	order []string // what was answered
}

func newBench(t *testing.T, beyond bool) *bench {
	b := &bench{t: t, device: &slow{tokens: make(chan struct{})}, path: gateway.NewPath(gateway.Config{})}
	t.Cleanup(b.path.Close)
	set := model.NewSet([]accel.Driver{b.device}, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(set.Close)
	file := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	key := model.Key{Endpoint: "digits", Version: "v"}
	stage, err := set.Stage(t.Context(), []model.Config{{Endpoint: key.Endpoint, Version: key.Version, Path: file, Accelerator: "null", MaxBatch: 1}})
	if err != nil {
		t.Fatal(err)
	}
	stage.Commit()
	b.version = stage.Versions()[key]
	split, err := router.New("digits", []router.Version{{Name: "v", Default: true}}, router.NewSequence())
	if err != nil {
		t.Fatal(err)
	}
	pool := b.path.Pool(gateway.Key(key))
	pool.SetLimit(1000)
	v := &gateway.Version{Version: split.Versions[0], Pool: pool, Limits: gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}}
	s := gateway.NewSnapshot(1, []*gateway.Endpoint{{Name: "digits", Auth: named{}, Split: split, Versions: []*gateway.Version{v}}})
	if beyond {
		b.connect(set, stage, s)
		b.until("connected", pool.Ready) // though s is not served yet
		b.path.Swap(s)
		return b
	}
	b.path.Swap(s)
	offered, _ := staged(stage, nil, gateway.Key(key))
	pool.SetReplicas(offered)
	return b
}

// connect puts a lane between the path and the scorer.
func (b *bench) connect(set *model.Set, stage *model.Stage, s *gateway.Snapshot) {
	shelf := newShelf(set.Start, set.Abandon)
	server := lane.NewServer(lane.ServerConfig{}, shelf)
	server.Announce(shelf.put(stage.Versions()))
	l, err := net.Listen("unix", filepath.Join(b.t.TempDir(), "lane"))
	if err != nil {
		b.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	d := &directory{replicas: map[*lane.Client][]*lane.Remote{}}
	d.fill(s, nil)
	client := d.dial("unix://"+l.Addr().String(), Options{Log: slog.New(slog.DiscardHandler)})
	b.t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		if err := <-served; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			b.t.Fatalf("never %s", what)
		}
	}
}

var row = []byte(`{"inputs":[{"name":"input","shape":[1,64],"datatype":"FP32","data":[` + strings.TrimSuffix(strings.Repeat("0,", 64), ",") + `]}]}`)

// ask sends a request and returns when it runs or waits at the scorer.
func (b *bench) ask(caller, priority string) {
	b.t.Helper()
	before := b.there()
	b.asked.Go(func() {
		c := b.path.Call()
		defer b.path.Done(c)
		c.Name, c.Credential = []byte("digits"), []byte(caller)
		c.SetPriority([]byte(priority))
		c.SetBody(scorer.OIP, 0, row)
		b.path.Serve(c)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.order = append(b.order, strings.TrimSpace(fmt.Sprint(caller, " ", priority)))
		if c.Response.Status != scorer.OK {
			b.t.Errorf("%s was answered %v %s", caller, c.Response.Status, c.Response.Body)
		}
	})
	b.until("there", func() bool { return b.there() > before })
}

func (b *bench) there() int64 { return int64(b.version.Waiting()) + b.device.inside.Load() }

// drain lets one run after another and returns what was answered.
func (b *bench) drain(runs int) []string {
	for n := range runs {
		b.device.tokens <- struct{}{}
		b.until("answered", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.order) > n })
	}
	b.asked.Wait()
	return b.order
}

// What a gateway knows of a request's class and caller orders the scorer's own queue,
// in one process as beyond a lane.
func TestTheScorersQueueIsByClassAndFairToCallers(t *testing.T) {
	for _, beyond := range []bool{false, true} {
		for _, late := range [][2]string{{"other", ""}, {"flood", "high"}, {"flood", ""}} {
			b := newBench(t, beyond)
			b.device.shut.Store(true)
			const flood = 20
			for range flood {
				b.ask("flood", map[bool]string{true: "low"}[late[1] != ""])
			}
			b.ask(late[0], late[1])
			order := b.drain(flood + 1)
			want := 1 // one was running
			if late == [2]string{"flood", ""} {
				want = flood // nothing tells it from the others: it is the last
			}
			if got := order[want]; got != strings.TrimSpace(late[0]+" "+late[1]) {
				t.Errorf("beyond a lane: %v: request %d is %q of %q", beyond, want, got, order)
			}
		}
	}
}

// A caller who leaves frees its place in the scorer's queue at once, in one process as
// beyond a lane.
func TestWhoLeavesLeavesTheScorersQueue(t *testing.T) {
	for _, beyond := range []bool{false, true} {
		b := newBench(t, beyond)
		b.device.shut.Store(true)
		b.ask("stays", "")
		var calls []*gateway.Call
		var left sync.WaitGroup
		for range 5 {
			before, c := b.there(), b.path.Call()
			c.Name, c.Credential = []byte("digits"), []byte("leaves")
			c.SetBody(scorer.OIP, 0, row)
			calls = append(calls, c)
			left.Go(func() { b.path.Serve(c) })
			b.until("there", func() bool { return b.there() > before })
		}
		for _, c := range calls {
			c.Leave()
		}
		left.Wait()
		b.until("without those who left", func() bool { return b.version.Waiting() == 0 })
		for _, c := range calls {
			if c.Response.Status != scorer.Canceled {
				t.Errorf("beyond a lane: %v: answered %v", beyond, c.Response.Status)
			}
			b.path.Done(c)
		}
		b.drain(1)
	}
}

// A version that is gone leaves nothing behind but its number, which is never another's.
func TestTheShelfForgetsWhatIsGone(t *testing.T) {
	s := newShelf(func() {}, func() {})
	key := model.Key{Endpoint: "digits", Version: "v"}
	var last *model.Version
	for n := range 10 {
		last = &model.Version{}
		current := map[model.Key]*model.Version{key: last}
		if offers := s.put(current); len(offers) != n+1 {
			t.Errorf("reload %d: number %d is offered", n, len(offers)-1)
		}
		s.drop(current)
	}
	list := *s.versions.Load()
	if slices.ContainsFunc(list[:9], func(v *model.Version) bool { return v != nil }) || list[9] != last {
		t.Errorf("after ten reloads there are %v", list)
	}
	server := lane.NewServer(lane.ServerConfig{}, s)
	server.Announce([]scorer.Offer{{Window: 1}}) // as a gateway knew it that has not heard
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "lane"))
	if err != nil {
		t.Fatal(err)
	}
	served, offered := make(chan error, 1), make(chan []*lane.Remote, 10)
	go func() { served <- server.Serve(l) }()
	client := lane.Dial(lane.ClientConfig{Network: "unix", Address: l.Addr().String(), OnOffers: func(list []*lane.Remote) { offered <- list }})
	req := scorer.Request{Deadline: scorer.Now().Add(time.Minute), Wait: scorer.NewWaiter()}
	var resp scorer.Response
	if (<-offered)[0].Score(&req, &resp); resp.Status != scorer.Unavailable || !resp.NotStarted {
		t.Errorf("a request for one that is gone was answered %v %s", resp.Status, resp.Body)
	}
	_ = client.Close()
	_ = server.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
