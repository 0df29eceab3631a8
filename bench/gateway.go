package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const (
	// oauth2Proxy is the version that is compared with.
	oauth2Proxy = "v7.6.0"
	// oauth2Sessions is how many people sign in to it, by its form.
	oauth2Sessions = 500
	shopHost       = "shop.example.com"
)

func gatewayComparisons() []comparison {
	against := func(name, what string, target float64, start func(dir string, us *target) (*target, func(), error)) comparison {
		return comparison{
			name: "gateway/" + name, target: target,
			what: "forward-auth decisions on a session cookie, all headers and the signed assertion, against " + what,
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				us, them, done, err := setGateway(start)
				if err != nil {
					return nil, nil, nil, err
				}
				return us.load, them.load, done, nil
			},
		}
	}
	return []comparison{
		against("forward-auth", "net/http answering the same bytes and headers", 0.8, startSameBytes),
		{
			name: "gateway/forward-auth-p99", most: true, target: 100, unit: "ms",
			what: fmt.Sprintf("the time that 99 of 100 of these decisions take at most, from %d connections that never rest", httpConnections),
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				us, _, done, err := setGateway(nil)
				if err != nil {
					return nil, nil, nil, err
				}
				return us.slowest, nil, done, nil
			},
		},
		against("oauth2-proxy-cookie", "/oauth2/auth of oauth2-proxy "+oauth2Proxy+", sessions in cookies, no logging", 2.5,
			func(dir string, _ *target) (*target, func(), error) { return startOAuth2Proxy(dir, false) }),
		against("oauth2-proxy-redis", "the same with sessions in Redis", 2.5,
			func(dir string, _ *target) (*target, func(), error) { return startOAuth2Proxy(dir, true) }),
	}
}

// setGateway starts our side, and the other one if there is one.
func setGateway(start func(dir string, us *target) (*target, func(), error)) (us, them *target, done func(), err error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return nil, nil, nil, err
	}
	p, cookies, err := startReference("gateway", "")
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, nil, err
	}
	clean := func() { p.end(); os.RemoveAll(dir) }
	us = questions(p.address, gateway.Path, cookies)
	if start == nil {
		return us, nil, clean, nil
	}
	them, end, err := start(dir, us)
	if err != nil {
		clean()
		return nil, nil, nil, err
	}
	return us, them, func() { end(); clean() }, nil
}

// questions returns a target that is asked what a proxy asks.
func questions(address, path string, cookies []string) *target {
	t := &target{address: address}
	for _, c := range cookies {
		t.requests = append(t.requests, []byte("GET "+path+" HTTP/1.1\r\nHost: "+address+"\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"+
			"X-Forwarded-Method: GET\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: "+shopHost+"\r\nX-Forwarded-Uri: /orders?page=2\r\nX-Forwarded-For: 203.0.113.7\r\n"+
			"Cookie: "+c+"\r\n\r\n"))
	}
	return t
}

// benchGateway is the server that is measured. It prints the cookies of people who are signed in.
func benchGateway() (http.Handler, error) {
	keys := keyring.New()
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Keys: keys, Issuer: "https://id.example.com"})
	if err != nil {
		return nil, err
	}
	g, err := gateway.New(gateway.Options{
		Authority: a, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Apps: []gateway.App{{Origin: "https://" + shopHost}},
		Sign: func(typ string, c *jwt.Claims) (string, error) {
			key, err := keys.Signer(jwt.EdDSA, time.Now())
			if err != nil {
				return "", err
			}
			return key.Sign(typ, c)
		},
	})
	if err != nil {
		return nil, err
	}
	for i := range httpSessions {
		got, err := a.Issue(context.Background(), afterlogin.IssueRequest{Subject: userName(i)})
		if err != nil {
			return nil, err
		}
		fmt.Println(httpauth.CookieName + "=" + got.Token.Reveal())
	}
	return g, nil
}

// startSameBytes starts net/http with the answer of ours.
func startSameBytes(_ string, us *target) (*target, func(), error) {
	answer, err := us.first()
	if err != nil {
		return nil, nil, err
	}
	p, _, err := startReference("net-http", answer)
	if err != nil {
		return nil, nil, err
	}
	them := &target{address: p.address, requests: us.requests}
	theirs, err := them.first()
	if err == nil && len(theirs) != len(answer) {
		err = fmt.Errorf("net/http answers %d bytes, ours are %d", len(theirs), len(answer))
	}
	if err != nil {
		p.end()
		return nil, nil, err
	}
	return them, p.end, nil
}

