package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
)

// A pocket is the app: what a program on somebody's phone does to get tokens and to keep them. It knows the shop by its
// URL and finds everything else in the metadata there (RFC 8414), as an app against any other server does.
type pocket struct {
	client *http.Client
	issuer string // the shop's URL, without a slash at the end
	id     string // its client_id
	now    func() time.Time
	note   func(token string) // for the story; may be nil
	lossy  *lossy             // the network under client
	meta   metadata

	// What it keeps, in memory and nowhere else: the secrets themselves.
	access, refresh string
	until           time.Time // when the access token ends
	got             int       // how many refresh tokens it was given, one after the other
}

// metadata is what the app reads of RFC 8414.
type metadata struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
}

// newPocket returns the app for the shop: address is where the shop listens, url what it is called. They differ, since
// localhost may be two addresses, on one of which another program may have the port.
func newPocket(address, shopURL, id string, now func() time.Time) *pocket {
	client := newClient(netip.Addr{})
	direct := client.Transport.(*http.Transport)
	dial := direct.DialContext
	if u, err := url.Parse(address); err == nil {
		direct.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, u.Host) }
	}
	p := &pocket{client: client, issuer: strings.TrimSuffix(shopURL, "/"), id: id, now: now, lossy: &lossy{RoundTripper: direct}}
	client.Transport = p.lossy
	return p
}

// discover reads the metadata, and believes it only if it speaks of the issuer that was asked.
func (p *pocket) discover(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.issuer+oauth.MetadataPath, nil)
	if err != nil {
		return err
	}
	status, err := p.do(r, &p.meta)
	if err != nil {
		return err
	}
	if status != http.StatusOK || p.meta.Issuer != p.issuer {
		return fmt.Errorf("%s does not say how to get tokens", p.issuer)
	}
	return nil
}

// A pending is a sign-in that the app waits for.
type pending struct {
	redirect, state, verifier string
}

// ask returns the address at which the person signs in and is asked, and what the answer must fit: a state of this
// sign-in's own, and the secret whose digest goes along (PKCE, RFC 7636), so that the code is worth nothing to others.
func (p *pocket) ask(redirect string) (string, pending) {
	q := pending{redirect: redirect, state: rand.Text(), verifier: rand.Text() + rand.Text()}
	digest := sha256.Sum256([]byte(q.verifier))
	return p.meta.Authorization + "?" + url.Values{
		"response_type": {"code"}, "client_id": {p.id}, "redirect_uri": {redirect}, "state": {q.state},
		"scope":          {scopeCart + " " + scopeOrders + " offline_access"}, // the last: also when the browser is signed out
		"code_challenge": {base64.RawURLEncoding.EncodeToString(digest[:])}, "code_challenge_method": {"S256"},
	}.Encode(), q
}

// redeem exchanges the code in the answer for the first tokens.
func (p *pocket) redeem(ctx context.Context, q pending, answer url.Values) error {
	switch {
	case answer.Get("state") != q.state:
		return errors.New("the answer belongs to another sign-in")
	case answer.Get("iss") != p.issuer: // RFC 9207: an answer of another server must not be taken for this one's
		return errors.New("the answer is another server's")
	case answer.Get("error") != "":
		return &tokenError{Code: answer.Get("error"), Description: answer.Get("error_description")}
	}
	if p.note != nil {
		p.note(answer.Get("code"))
	}
	return p.token(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {answer.Get("code")},
		"redirect_uri": {q.redirect}, "code_verifier": {q.verifier},
	})
}

// renew exchanges the refresh token for the next one and an access token. After any error but a tokenError the app does
// not know whether it has happened, keeps what it has, and asks again with the same token.
func (p *pocket) renew(ctx context.Context) error {
	return p.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {p.refresh}})
}

// A tokenError is a refusal of the OAuth endpoints (RFC 6749, 5.2).
type tokenError struct {
	Status      int    `json:"-"`
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *tokenError) Error() string { return e.Code + ": " + e.Description }

// token calls the token endpoint, and keeps what it answers.
func (p *pocket) token(ctx context.Context, form url.Values) error {
	var got struct {
		tokenError
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int    `json:"expires_in"`
	}
	status, err := p.post(ctx, p.meta.Token, form, &got)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		got.Status = status
		return &got.tokenError
	}
	if got.RefreshToken != p.refresh {
		p.got++
	}
	p.access, p.refresh = got.AccessToken, got.RefreshToken
	p.until = p.now().Add(time.Duration(got.ExpiresIn) * time.Second)
	if p.note != nil {
		p.note(p.access)
		p.note(p.refresh)
	}
	return nil
}

// signOut gives the tokens back (RFC 7009): the grant is over, here and there.
func (p *pocket) signOut(ctx context.Context) (status int, err error) {
	status, err = p.post(ctx, p.meta.Revocation, url.Values{"token": {p.refresh}}, nil)
	if err == nil && status == http.StatusOK {
		p.access, p.refresh = "", ""
	}
	return status, err
}

