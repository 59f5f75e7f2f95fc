//go:build !linux

package httpapi

import "net"

// leavers does nothing where the kernel does not tell of clients that leave: their
// requests end with their deadline.
type leavers struct{}

func newLeavers() (*leavers, error) { return &leavers{}, nil }

func (*leavers) close()              {}
func (*leavers) add(*conn, net.Conn) {}
func (*leavers) remove(*conn)        {}