// first returns the answer to the first request.
func (t *target) first() (string, error) {
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
	return string(buf[:n]), nil
}

// slowest returns how many milliseconds 99 of 100 answers of a round take at most.
func (t *target) slowest() (float64, error) {
	took := make([][]time.Duration, httpConnections)
	errs := make([]error, httpConnections)
	var wg sync.WaitGroup
	start := time.Now()
	for c := range httpConnections {
		wg.Go(func() {
			conn, err := net.Dial("tcp", t.address)
			if err != nil {
				errs[c] = err
				return
			}
			defer conn.Close()
			buf := make([]byte, 8192)
			for i := c; time.Since(start) < httpRound; i += httpConnections {
				begun := time.Now()
				if _, errs[c] = conn.Write(t.requests[i%len(t.requests)]); errs[c] != nil {
					return
				}
				if errs[c] = readAnswer(conn, buf); errs[c] != nil {
					return
				}
				took[c] = append(took[c], time.Since(begun))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return float64(all[len(all)*99/100]) / float64(time.Millisecond), nil
}

// startOAuth2Proxy builds oauth2-proxy as its users do, starts it, and signs people in by its form.
func startOAuth2Proxy(dir string, redis bool) (_ *target, end func(), err error) {
	bin, err := buildOAuth2Proxy(dir)
	if err != nil {
		return nil, nil, err
	}
	sum := sha1.Sum([]byte("demo"))
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte("mia:{SHA}"+base64.StdEncoding.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		return nil, nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	args := []string{
		"--provider=github", "--client-id=bench", "--client-secret=bench", "--email-domain=*", // nobody is sent there
		"--cookie-secret=" + base64.URLEncoding.EncodeToString(make([]byte, 32)), "--cookie-secure=false",
		"--htpasswd-file=" + users, "--http-address=" + address, "--upstream=static://200", "--reverse-proxy=true", "--set-xauthrequest=true",
		"--request-logging=false", "--auth-logging=false", "--standard-logging=false",
	}
	end = func() {}
	if redis {
		p, err := servers.StartRedis(dir)
		if err != nil {
			return nil, nil, err
		}
		end = func() { p.Stop() }
		args = append(args, "--session-store-type=redis", "--redis-connection-url=redis://"+p.Addr)
	}
	p := &process{cmd: exec.Command(bin, args...), address: address}
	if err := p.cmd.Start(); err != nil {
		end()
		return nil, nil, err
	}
	stop := end
	end = func() { p.end(); stop() }
	cookies, err := oauth2Cookies(address)
	if err != nil {
		end()
		return nil, nil, err
	}
	return questions(address, "/oauth2/auth", cookies), end, nil
}

// buildOAuth2Proxy builds the program in a module of its own, so that nothing here depends on it.
func buildOAuth2Proxy(dir string) (string, error) {
	const path = "github.com/oauth2-proxy/oauth2-proxy/v7"
	module := filepath.Join(dir, "oauth2-proxy")
	if err := os.Mkdir(module, 0o700); err != nil {
		return "", err
	}
	mod := "module reference\n\ngo 1.26.0\n\nrequire " + path + " " + oauth2Proxy + "\n"
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte(mod), 0o600); err != nil {
		return "", err
	}
	bin := filepath.Join(module, "oauth2-proxy")
	build := exec.Command("go", "build", "-o", bin, path)
	build.Dir, build.Env = module, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		return "", &skipped{fmt.Sprintf("oauth2-proxy %s cannot be built here: %v\n%s", oauth2Proxy, err, out)}
	}
	return bin, nil
}

// oauth2Cookies signs people in, when the server answers.
func oauth2Cookies(address string) (cookies []string, err error) {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get("http://" + address + "/ping")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Since(start) > 20*time.Second {
			return nil, fmt.Errorf("oauth2-proxy does not answer: %w", err)
		}
	}
	for range oauth2Sessions {
		resp, err := client.PostForm("http://"+address+"/oauth2/sign_in", url.Values{"username": {"mia"}, "password": {"demo"}})
		if err != nil {
			return nil, err
		}
		resp.Body.Close()
		var parts []string
		for _, c := range resp.Cookies() {
			if strings.HasPrefix(c.Name, "_oauth2_proxy") && c.Value != "" {
				parts = append(parts, c.Name+"="+c.Value)
			}
		}
		if resp.StatusCode != http.StatusFound || parts == nil {
			return nil, fmt.Errorf("oauth2-proxy does not sign in: %s", resp.Status)
		}
		cookies = append(cookies, strings.Join(parts, "; "))
	}
	return cookies, nil
}
