package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// introspected is how many tokens are asked about.
const introspected = 10_000

func introspectComparisons() []comparison {
	against := func(name, what string, target float64) comparison {
		return comparison{
			name: "introspect/" + name, target: target,
			what: "RFC 7662 introspection of an opaque token by the server, a client with Basic, against " + what,
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				return setIntrospect(name)
			},
		}
	}
	out := []comparison{
		against("zitadel", "the example server of zitadel/oidc as it is, in memory, its output into /dev/null", 2.5),
		against("zitadel-quiet", "the same without a log", 1.5),
		against("net-http", "net/http answering the same bytes", 0.75),
	}
	for _, n := range []int{1, 16, 64} {
		out = append(out, comparison{
			name: fmt.Sprintf("durable/refresh-%d", n), target: 0, unit: "/s",
			what: fmt.Sprintf("refresh_token grants on Pebble, durable, from %d clients", n),
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				return setRefresh(n)
			},
		})
	}
	return out
}

// referenceArg makes the program a server to compare with. Each side is a process of its own, as ours is.
const referenceArg = "serve-reference"

// serveReference is that server. It prints what it is to be asked about, a line each, and then an empty line.
func serveReference(args []string) int {
	if len(args) != 2 {
		return 2
	}
	var h http.Handler
	var err error
	switch args[0] {
	case "zitadel":
		out, oerr := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // what it writes to its standard output, as with > /dev/null
		if oerr != nil {
			fmt.Fprintln(os.Stderr, oerr)
			return 1
		}
		h, err = zitadelExample(args[1], slog.NewTextHandler(out, &slog.HandlerOptions{AddSource: true, Level: slog.LevelDebug}))
	case "zitadel-quiet":
		h, err = zitadelExample(args[1], slog.DiscardHandler)
	case "net-http":
		h, err = sameBytes()
	case "gateway":
		h, err = benchGateway()
	default:
		err = errors.New("unknown reference")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := net.Listen("tcp", args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println()
	fmt.Fprintln(os.Stderr, http.Serve(l, h))
	return 1
}

// zitadelExample is the example server, with the log that it is given. As it is, it logs every request.
func zitadelExample(address string, log slog.Handler) (http.Handler, error) {
	issuer := "http://" + address + "/"
	storage.RegisterClients(storage.WebClient("api", "secret", issuer))
	st := storage.NewStorage(storage.NewUserStore(issuer))
	h := exampleop.SetupServer(issuer, st, slog.New(log), false)
	crypto := op.NewAES256GCMCrypto(sha256.Sum256([]byte("test")), "key1") // as the example itself issues them
	for range introspected {
		r := &oidc.JWTTokenRequest{Subject: "id1", Audience: []string{"api"}, Scopes: []string{"openid"}}
		id, _, err := st.CreateAccessToken(context.Background(), r)
		if err != nil {
			return nil, err
		}
		text, err := crypto.Encrypt(id + ":id1")
		if err != nil {
			return nil, err
		}
		fmt.Println(text)
	}
	return h, nil
}

// sameBytes reads a request and answers what is given on standard input: headers, an empty line, and a body.
func sameBytes() (http.Handler, error) {
	resp, err := http.ReadResponse(bufio.NewReader(os.Stdin), nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.Write(body)
	}), nil
}

// process is a server that was started.
type process struct {
	cmd     *exec.Cmd
	address string
}

func (p *process) end() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startOurs builds the server, starts it on an empty store, and returns tokens of a client of it.
func startOurs(dir string) (p *process, secret string, tokens []string, err error) {
	bin := filepath.Join(dir, "afterlogin")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/afterlogin/afterlogin/cmd/afterlogin").CombinedOutput(); err != nil {
		return nil, "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	p = new(process)
	if p.address, err = freeAddress(); err != nil {
		return nil, "", nil, err
	}
	p.cmd = exec.Command(bin, "serve", "--data", filepath.Join(dir, "data"), "--listen", p.address, "--log-level", "error")
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, "", nil, err
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + p.address + "/readyz"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Since(start) > 20*time.Second {
			p.end()
			return nil, "", nil, errors.New("the server does not answer")
		}
	}
	secret, tokens, err = issueTokens(p.address, filepath.Join(dir, "data", "admin.key"))
	if err != nil {
		p.end()
	}
	return p, secret, tokens, err
}

