package shm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// object makes a shared-memory object of size bytes, and returns its key.
func object(t *testing.T, size int) string {
	t.Helper()
	f, err := os.CreateTemp(folder, "sluice-test-")
	if err != nil {
		t.Skip("this machine has no shared memory: ", err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if _, err := f.Write(bytes.Repeat([]byte{7}, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return "/" + filepath.Base(f.Name())
}

func TestRegionsAreReadAndWritten(t *testing.T) {
	r := New()
	defer r.Close()
	key := object(t, 100)
	if err := r.Register("a", key, 10, 50); err != nil {
		t.Fatal(err)
	}
	if err := r.Write("a", 5, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Append([]byte("x"), "a", 4, 7); err != nil || string(got) != "x\x07hello\x07" {
		t.Errorf("%q, %v", got, err)
	}
	whole, err := os.ReadFile(folder + key)
	if err != nil || string(whole[15:20]) != "hello" || len(whole) != 100 {
		t.Errorf("the object is %q, %v", whole, err)
	}
	list, err := r.Status("")
	if want := fmt.Sprintf("[{a %s 10 50}]", key); err != nil || fmt.Sprint(list) != want {
		t.Errorf("%v, %v; want %s", list, err, want)
	}
	r.Unregister("a")
	r.Unregister("a")
	if _, err := r.Append(nil, "a", 0, 1); err == nil {
		t.Error("a region that was unregistered was read")
	}
}

func TestWhatCannotBeUsedIsRefused(t *testing.T) {
	r := New()
	defer r.Close()
	key := object(t, 100)
	f := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("got %v; want %s", err, want)
		}
	}
	if err := os.Symlink("/etc/hostname", folder+key+"-link"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(folder + key + "-link")
	for _, k := range []string{"", "/", "..", "../etc/passwd", "a/b", "a\x00b"} {
		f(r.Register("a", k, 0, 1), fmt.Sprintf("Unable to open shared memory region: '%s': the key must be a name as shm_open takes it, without a folder", k))
	}
	f(r.Register("a", key+"-link", 0, 1), "Unable to open shared memory region: '"+key+"-link'")
	f(r.Register("a", "/sluice-none", 0, 1), "Unable to open shared memory region: '/sluice-none'")
	f(r.Register("a", key, 90, 11), "shared memory region 'a' needs 11 bytes from 90 of an object that has 100")
	f(r.Register("a", key, 1<<63, 1<<63), "shared memory region 'a' needs 9223372036854775808 bytes from 9223372036854775808 of an object that has 100")
	f(r.Register(strings.Repeat("a", 257), key, 0, 1), "a shared memory region needs a name of at most 256 bytes")
	if err := r.Register("a", key, 0, 100); err != nil {
		t.Fatal(err)
	}
	f(r.Register("a", key, 0, 1), "shared memory region 'a' already in manager")
	_, err := r.Append(nil, "a", 99, 2)
	f(err, "Invalid offset + byte size for shared memory region: 'a': 2 bytes from 99 of a region that has 100")
	_, err = r.Append(nil, "a", 1<<63, 1<<63)
	f(err, "Invalid offset + byte size for shared memory region: 'a': 9223372036854775808 bytes from 9223372036854775808 of a region that has 100")
	_, err = r.Append(nil, "b", 0, 1)
	f(err, "Unable to find shared memory region: 'b'")
	_, err = r.Status("b")
	f(err, "Unable to find system shared memory region: 'b'")
}

// An object of a size that no machine has is not read as a whole.
func TestAHugeObjectIsNotRead(t *testing.T) {
	r := New()
	defer r.Close()
	key := object(t, 0)
	if err := os.Truncate(folder+key, 1<<40); err != nil {
		t.Skip("no sparse objects: ", err)
	}
	if err := r.Register("a", key, 0, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Append(nil, "a", 0, 1<<39); err == nil || !strings.Contains(err.Error(), "at most 268435456 bytes") {
		t.Error(err)
	}
}

// A client that cuts its object while it is used gets errors; nothing else happens,
// and the object does not grow again.
func TestACutObjectEndsNobody(t *testing.T) {
	r := New()
	defer r.Close()
	key := object(t, 1<<20)
	if err := r.Register("a", key, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(folder+key, 10); err != nil {
		t.Fatal(err)
	}
	want := "shared memory region 'a' needs 1048576 bytes from 0 of an object that has 10"
	if _, err := r.Append(nil, "a", 0, 1<<20); err == nil || err.Error() != want {
		t.Errorf("read: %v; want %s", err, want)
	}
	if err := r.Write("a", 0, make([]byte, 1<<20)); err == nil || err.Error() != want {
		t.Errorf("written: %v; want %s", err, want)
	}
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range 50 {
				_, _ = r.Append(nil, "a", 0, 1<<20)
			}
		})
	}
	for i := range 200 {
		if err := os.Truncate(folder+key, int64(i%2)<<20); err != nil {
			t.Fatal(err)
		}
	}
	r.Unregister("")
	users.Wait()
}
