package state

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll waits until all that was written to a folder's file system is there.
func syncAll(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
