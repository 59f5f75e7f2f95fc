package upstream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acked is how many bytes of what was written to n the peer's machine has confirmed
// to have. Not known: n is no TCP connection, or closed.
// Source: tcpi_bytes_acked of tcp(7), RFC 4898 tcpEStatsAppHCThruOctetsAcked; it
// counts the SYN as one byte.
func acked(n net.Conn) (bytes int64, known bool) {
	s, ok := n.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	err = raw.Control(func(fd uintptr) {
		info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || info == nil || info.Bytes_acked == 0 {
		return 0, false
	}
	return int64(info.Bytes_acked) - 1, true
}
