package servers

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a running PostgreSQL with one database, "postgres". Pause, Resume and Kill mean all its processes.
type Postgres struct {
	*Process
	// URL is where to connect, as the superuser, with a password of this server's own.
	URL string
	// Dir is the directory of its data.
	Dir string
}

const postgresPackage = "postgresql"

// StartPostgres makes a database in dir, if there is none, and starts PostgreSQL on it, with lines of configuration such
// as "max_connections = 50". PostgreSQL refuses to run as root; where this program does, the directory is given to the
// user postgres, or else nobody, and the server runs as that.
func StartPostgres(dir string, config ...string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	as, err := lesser(dir, "postgres")
	if err != nil {
		return nil, err
	}
	data, password := filepath.Join(dir, "data"), ""
	if password, err = initdb(bin, dir, data, as); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		p, err := startPostgres(bin, dir, data, password, as, config)
		if err == nil || try == 4 || !portTaken(filepath.Join(dir, "output")) {
			return p, err
		}
	}
}

func startPostgres(bin, dir, data, password string, as *identity, config []string) (*Postgres, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	addr := addrOf(ports[0])
	lines := append([]string{
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(ports[0]),
		"unix_socket_directories = ''",
		"dynamic_shared_memory_type = mmap", // leaves nothing in /dev/shm when it is killed
	}, config...)
	if err := os.WriteFile(filepath.Join(data, "servers.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	p, err := startProcess(addr, command{
		name: filepath.Join(bin, "postgres"), deb: postgresPackage, args: []string{"-D", data}, dir: dir,
		term:    syscall.SIGINT, // "fast": clients are sent away; SIGTERM waits for them
		ready:   func() error { return postgresReady(addr) },
		prepare: as.apply,
	})
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password), Host: addr, Path: "/postgres", RawQuery: "sslmode=disable"}
	return &Postgres{p, u.String(), data}, nil
}

// StartPostgresStandby copies the data of a running server into dir, and starts a standby on it that follows that server. It has
// the server's user and password.
func StartPostgresStandby(dir string, primary *Postgres, config ...string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	as, err := lesser(dir, "postgres")
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(primary.URL)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	data := filepath.Join(dir, "data")
	// -R has it follow the server that it was copied from.
	c := exec.Command(filepath.Join(bin, "pg_basebackup"), "-D", data, "-R", "--checkpoint", "fast", "--no-sync",
		"-h", u.Hostname(), "-p", u.Port(), "-U", u.User.Username())
	c.Dir, c.SysProcAttr = dir, attributes()
	c.Env = append(os.Environ(), "PGPASSWORD="+password)
	as.apply(c)
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("servers: pg_basebackup into %s: %w: %s", data, err, bytes.TrimSpace(out))
	}
	for try := 0; ; try++ {
		p, err := startPostgres(bin, dir, data, password, as, config)
		if err == nil || try == 4 || !portTaken(filepath.Join(dir, "output")) {
			return p, err
		}
	}
}

// Promote has a standby take over: it takes writes from then on, a moment after Promote has returned.
func (p *Postgres) Promote() error {
	// What pg_ctl does, which would have to run as the server's user.
	if err := os.WriteFile(filepath.Join(p.Dir, "promote"), nil, 0o644); err != nil {
		return err
	}
	return signalPid(p.Pid(), sigPromote)
}

// postgresBin returns the directory of PostgreSQL's programs, of the newest version where there are several.
func postgresBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		version := func(path string) int {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
			return n
		}
		newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
		return filepath.Dir(newest), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("servers: postgres is not installed: it is in the Debian package %s (apt-get install %[1]s): %w", postgresPackage, err)
	}
	return filepath.Dir(path), nil
}

// initdb makes the database, unless there is one, and returns the superuser's password.
func initdb(bin, dir, data string, as *identity) (password string, err error) {
	secret := filepath.Join(dir, "password")
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		b, err := os.ReadFile(secret)
		return string(b), err
	}
	password = rand.Text()
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return "", err
	}
	if err := as.own(secret); err != nil {
		return "", err
	}
	c := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", secret,
		"-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	c.Dir, c.SysProcAttr = dir, attributes()
	as.apply(c)
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("servers: initdb in %s: %w: %s", data, err, bytes.TrimSpace(out))
	}
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString("include = 'servers.conf'\n")
	return password, errors.Join(err, f.Close())
}

// postgresReady asks for a connection and looks whether the server wants to know who we are: until it is ready it
// answers with an error.
func postgresReady(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	const parameters = "user\x00postgres\x00database\x00postgres\x00\x00"
	hello := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	hello = binary.BigEndian.AppendUint32(hello, 3<<16) // version 3.0
	if _, err := c.Write(append(hello, parameters...)); err != nil {
		return err
	}
	kind, err := bufio.NewReader(c).ReadByte()
	if err != nil {
		return err
	}
	if kind != 'R' { // a request for authentication
		return errors.New("it does not take connections yet")
	}
	return nil
}

// portTaken reports whether the server's last words were that its port is taken.
func portTaken(output string) bool {
	b, err := os.ReadFile(output)
	return err == nil && bytes.Contains(b[max(0, len(b)-1000):], []byte("Address already in use"))
}

// Restart stops the server as pg_ctl does with mode "fast", which ends all connections and writes everything out, or
// "immediate", which is a crash: the log is replayed at the start. Then it starts it again.
func (p *Postgres) Restart(mode string) error {
	how := map[string]os.Signal{"fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}[mode]
	if how == nil {
		return fmt.Errorf("servers: restart of PostgreSQL: mode %q is neither fast nor immediate", mode)
	}
	if err := p.finish(how); err != nil {
		return err
	}
	return p.Start()
}

// Kill ends all processes of the server at once, and waits until they have ended: as long as one is there, it holds the
// memory that they share, and the server does not start again.
func (p *Postgres) Kill() error {
	if p.Pid() != 0 {
		p.Process.Pause() // it makes no more
	}
	pids := p.children()
	err := p.Process.Kill()
	for _, pid := range pids {
		err = errors.Join(err, signalPid(pid, syscall.SIGKILL))
	}
	for end := time.Now().Add(patience); slices.ContainsFunc(pids, lives); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.Join(err, errors.New("servers: processes of PostgreSQL outlive it"))
		}
	}
	return err
}

// Pause stops all processes of the server as they are.
func (p *Postgres) Pause() error {
	if err := p.Process.Pause(); err != nil { // first the one that makes others
		return err
	}
	for _, pid := range p.children() {
		if err := signalPid(pid, sigStop); err != nil {
			return err
		}
	}
	return nil
}

// Resume lets the processes of a paused server go on.
func (p *Postgres) Resume() error {
	for _, pid := range p.children() {
		if err := signalPid(pid, sigCont); err != nil {
			return err
		}
	}
	return p.Process.Resume()
}

// Stop ends the server, also while it is paused, and its processes with it.
func (p *Postgres) Stop() error {
	for _, pid := range p.children() {
		signalPid(pid, sigCont) // one that has ended by itself is as good
	}
	return p.Process.Stop()
}

func signalPid(pid int, s syscall.Signal) error {
	proc, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := proc.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("servers: process %d of PostgreSQL: %w", pid, err)
	}
	return nil
}

// children returns the ids of the processes that the server has started.
func (p *Postgres) children() []int {
	parent := p.Pid()
	if parent == 0 {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if f := stat(pid); err == nil && len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// lives reports whether the process is there and has not ended.
func lives(pid int) bool {
	f := stat(pid)
	return len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// stat returns what the system says of a process: its state, its parent's id, and more. It is nil if it is not there.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // behind "pid (name)", where the name may hold anything
}
