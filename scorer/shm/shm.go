// Package shm is system shared memory that clients register, so that tensors need
// not cross a socket.
//
// It is read and written by system calls, not mapped: whoever truncates an object
// that is in use gets an error, where a mapping would end this process by a signal.
// A tensor is copied once in either case, since what a client may change must not
// be read by a device.
package shm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"sluice.dev/scorer"
)

// folder is where the objects of shm_open are on Linux.
const folder = "/dev/shm"

// maxRegions bounds how many regions there are at a time, and so open files.
const maxRegions = 1024

// maxTensor bounds what is read at once in bytes: an object may claim to be larger
// than this machine's memory.
const maxTensor = 256 << 20

// Regions are those that clients have registered. Safe for concurrent use. Errors
// are *scorer.Error. Close ends it.
type Regions struct {
	mu      sync.RWMutex
	regions map[string]*region
}

type region struct {
	scorer.Region
	file *os.File
}

// New makes an empty set of regions.
func New() *Regions { return &Regions{regions: map[string]*region{}} }

func bad(format string, args ...any) error {
	return scorer.Errorf(scorer.InvalidArgument, format, args...)
}

// Register names bytes [offset, offset+size) of the object that key names, as
// shm_open does. The object must be as long.
func (r *Regions) Register(name, key string, offset, size uint64) error {
	if name == "" || len(name) > 256 {
		return bad("a shared memory region needs a name of at most 256 bytes")
	}
	object := strings.TrimPrefix(key, "/")
	if object == "" || object == "." || object == ".." || len(object) > 255 || strings.ContainsAny(object, "/\x00") {
		return bad("Unable to open shared memory region: '%.64s': the key must be a name as shm_open takes it, without a folder", key)
	}
	f, err := os.OpenFile(filepath.Join(folder, object), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return bad("Unable to open shared memory region: '%.64s'", key)
	}
	add := &region{scorer.Region{Name: name, Key: key, Offset: offset, Size: size}, f}
	err = add.holds(offset, size)
	if err == nil {
		err = r.add(add)
	}
	if err != nil {
		_ = f.Close() // nothing was written
	}
	return err
}

func (r *Regions) add(g *region) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.regions[g.Name] != nil:
		return bad("shared memory region '%s' already in manager", g.Name)
	case len(r.regions) == maxRegions:
		return scorer.Errorf(scorer.Exhausted, "there are %d shared memory regions already; unregister one", maxRegions)
	}
	r.regions[g.Name] = g
	return nil
}

// holds checks that the object has bytes [offset, offset+size) now.
func (g *region) holds(offset, size uint64) error {
	info, err := g.file.Stat()
	switch {
	case err != nil || !info.Mode().IsRegular():
		return bad("shared memory region '%s' is not shared memory", g.Name)
	case offset+size < offset || offset+size > uint64(info.Size()):
		return bad("shared memory region '%s' needs %d bytes from %d of an object that has %d", g.Name, size, offset, info.Size())
	}
	return nil
}

// Unregister forgets a region, or all where name is empty. What is being read or
// written of it is finished.
func (r *Regions) Unregister(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, g := range r.regions {
		if name == "" || n == name {
			_ = g.file.Close() // when nobody uses it any more
			delete(r.regions, n)
		}
	}
}

// Close forgets all regions.
func (r *Regions) Close() { r.Unregister("") }

// Status tells of one region, or of all by name where name is empty.
func (r *Regions) Status(name string) ([]scorer.Region, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []scorer.Region{}
	for n, g := range r.regions {
		if name == "" || n == name {
			list = append(list, g.Region)
		}
	}
	if name != "" && len(list) == 0 {
		return nil, unknown(name)
	}
	slices.SortFunc(list, func(a, b scorer.Region) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func unknown(name string) error {
	return scorer.Errorf(scorer.NotFound, "Unable to find system shared memory region: '%.64s'", name)
}

// at finds bytes [offset, offset+size) of a region, and their place in its object.
func (r *Regions) at(name string, offset, size uint64) (*region, int64, error) {
	r.mu.RLock()
	g := r.regions[name]
	r.mu.RUnlock()
	if g == nil {
		return nil, 0, bad("Unable to find shared memory region: '%.64s'", name)
	}
	if offset+size < offset || offset+size > g.Size {
		return nil, 0, bad("Invalid offset + byte size for shared memory region: '%s': %d bytes from %d of a region that has %d", g.Name, size, offset, g.Size)
	}
	return g, int64(g.Offset + offset), g.holds(g.Offset+offset, size)
}

// Append adds to dst size bytes at offset of a region, as they are now.
func (r *Regions) Append(dst []byte, name string, offset, size uint64) ([]byte, error) {
	g, from, err := r.at(name, offset, size)
	if err == nil && size > maxTensor {
		err = scorer.Errorf(scorer.TooLarge, "shared memory region '%s': a tensor has at most %d bytes", g.Name, maxTensor)
	}
	if err != nil {
		return dst, err
	}
	n := len(dst)
	dst = slices.Grow(dst, int(size))[:n+int(size)]
	if _, err := g.file.ReadAt(dst[n:], from); err != nil {
		return dst[:n], g.lost(err)
	}
	return dst, nil
}

// Write puts data at offset of a region.
func (r *Regions) Write(name string, offset uint64, data []byte) error {
	g, from, err := r.at(name, offset, uint64(len(data)))
	if err != nil {
		return err
	}
	if _, err := g.file.WriteAt(data, from); err != nil {
		return g.lost(err)
	}
	return nil
}

// lost says why a region could not be used that was there a moment ago.
func (g *region) lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
		return bad("shared memory region '%s' was made smaller or unregistered while it was used", g.Name)
	}
	return scorer.Errorf(scorer.Internal, "shared memory region '%s' cannot be used", g.Name)
}
