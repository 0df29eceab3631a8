package servers

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Program is an HTTP server of ours to start.
type Program struct {
	Path string   // the program
	Args []string // "ADDR" in them stands for the address to listen on
	Env  []string // added to this process's environment
	Dir  string   // where it runs; its output goes to the file "output" there
	// Ready is the path that answers 200 when the program is ready, as "/readyz".
	Ready string
}

// StartProgram starts the program on a free loopback port, and returns when it is ready.
func StartProgram(p Program) (*Process, error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	addr := addrOf(ports[0])
	args := make([]string, len(p.Args))
	for i, a := range p.Args {
		if args[i] = a; a == "ADDR" {
			args[i] = addr
		}
	}
	return startProcess(addr, command{
		name: p.Path, deb: "golang", args: args, dir: p.Dir, env: p.Env,
		ready: func() error { return answers("http://" + addr + p.Ready) },
	})
}

// StartNginx starts an nginx on a free loopback port with a configuration whose http block holds what http returns for the
// address to listen on. Its files are in dir. It returns when nginx answers, whatever it answers.
func StartNginx(dir string, http func(addr string) string) (*Process, error) {
	return onFreeAddr(func(addr string) (*Process, error) { return startNginx(addr, dir, http(addr)) })
}

func startNginx(addr, dir, http string) (*Process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	temp := ""
	for _, t := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += fmt.Sprintf("\t%s_temp_path %s;\n", t, filepath.Join(dir, t))
	}
	// Without a master there is one process, which the system ends with this one.
	user := ""
	if os.Getuid() == 0 { // its workers would become somebody who cannot read dir
		user = "user root;\n"
	}
	conf := fmt.Sprintf("%sdaemon off;\nmaster_process off;\npid %s;\nerror_log stderr;\nevents {}\nhttp {\n\taccess_log off;\n%s%s\n}\n",
		user, filepath.Join(dir, "nginx.pid"), temp, http)
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return startProcess(addr, command{
		name: sbin("nginx"), deb: "nginx-light", args: []string{"-c", name, "-p", dir, "-e", "stderr"}, dir: dir,
		ready: func() error {
			if err := answers("http://" + addr + "/"); err != nil && !isAnswer(err) {
				return err
			}
			return nil
		},
	})
}

// A statusError says that a server answered, but not 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("it answers %d", int(e)) }

func isAnswer(err error) bool { _, ok := err.(statusError); return ok }

func answers(url string) error {
	c := http.Client{Timeout: time.Second}
	defer c.CloseIdleConnections()
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp.StatusCode)
	}
	return nil
}
