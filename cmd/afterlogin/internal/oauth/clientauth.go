package oauth

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

// presented is how a client says who it is, before anything of it is checked.
type presented struct {
	id     string
	method string // clients.Secret, clients.KeyJWT or clients.None
	proof  string // the secret, or the assertion
}

// assertionType is the one of RFC 7523.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// presentation finds the one way in which the client authenticates. Two at once are refused: what stands in front of us
// may have looked at the other.
func presentation(h http.Header, f form) (presented, *Error) {
	lines := h["Authorization"]
	if len(lines) > 1 {
		return presented{}, fail(InvalidRequest, "more than one Authorization header")
	}
	id, secret, assertion := f.get("client_id"), f.get("client_secret"), f.get("client_assertion")
	typ := f.get("client_assertion_type")
	n := 0
	for _, used := range []bool{len(lines) > 0, secret != "", assertion != "" || typ != ""} {
		if used {
			n++
		}
	}
	switch {
	case n > 1:
		return presented{}, fail(InvalidRequest, "the client authenticates in more than one way")
	case len(lines) > 0:
		p, ok := parseBasic(lines[0])
		if !ok {
			return presented{}, badClient("the Authorization header is not Basic with a client_id and a secret, each encoded as in a form")
		}
		if id != "" && id != p.id {
			return presented{}, fail(InvalidRequest, "two client_ids")
		}
		return p, nil
	case assertion != "" || typ != "":
		if typ != assertionType || assertion == "" {
			return presented{}, fail(InvalidRequest, "client_assertion and client_assertion_type belong together, and only JWTs (RFC 7523) are taken")
		}
		return presented{id: id, method: clients.KeyJWT, proof: assertion}, nil
	case secret != "":
		if id == "" {
			return presented{}, fail(InvalidRequest, "client_secret without client_id")
		}
		return presented{id, clients.Secret, secret}, nil
	case id == "":
		return presented{}, badClient("the client does not say who it is")
	}
	return presented{id: id, method: clients.None}, nil
}

// maxBasic is the greatest length of the credentials in an Authorization header.
const maxBasic = 1024

// parseBasic reads client_id and secret from an Authorization header. Both are encoded as in a form before the base64 (RFC
// 6749, 2.3.1).
func parseBasic(line string) (presented, bool) {
	scheme, text, _ := strings.Cut(line, " ")
	if !strings.EqualFold(scheme, "Basic") || len(text) > maxBasic {
		return presented{}, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(text, " "))
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return presented{}, false
	}
	id, secret, ok := strings.Cut(string(b), ":")
	if !ok {
		return presented{}, false
	}
	id, ok = unescape(id)
	secret, ok2 := unescape(secret)
	if !ok || !ok2 || id == "" || secret == "" {
		return presented{}, false
	}
	return presented{id, clients.Secret, secret}, true
}

// nobody is compared with where there is no such client, so that it takes as long.
var nobody = func() clients.Sums {
	_, hash := clients.NewSecret(time.Time{})
	return (&clients.Settings{Secrets: []clients.SecretHash{hash}}).Sums()
}()

// authenticate returns the client that makes the request. A good proof is always accepted, however many bad ones came
// before it: nobody locks a client out by guessing, and 256 random bits are not guessed.
func (s *Server) authenticate(ctx context.Context, h http.Header, f form) (*client, *Error) {
	p, e := presentation(h, f)
	if e != nil {
		return nil, e
	}
	if p.method == clients.KeyJWT {
		typ, claimed, audiences := peek(p.proof)
		c, e := s.byAssertion(ctx, p, typ, claimed, audiences)
		if e != nil && e.Code == InvalidClient {
			return nil, s.failed(claimed, e)
		}
		return c, e
	}
	c, err := s.known.get(ctx, p.id)
	if err != nil && !errors.Is(err, afterlogin.ErrNoClient) {
		return nil, s.fault(ctx, err)
	}
	sums := nobody
	if err == nil {
		sums = c.sums
	}
	good := p.method == clients.None || sums.Match(p.proof, s.now())
	if err != nil || !good || c.settings.Auth != p.method {
		return nil, s.failed(p.id, badClient("there is no such client, or it does not authenticate in this way, or with this secret"))
	}
	return c, nil
}

// failed notes a failure under the name that was claimed, and returns what to answer.
func (s *Server) failed(id string, e *Error) *Error {
	if wait := s.failures.note(id, s.now()); wait > 0 {
		return slowDown(wait)
	}
	s.log.Info("a client was refused", "why", e.Description)
	return e
}

const (
	maxFailures   = 10               // at once
	failurePeriod = 60 * time.Second // in which they are forgotten
	maxFailed     = 4096             // names
)

// failures counts failed authentications by the name that was given. It bounds what goes to the log, and tells a client that
// is set up wrongly, and tries for ever, when to try again; it is no protection from guessing, and need not be.
type failures struct {
	mu   sync.Mutex
	full map[string]time.Time // until when what was noted takes at the permitted rate
}

// note counts a failure, and returns how long to wait if there were too many.
func (f *failures) note(id string, now time.Time) time.Duration {
	if len(id) > 64 {
		id = id[:64]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full == nil || len(f.full) >= maxFailed {
		kept := make(map[string]time.Time)
		for k, t := range f.full {
			if t.After(now) && len(kept) < maxFailed/2 {
				kept[k] = t
			}
		}
		f.full = kept
	}
	full := f.full[id]
	if full.Before(now) || full.After(now.Add(2*failurePeriod)) { // long ago, or the clock went back
		full = now
	}
	full = full.Add(failurePeriod / maxFailures)
	if over := full.Sub(now.Add(failurePeriod)); over > 0 {
		return over
	}
	f.full[id] = full
	return 0
}
