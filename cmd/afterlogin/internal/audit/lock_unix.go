//go:build unix

package audit

import (
	"os"
	"syscall"
)

// hold locks the file for as long as it is open.
func hold(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
