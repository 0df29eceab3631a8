package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// 50 clients refresh with one token at once: one successor, and everybody is answered. A thief's late replay ends it all.
func TestFiftyRefreshes(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t)).usual()
			mia := f.signIn("mia")
			first := f.grant(mia.Token, "app", "com.example.app:/cb", "read offline_access")
			answers := make([]*answer, 50)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					answers[i] = f.post(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", first.text("refresh_token"))
				})
			}
			wg.Wait()
			for _, a := range answers {
				if a.status != 200 || a.text("refresh_token") == "" || a.text("refresh_token") != answers[0].text("refresh_token") {
					t.Fatalf("%d, and another successor: %v", a.status, a.text("error"))
				}
				if !f.active("rs", a.text("access_token")) {
					t.Fatal("an access token is not good")
				}
			}
			f.pass(time.Minute)
			next := f.ok(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", answers[0].text("refresh_token"))
			f.pass(time.Minute)
			if a := f.post(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", first.text("refresh_token")); a.status != 400 || a.text("error") != InvalidGrant {
				t.Fatalf("the thief: %d %s", a.status, a.body)
			}
			if a := f.post(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", next.text("refresh_token")); a.text("error") != InvalidGrant {
				t.Errorf("the newest token after the theft: %d %s", a.status, a.body)
			}
			for _, a := range append(answers, next) {
				if f.active("rs", a.text("access_token")) {
					t.Fatal("an access token survives the theft")
				}
			}
			if !slices.ContainsFunc(f.events(), func(e afterlogin.Event) bool { return e.Type == afterlogin.EventGrantReuse }) {
				t.Error("nobody is told of the theft")
			}
		})
	}
}

// lossy delivers requests, and loses the answers that it is told to.
type lossy struct {
	mu   sync.Mutex
	lose int
}

var errLost = errors.New("the connection broke")

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose > 0 {
		l.lose--
		io.Copy(io.Discard, resp.Body) // it was answered in full
		resp.Body.Close()
		return nil, errLost
	}
	return resp, nil
}

// An answer that is lost on the way is given again to who asks again: at once, and much later.
func TestLostAnswers(t *testing.T) {
	for name, open := range stores {
		for _, wait := range []time.Duration{0, time.Hour} {
			t.Run(name+"/"+wait.String(), func(t *testing.T) {
				f := newFixture(t, open(t)).usual()
				mia := f.signIn("mia")
				token := f.grant(mia.Token, "web", "https://web.example.com/cb", "read offline_access").text("refresh_token")
				net := &lossy{}
				c := http.Client{Transport: net}
				refresh := func() (a answer, err error) {
					r, err := http.NewRequestWithContext(t.Context(), "POST", f.url+TokenPath,
						strings.NewReader(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}.Encode()))
					if err != nil {
						return a, err
					}
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					r.SetBasicAuth("web", f.secret["web"])
					resp, err := c.Do(r)
					if err != nil {
						return a, err
					}
					defer resp.Body.Close()
					a.status = resp.StatusCode
					return a, json.NewDecoder(resp.Body).Decode(&a.fields)
				}
				for round := range 5 {
					net.lose = 2
					for range 2 {
						if _, err := refresh(); !errors.Is(err, errLost) {
							t.Fatal(err)
						}
					}
					f.pass(wait)
					a, err := refresh()
					if err != nil || a.status != 200 {
						t.Fatalf("round %d: %v %d %v", round, err, a.status, a.fields["error"])
					}
					b, err := refresh()
					if err != nil || b.text("refresh_token") != a.text("refresh_token") {
						t.Fatalf("round %d: %v, and another successor", round, err)
					}
					if !f.active("rs", a.text("access_token")) {
						t.Fatalf("round %d: the access token is not good", round)
					}
					token = a.text("refresh_token")
					f.pass(time.Minute)
				}
			})
		}
	}
}

// The same wish gets the same access token, another wish another one, and there is an end to wishes.
func TestNarrowerRefresh(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	first := f.grant(mia.Token, "web", "https://web.example.com/cb", "read write")
	refresh := func(scope string) *answer {
		return f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", first.text("refresh_token"), "scope", scope)
	}
	a, b, c := refresh("read"), refresh("read"), refresh("write")
	if a.text("access_token") != b.text("access_token") || a.text("access_token") == c.text("access_token") || a.text("scope") != "read" {
		t.Error("the same wish gets another token, or another wish the same")
	}
	if d := f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token")); d.text("scope") != "read write" {
		t.Errorf("the grant has lost scopes: %q", d.text("scope"))
	}
}

// golang.org/x/oauth2, as it is.
func TestGoOAuth2(t *testing.T) {
	for name, open := range stores {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			t.Run(name, func(t *testing.T) {
				f := newFixture(t, open(t)).usual()
				c := oauth2.Config{
					ClientID: "web", ClientSecret: f.secret["web"], RedirectURL: f.url + "/callback", Scopes: []string{"read", clients.OfflineAccess},
					Endpoint: oauth2.Endpoint{AuthURL: f.url + AuthorizePath, TokenURL: f.url + TokenPath, AuthStyle: style},
				}
				verifier := oauth2.GenerateVerifier()
				resp, err := browser(t).Get(c.AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier)))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				q := resp.Request.URL.Query()
				if q.Get("state") != "state-1" || q.Get("iss") != f.url {
					t.Fatalf("the browser comes back with %v", q)
				}
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: http.DefaultTransport})
				token, err := c.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(verifier))
				if err != nil {
					t.Fatal(err)
				}
				if !token.Valid() || token.RefreshToken == "" || token.Type() != "Bearer" || !f.active("rs", token.AccessToken) {
					t.Fatal("the token is not good")
				}
				old := token.RefreshToken
				token.Expiry = time.Now().Add(-time.Hour)
				fresh, err := c.TokenSource(ctx, token).Token()
				if err != nil || fresh.RefreshToken == old || !f.active("rs", fresh.AccessToken) {
					t.Fatalf("the refresh: %v", err)
				}
				// It tells a refusal from trouble.
				f.pass(time.Hour)
				fresh.Expiry = time.Now().Add(-time.Hour)
				if _, err = c.TokenSource(ctx, fresh).Token(); err != nil {
					t.Fatal(err)
				}
				f.pass(time.Hour)
				var refused *oauth2.RetrieveError
				if _, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: old}).Token(); !errors.As(err, &refused) || refused.ErrorCode != InvalidGrant {
					t.Errorf("a replay: %v", err)
				}
				cc := clientcredentials.Config{ClientID: "job", ClientSecret: f.secret["job"], TokenURL: f.url + TokenPath, Scopes: []string{"read"}, AuthStyle: style,
					EndpointParams: url.Values{"resource": {api}}}
				token, err = cc.Token(ctx)
				if err != nil || !token.Valid() || !f.active("rs", token.AccessToken) {
					t.Errorf("client_credentials: %v", err)
				}
			})
		}
	}
}