// post sends a form to an OAuth endpoint. The client has no secret: it says who it is, and nothing more.
func (p *pocket) post(ctx context.Context, to string, form url.Values, v any) (status int, err error) {
	form.Set("client_id", p.id)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.do(r, v)
}

// A problemJSON is how the JSON API says no (RFC 9457).
type problemJSON struct {
	Detail string `json:"detail"`
	Reason string `json:"reason"`
}

// call asks the JSON API with the access token. why is empty if the answer is 200.
func (p *pocket) call(ctx context.Context, path string, v any) (status int, why problemJSON, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.issuer+path, nil)
	if err != nil {
		return 0, why, err
	}
	r.Header.Set("Authorization", "Bearer "+p.access)
	status, why, _, err = fetch(p.client, r, v)
	return status, why, err
}

// fetch sends the request and reads the JSON that comes back into v, or, of a refusal, why.
func fetch(client *http.Client, r *http.Request, v any) (status int, why problemJSON, h http.Header, err error) {
	resp, err := client.Do(r)
	if err != nil {
		return 0, why, nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, reason(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		v = &why
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(v); err != nil {
		return 0, why, nil, fmt.Errorf("%s %s: %s, and the body is no JSON: %w", r.Method, r.URL.Path, resp.Status, err)
	}
	return resp.StatusCode, why, resp.Header, nil
}

// do sends a request to an OAuth endpoint and reads the JSON that comes back, whatever the status, into v, if there is
// one.
func (p *pocket) do(r *http.Request, v any) (status int, err error) {
	resp, err := p.client.Do(r)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, reason(err))
	}
	defer resp.Body.Close()
	if v == nil {
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(v); err != nil {
		return 0, fmt.Errorf("%s %s: the answer is not to be read: %w", r.Method, r.URL.Path, err)
	}
	return resp.StatusCode, nil
}

// reason takes the address away from an error of a client.
func reason(err error) error {
	if e, ok := err.(*url.Error); ok {
		return e.Err
	}
	return err
}

// errLost is how a connection that broke looks to the app.
var errLost = errors.New("the connection broke before the answer was here")

// A lossy is a network that may lose an answer: the server has done what it was asked, and nobody hears of it.
type lossy struct {
	http.RoundTripper
	lose bool   // the next answer
	lost string // the refresh token in what was lost
}

// RoundTrip implements http.RoundTripper.
func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err != nil || !l.lose {
		return resp, err
	}
	l.lose = false
	var got struct {
		RefreshToken string `json:"refresh_token"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got)
	resp.Body.Close()
	if err != nil || got.RefreshToken == "" {
		return nil, fmt.Errorf("there was no token to lose: %s", resp.Status)
	}
	l.lost = got.RefreshToken
	return nil, errLost
}

// A door is where the app waits for the browser to come back: a port of this machine that is open for one answer.
type door struct {
	redirect string
	answers  chan url.Values
	server   *http.Server
	done     chan struct{}
}

// openDoor opens the app's port. Close it.
func openDoor() (*door, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{redirect: "http://" + l.Addr().String() + "/callback", answers: make(chan url.Values), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		select {
		case d.answers <- r.URL.Query():
			io.WriteString(w, "The app has what it needs. You can close this window.\n")
		case <-r.Context().Done():
		case <-time.After(time.Second): // nobody waits any more
			w.WriteHeader(http.StatusGone)
		}
	})
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(d.done)
		d.server.Serve(l)
	}()
	return d, nil
}

// wait returns the answer with the state of the sign-in; others are nobody's.
func (d *door) wait(ctx context.Context, q pending) (url.Values, error) {
	for {
		select {
		case v := <-d.answers:
			if v.Get("state") == q.state {
				return v, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// close closes the port, and waits until what was under way there is over.
func (d *door) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if d.server.Shutdown(ctx) != nil {
		d.server.Close()
	}
	<-d.done
}

// signIn has the person sign in and say yes, by what browse does with the address, and gets the first tokens.
func (p *pocket) signIn(ctx context.Context, browse func(ctx context.Context, address string) error) error {
	if err := p.discover(ctx); err != nil {
		return err
	}
	d, err := openDoor()
	if err != nil {
		return err
	}
	defer d.close()
	address, q := p.ask(d.redirect)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	browsed := make(chan struct{})
	go func() {
		defer close(browsed)
		if err := browse(ctx, address); err != nil {
			cancel(err)
		}
	}()
	answer, err := d.wait(ctx, q)
	if err == nil {
		<-browsed
		err = context.Cause(ctx)
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		cancel(nil)
		<-browsed
		return err
	}
	return p.redeem(ctx, q, answer)
}
