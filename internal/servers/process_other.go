//go:build !linux

package servers

import "syscall"

// As on macOS and the BSDs.
const (
	sigStop = syscall.Signal(17)
	sigCont = syscall.Signal(19)
)

func attributes() *syscall.SysProcAttr { return nil }
