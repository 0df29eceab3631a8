//go:build unix

package servers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sigPromote has the server look whether it is to be promoted.
const sigPromote = syscall.SIGUSR1

// An identity is whom to run a program as; nil for this process's own.
type identity struct{ uid, gid uint32 }

// lesser returns whom a program runs as that does not run as root, and gives dir to that user if it is another than this
// process's: the first of the names that there is, or else nobody.
func lesser(dir string, names ...string) (*identity, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var u *user.User
	var err error
	for _, name := range append(names, "nobody") {
		if u, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("servers: it does not run as root, and there is none of the users %s and nobody: %w", strings.Join(names, ", "), err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	as := &identity{uint32(uid), uint32(gid)}
	// The directories of tests are closed to everybody else. That user has to pass through them, and need not see more.
	temp := filepath.Clean(os.TempDir()) + string(filepath.Separator)
	for parent := filepath.Dir(dir); strings.HasPrefix(parent, temp); parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(parent, info.Mode().Perm()|0o011); err != nil {
			return nil, err
		}
	}
	return as, as.own(dir)
}

// own gives a file to the identity.
func (as *identity) own(name string) error {
	if as == nil {
		return nil
	}
	return os.Chown(name, int(as.uid), int(as.gid))
}

// apply has the command run as the identity.
func (as *identity) apply(c *exec.Cmd) {
	if as == nil {
		return
	}
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
}
