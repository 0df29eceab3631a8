// Package servers starts private servers on free loopback ports, for tests, benchmarks and the examples: one
// redis-server or a cluster of them, Sentinel, PostgreSQL, and the proxies nginx, Caddy, HAProxy and Apache. It needs their
// programs on the machine and nothing else; if one is missing, the error names the Debian package that has it.
//
// No server outlives the program that started it, where the system can see to that (Linux). Start with [StartRedis],
// [StartRedisCluster], [StartSentinel], [StartPostgres], [StartNginx], [StartCaddy], [StartHAProxy] or [StartApache]; end
// with Stop.
package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// patience is how long a server may take to come up, or to end when it is asked to.
const patience = 30 * time.Second

// A command is what it takes to start a server, as often as one likes.
type command struct {
	name  string       // the program: a name on the path, or a path
	deb   string       // the Debian package that has it
	args  []string     // its arguments
	dir   string       // where it runs, and where its output goes: the file "output"
	env   []string     // added to this process's environment
	term  os.Signal    // asks it to end; nil: SIGTERM
	ready func() error // nil when it answers; asked every few milliseconds, must not block for long

	prepare func(*exec.Cmd) // last changes before it starts; may be nil
}

// A Process is a running server, or one that was stopped and can be started again on the same port and directory. Its
// methods are safe for concurrent use.
type Process struct {
	Addr string // host and port, "127.0.0.1:port"
	cmd  command

	mu  sync.Mutex
	run *exec.Cmd     // nil while it does not run
	end chan struct{} // closed when run has ended
}

// startProcess starts c, which listens on addr, and returns when it is ready.
func startProcess(addr string, c command) (*Process, error) {
	p := &Process{Addr: addr, cmd: c}
	if err := p.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// Start starts the server again after Stop or Kill, and returns when it answers.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("servers: %s on %s runs already", p.cmd.name, p.Addr)
	}
	if err := p.launch(); err != nil {
		return err
	}
	if err := p.waitReady(); err != nil {
		p.run.Process.Kill()
		<-p.end
		return err
	}
	return nil
}

// launch starts the program. The thread that does must live as long as the program: the system tells a child of the death
// of its parent's thread, not of its process.
func (p *Process) launch() error {
	path, err := exec.LookPath(p.cmd.name)
	if err != nil {
		return missing(p.cmd.name, p.cmd.deb, err)
	}
	out, err := os.OpenFile(p.output(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	run := exec.Command(path, p.cmd.args...)
	run.Dir, run.Stdout, run.Stderr, run.SysProcAttr = p.cmd.dir, out, out, attributes()
	run.Env = append(os.Environ(), p.cmd.env...)
	if p.cmd.prepare != nil {
		p.cmd.prepare(run)
	}
	end, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(end)
		defer out.Close()
		err := run.Start()
		started <- err
		if err == nil {
			run.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	p.run, p.end = run, end
	return nil
}

func (p *Process) waitReady() error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = p.cmd.ready(); err == nil {
			return nil
		}
		select {
		case <-p.end:
			return fmt.Errorf("servers: %s on %s ended at once: %s", p.cmd.name, p.Addr, p.tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("servers: %s on %s does not answer: %w: %s", p.cmd.name, p.Addr, err, p.tail())
}

func (p *Process) output() string { return filepath.Join(p.cmd.dir, "output") }

// tail returns the end of what the server has said.
func (p *Process) tail() string {
	b, err := os.ReadFile(p.output())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

func (p *Process) running() bool {
	if p.run == nil {
		return false
	}
	select {
	case <-p.end:
		return false
	default:
		return true
	}
}

// Pid returns the process id, 0 if the server does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.run.Process.Pid
}

// Stop asks the server to end, wakes it if it is paused, and waits until it has ended. One that does not run is no error.
func (p *Process) Stop() error {
	term := p.cmd.term
	if term == nil {
		term = syscall.SIGTERM
	}
	return p.finish(term, sigCont)
}

// Kill ends the server at once, as a crash does, and waits until it has ended. One that does not run is no error.
func (p *Process) Kill() error { return p.finish(syscall.SIGKILL) }

func (p *Process) finish(signals ...os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	for _, s := range signals {
		if err := p.run.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("servers: %s on %s: %w", p.cmd.name, p.Addr, err)
		}
	}
	select {
	case <-p.end:
		return nil
	case <-time.After(patience):
	}
	p.run.Process.Kill()
	<-p.end
	return fmt.Errorf("servers: %s on %s did not end within %v and was killed", p.cmd.name, p.Addr, patience)
}

// Pause stops the server as it is (SIGSTOP): it keeps its connections and answers nothing.
func (p *Process) Pause() error { return p.signal(sigStop) }

// Resume lets a paused server go on.
func (p *Process) Resume() error { return p.signal(sigCont) }

func (p *Process) signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("servers: %s on %s does not run", p.cmd.name, p.Addr)
	}
	return p.run.Process.Signal(s)
}

// freePorts returns n loopback ports that nothing listens on now. They are below those that the system gives to outgoing
// connections, so that a server that was stopped finds its port free when it starts again. Another program may still
// take one: callers try anew.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		l, err := net.Listen("tcp", addrOf(port))
		if err != nil {
			continue
		}
		defer l.Close() // not before all are found: no port twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("servers: no %d free ports on the loopback interface", n)
}

func addrOf(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
