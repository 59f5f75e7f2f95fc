//go:build !linux

package upstream

import "net"

// acked is not known here.
func acked(net.Conn) (bytes int64, known bool) { return 0, false }