func issueTokens(address, keyFile string) (secret string, tokens []string, err error) {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return "", nil, err
	}
	call := func(path, media, auth, body string, out any) error {
		r, err := http.NewRequest("POST", "http://"+address+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", media)
		r.Header.Set("Authorization", auth)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode > 201 {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return json.NewDecoder(resp.Body).Decode(out)
	}
	var made struct{ Secret string }
	err = call("/v1/clients", "application/json", "Bearer "+strings.TrimSpace(string(key)),
		`{"id":"api","name":"bench","auth":"secret","grant_types":["client_credentials"],"scopes":["profile"]}`, &made)
	if err != nil {
		return "", nil, err
	}
	tokens = make([]string, introspected)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for c := range errs {
		wg.Go(func() {
			for i := c; i < len(tokens); i += len(errs) {
				var got struct {
					AccessToken string `json:"access_token"`
				}
				if err := call("/oauth/token", "application/x-www-form-urlencoded", basicAuth("api", made.Secret), "grant_type=client_credentials&scope=profile", &got); err != nil {
					errs[c] = err
					return
				}
				tokens[i] = got.AccessToken
			}
		})
	}
	wg.Wait()
	return made.Secret, tokens, errors.Join(errs...)
}

func basicAuth(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// startReference starts this program as the server to compare with.
func startReference(name, answer string) (p *process, tokens []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p = new(process)
	if p.address, err = freeAddress(); err != nil {
		return nil, nil, err
	}
	p.cmd = exec.Command(self, referenceArg, name, p.address)
	p.cmd.Stdin, p.cmd.Stderr = strings.NewReader(answer), os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "" {
			return p, tokens, nil
		}
		tokens = append(tokens, lines.Text())
	}
	p.end()
	return nil, nil, errors.New("the reference does not start")
}

// introspections returns a target that asks about the tokens.
func introspections(address, path, auth string, tokens []string) *target {
	t := &target{address: address}
	for _, token := range tokens {
		body := "token=" + url.QueryEscape(token)
		t.requests = append(t.requests, fmt.Appendf(nil,
			"POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAuthorization: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
			path, address, auth, len(body), body))
	}
	return t
}

// once returns the answer to one of the target's requests.
func (t *target) once() (string, error) {
	conn, err := net.Dial("tcp", t.address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write(t.requests[0]); err != nil {
		return "", err
	}
	buf := make([]byte, 8192)
	n, err := conn.Read(buf)
	if err != nil {
		return "", err
	}
	if !bytes.Contains(buf[:n], []byte(`"active":true`)) {
		return "", fmt.Errorf("not a good token: %.300q", buf[:n])
	}
	return string(buf[:n]), nil
}

func setIntrospect(name string) (ours, theirs func() (float64, error), done func(), err error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return nil, nil, nil, err
	}
	us, secret, tokens, err := startOurs(dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, nil, err
	}
	clean := func() { us.end(); os.RemoveAll(dir) }
	a := introspections(us.address, "/oauth/introspect", basicAuth("api", secret), tokens)
	answer, err := a.once()
	if err != nil {
		clean()
		return nil, nil, nil, err
	}
	them, their, err := startReference(name, answer)
	if err != nil {
		clean()
		return nil, nil, nil, err
	}
	done = func() { them.end(); clean() }
	path, auth := "/oauth/introspect", basicAuth("api", "secret")
	if their == nil { // the one that answers the same to everything is asked the same
		their, auth = tokens, basicAuth("api", secret)
	}
	b := introspections(them.address, path, auth, their)
	if _, err := b.once(); err != nil {
		done()
		return nil, nil, nil, err
	}
	return a.load, b.load, done, nil
}

// setRefresh refreshes grants of a session on Pebble, each client its own.
func setRefresh(goroutines int) (ours, theirs func() (float64, error), done func(), err error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, nil, err
	}
	// The clock runs fast, so that no refresh is a second use of a token within its grace.
	var ticks atomic.Int64
	start := time.Now()
	a, err := afterlogin.New(afterlogin.Config{Store: st, Keys: keyring.New(), Now: func() time.Time { return start.Add(time.Duration(ticks.Load())) }})
	if err != nil {
		st.Close()
		os.RemoveAll(dir)
		return nil, nil, nil, err
	}
	done = func() { a.Close(); st.Close(); os.RemoveAll(dir) }
	ctx := context.Background()
	refresh := make([]afterlogin.Token, goroutines)
	for i := range refresh {
		s, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: userName(i)})
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		g, err := a.IssueGrant(ctx, s.Session, afterlogin.GrantRequest{Client: "bench", Offline: true})
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		refresh[i] = g.Refresh.Token
	}
	round := func() (float64, error) {
		var count atomic.Int64
		errs := make([]error, goroutines)
		var wg sync.WaitGroup
		begun := time.Now()
		for i := range goroutines {
			wg.Go(func() {
				for time.Since(begun) < durableRound {
					ticks.Add(int64(time.Minute) / int64(goroutines)) // never within the grace of the one before
					g, err := a.Refresh(ctx, refresh[i], afterlogin.RefreshRequest{Client: "bench"})
					if err != nil {
						errs[i] = err
						return
					}
					refresh[i] = g.Refresh.Token
					count.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(count.Load()) / time.Since(begun).Seconds(), errors.Join(errs...)
	}
	return round, nil, done, nil
}
