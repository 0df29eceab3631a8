package servers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A configuration of a proxy, for the address that it is to listen on.
type configure = func(addr string) string

// FreeAddr returns a loopback address, "127.0.0.1:port", that nothing listens on now. Another program may still take it.
func FreeAddr() (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return addrOf(ports[0]), nil
}

// StartCaddy starts a Caddy with the Caddyfile that config returns for a free loopback address. Its files are in dir. It
// returns when Caddy takes connections there. The endpoint by which Caddy is administrated is turned off, whatever the
// Caddyfile says of it: nothing else is changed.
func StartCaddy(dir string, config configure) (*Process, error) {
	return StartCaddyProgram("caddy", dir, config)
}

// StartCaddyProgram is [StartCaddy] with another program than Debian's, as one built from the module.
func StartCaddyProgram(program, dir string, config configure) (*Process, error) {
	return onFreeAddr(func(addr string) (*Process, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		path, err := exec.LookPath(program)
		if err != nil {
			return nil, missing(program, "caddy", err)
		}
		env := []string{"HOME=" + dir, "XDG_DATA_HOME=" + filepath.Join(dir, "data"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "config")}
		caddyfile, file := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "caddy.json")
		if err := os.WriteFile(caddyfile, []byte(config(addr)), 0o600); err != nil {
			return nil, err
		}
		adapt := exec.Command(path, "adapt", "--config", caddyfile, "--adapter", "caddyfile")
		var out, complaint bytes.Buffer
		adapt.Dir, adapt.Stdout, adapt.Stderr, adapt.SysProcAttr = dir, &out, &complaint, attributes()
		adapt.Env = append(os.Environ(), env...)
		if err := adapt.Run(); err != nil {
			return nil, fmt.Errorf("servers: caddy adapt: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
		}
		var parts map[string]json.RawMessage
		if err := json.Unmarshal(out.Bytes(), &parts); err != nil {
			return nil, fmt.Errorf("servers: caddy adapt: %w", err)
		}
		parts["admin"] = json.RawMessage(`{"disabled":true,"config":{"persist":false}}`)
		b, err := json.Marshal(parts)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return nil, err
		}
		return startProcess(addr, command{
			name: path, deb: "caddy", args: []string{"run", "--config", file}, dir: dir, env: env,
			ready: func() error { return listens(addr) },
		})
	})
}

// StartHAProxy starts an HAProxy with the configuration that config returns for a free loopback address. Its files are in
// dir. It returns when HAProxy takes connections there. Unless this is root, the lines "user haproxy" and "group haproxy" are
// left away: nobody else becomes somebody else, and HAProxy ends where it cannot.
func StartHAProxy(dir string, config configure) (*Process, error) {
	return onFreeAddr(func(addr string) (*Process, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "haproxy.cfg")
		text := config(addr)
		if os.Getuid() != 0 {
			text = strings.NewReplacer("    user haproxy\n", "", "    group haproxy\n", "").Replace(text)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return startProcess(addr, command{
			name: sbin("haproxy"), deb: "haproxy", args: []string{"-db", "-f", file}, dir: dir,
			ready: func() error { return listens(addr) },
		})
	})
}

// apacheModules are what Debian turns on by itself and a configuration takes for granted.
var apacheModules = []string{"mpm_event", "authz_core", "authz_host", "alias", "setenvif", "reqtimeout", "filter", "access_compat", "authn_core"}

// StartApache starts an Apache httpd with the modules that Debian turns on by itself, further ones by name ("proxy_http"),
// and what config returns for a free loopback address, on which config has it listen. Its files are in dir. It returns
// when it takes connections there.
func StartApache(dir string, modules []string, config configure) (*Process, error) {
	return onFreeAddr(func(addr string) (*Process, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		const lib = "/usr/lib/apache2/modules/"
		var b strings.Builder
		for _, m := range append(append([]string(nil), apacheModules...), modules...) {
			if so := lib + "mod_" + m + ".so"; exists(so) {
				fmt.Fprintf(&b, "LoadModule %s_module %s\n", m, so)
			}
		}
		fmt.Fprintf(&b, "ServerRoot %s\nDefaultRuntimeDir %[1]s\nPidFile %[1]s/apache.pid\nMutex file:%[1]s\nErrorLog /dev/stderr\nServerName localhost\n", dir)
		b.WriteString("ThreadsPerChild 16\nMaxRequestWorkers 16\nServerLimit 1\nStartServers 1\n")
		as, err := lesser(dir, "www-data")
		if err != nil {
			return nil, err
		}
		site, file := filepath.Join(dir, "site.conf"), filepath.Join(dir, "apache2.conf")
		fmt.Fprintf(&b, "Include %s\n", site)
		if err := errors.Join(os.WriteFile(site, []byte(config(addr)), 0o644), os.WriteFile(file, []byte(b.String()), 0o644)); err != nil {
			return nil, err
		}
		return startProcess(addr, command{
			name: sbin("apache2"), deb: "apache2-bin", dir: dir,
			args:  []string{"-f", file, "-X"}, // one process, which the system ends with this one
			ready: func() error { return listens(addr) },
			prepare: func(c *exec.Cmd) {
				as.own(filepath.Join(dir, "output")) // it opens what is its standard error anew
				as.apply(c)
			},
		})
	})
}

// onFreeAddr starts a server on a free address, on another one if it was taken meanwhile.
func onFreeAddr(start func(addr string) (*Process, error)) (*Process, error) {
	return retry(func() (*Process, error) {
		addr, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		return start(addr)
	})
}

// listens returns nil if the address takes connections.
func listens(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// sbin is where a program for root is, which is not on the path of others.
func sbin(name string) string {
	if path := "/usr/sbin/" + name; exists(path) {
		return path
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func missing(program, deb string, err error) error {
	return fmt.Errorf("servers: %s is not installed: it is in the Debian package %s (apt-get install %[2]s): %w", program, deb, err)
}
