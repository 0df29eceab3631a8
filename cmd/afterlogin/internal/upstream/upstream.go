package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
)

// Options say what New makes. Authority, Keys, and the four functions are required.
type Options struct {
	// Providers are those that people may sign in with, at most 32.
	Providers []Provider
	// Authority keeps what was heard of upstream sessions, and ends ours.
	Authority *afterlogin.Authority
	// Tenant is whose sessions they are.
	Tenant uint32
	// Keys seal the cookies of sign-ins under way: the installation's, so that every server can open them.
	Keys *keyring.Ring
	// Site returns where the request is: an application behind the gateway, or the server itself. Its error is answered 421,
	// or 503 if it is afterlogin.ErrUnavailable.
	Site func(*http.Request) (*Site, error)
	// SignIn makes a session for the person, or steps the request's session up if it is theirs: it has the answer set the
	// cookie, and writes nothing. The request has come through Site.Auth.Optional.
	SignIn func(w http.ResponseWriter, r *http.Request, site *Site, id Identity) (*afterlogin.Session, error)
	// Leave sends the browser of somebody who is signed in where return_to says, if that is a place that people may be sent
	// to, and else to where they go by default. Anybody may have written the text.
	Leave func(w http.ResponseWriter, r *http.Request, site *Site, returnTo string)
	// Fail answers an error of SignIn.
	Fail func(w http.ResponseWriter, r *http.Request, site *Site, err error)
	// Longest is the longest that a session made by SignIn lives: the greatest absolute lifetime of its policies. The
	// default is that of the policies browser and remember as they come. At most 390 days.
	Longest time.Duration
	// Proxy is the HTTP proxy that providers are reached through. Nil is none: the environment is not looked at, since what
	// goes there are the client's secret and people's codes.
	Proxy *url.URL
	// RootCAs are who vouches for the providers' certificates. Nil is the system's.
	RootCAs *x509.CertPool
	// Logger receives what an operator should know, never a token, a code or a secret. Nil discards it.
	Logger *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// A Site is an application, or the server itself, as browsers address it.
type Site struct {
	Origin string // https://shop.example.com
	Base   string // what the paths of ours begin with there: "/.afterlogin", or nothing
	Auth   *httpauth.Auth
}

// A Provider is an OpenID provider, and what this installation is to it.
type Provider struct {
	// ID names it in addresses and in subjects: 1 to 32 of a to z, 0 to 9 and -. A provider that gets another ID is another
	// provider, and its people are other subjects.
	ID string
	// Name is what people call it. The default is the ID.
	Name string
	// Issuer is its issuer identifier, exactly as its metadata say it: https, or http on a loopback host.
	Issuer string
	// ClientID is what it calls us.
	ClientID string
	// ClientSecret proves that to it. Empty is a public client, which PKCE protects alone.
	ClientSecret Secret
	// AuthMethod is how the secret is sent: AuthBasic, AuthPost, or by default what the provider's metadata ask for.
	AuthMethod string
	// Scopes are what is asked for; openid is always among them.
	Scopes []string
	// Prompt is passed on with every sign-in: login, consent, select_account, or several of them.
	Prompt string
	// MaxAge is how long ago the person may have signed in at the provider, at most, whoever asks. Zero: any time. Whole
	// seconds.
	MaxAge time.Duration
	// ACRValues are the authentication contexts one of which every sign-in must have. None: any.
	ACRValues []string
	// UntypedLogout takes logout tokens that do not say what they are (no typ, or JWT), from a provider that knows no better.
	UntypedLogout bool
	// SignOut sends people who sign out here on to the provider's end_session_endpoint: see SignedOut.
	SignOut bool
}

// How the client's secret is sent.
const (
	AuthBasic = "basic" // client_secret_basic
	AuthPost  = "post"  // client_secret_post
)

// An Identity is who has signed in at a provider, how, and what the sign-in was begun with.
type Identity struct {
	Provider string // Provider.ID
	Subject  string // ID, a colon, and the provider's sub
	// Mark was taken before the last look at what the provider has said of this subject: for Authority.Issue.
	Mark afterlogin.Mark
	// Methods are the provider's amr, and acr:VALUE if there was an acr.
	Methods []string
	// At is when the person proved who they are (auth_time). A provider that does not say is taken to mean long ago, so that
	// nothing is ever fresher than somebody vouches for.
	At time.Time
	// Remember asks for a session that outlives the browser's window.
	Remember bool
	// Confirm says that the sign-in was begun with confirm=1, and that the request has somebody's session: it is to confirm
	// who that is, and must be by the same person.
	Confirm bool
}

// Secret is a client's secret. It does not print.
type Secret struct{ text *string }

// SecretFrom returns the text as a Secret; the empty text is none.
func SecretFrom(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// IsZero reports whether there is none.
func (s Secret) IsZero() bool { return s.text == nil }

// Reveal returns the text. Whoever calls it sends it to the provider's token endpoint, and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String does not return the text.
func (s Secret) String() string { return "[secret]" }

// GoString does not return the text.
func (s Secret) GoString() string { return "[secret]" }

// MarshalText does not return the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// LogValue does not return the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// ErrBadOptions is returned by New.
var ErrBadOptions = errors.New("upstream: bad options")

func badOption(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadOptions}, args...)...)
}

// An Upstream answers the endpoints of all providers, on all sites. It is safe for concurrent use. It has no goroutines:
// what is fetched is fetched by the requests that need it.
type Upstream struct {
	options   Options
	providers map[string]*provider
	attached  attached
	seal      *sealer
	client    *http.Client
	log       *slog.Logger
	now       func() time.Time

	logoutWait time.Duration
}

// MaxLongest is the greatest of Options.Longest: what an entry of the authority may live, and room for clocks.
const MaxLongest = 390 * 24 * time.Hour

// New returns the endpoints of the providers. It fetches nothing: a provider that is down keeps no server from starting.
// The error is ErrBadOptions, and says which option is wrong.
func New(o Options) (*Upstream, error) {
	if o.Authority == nil || o.Keys == nil || o.Site == nil || o.SignIn == nil || o.Leave == nil || o.Fail == nil {
		return nil, badOption("Authority, Keys, Site, SignIn, Leave and Fail are needed")
	}
	if o.Longest == 0 {
		p := afterlogin.DefaultPolicies()
		o.Longest = max(p[afterlogin.PolicyBrowser].Absolute, p[afterlogin.PolicyRemember].Absolute)
	}
	if len(o.Providers) > 0 && (o.Longest < 0 || o.Longest > MaxLongest) { // without, nobody asks
		return nil, badOption("Longest: sessions that come from a provider may live 390 days at most, not %v", o.Longest)
	}
	if len(o.Providers) > 32 {
		return nil, badOption("Providers: %d of them, at most 32", len(o.Providers))
	}
	u := &Upstream{options: o, log: o.Logger, now: o.Now, providers: make(map[string]*provider), logoutWait: logoutWait}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	if u.now == nil {
		u.now = time.Now
	}
	u.client = newClient(o.Proxy, o.RootCAs)
	u.seal = &sealer{keys: o.Keys}
	u.attached = attached{authority: o.Authority, tenant: o.Tenant, longest: o.Longest, log: u.log, now: u.now}
	for i := range o.Providers {
		p, err := u.open(o.Providers[i])
		if err != nil {
			return nil, err
		}
		if u.providers[p.ID] != nil {
			return nil, badOption("Providers: two have the ID %q", p.ID)
		}
		u.providers[p.ID] = p
	}
	return u, nil
}

// Close lets go of the connections to providers. Requests that are under way must have been answered.
func (u *Upstream) Close() error {
	u.client.CloseIdleConnections()
	return nil
}

// provider is a Provider with what was fetched from it.
type provider struct {
	Provider
	metadata  fetched[metadata]
	keys      fetched[keySet]
	exchanges chan struct{} // codes that are being changed for tokens now
	logouts   chan struct{} // logouts under way
}

// A ProviderError says what is wrong with a provider's settings. It is an ErrBadOptions.
type ProviderError struct {
	ID    string
	Field string // of Provider
	Text  string
}

// Error says it all.
func (e *ProviderError) Error() string {
	return fmt.Sprintf("%v: provider %q: %s: %s", ErrBadOptions, e.ID, e.Field, e.Text)
}

// Unwrap returns ErrBadOptions.
func (e *ProviderError) Unwrap() error { return ErrBadOptions }

// CheckProvider returns a ProviderError if New would not take the provider.
func CheckProvider(p Provider) error { return p.fill() }

// fill sets the defaults and checks the provider.
func (p *Provider) fill() error {
	bad := func(field, format string, args ...any) error {
		return &ProviderError{p.ID, field, fmt.Sprintf(format, args...)}
	}
	if !isID(p.ID) {
		return bad("ID", "want 1 to 32 of a to z, 0 to 9 and -")
	}
	if p.ID == reservedID {
		return bad("ID", "it is reserved: subjects of OAuth clients begin with it behind a proxy")
	}
	if p.Name == "" {
		p.Name = p.ID
	}
	if len(p.Name) > 64 || strings.ContainsFunc(p.Name, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
		return bad("Name", "at most 64 bytes of text")
	}
	if err := checkAddress(p.Issuer, true); err != nil || strings.Contains(p.Issuer, "?") {
		return bad("Issuer", "%.60q is not an https URL without a query (http is for loopback hosts)", p.Issuer)
	}
	if p.ClientID == "" || len(p.ClientID) > 512 {
		return bad("ClientID", "1 to 512 bytes are needed: what the provider calls this application")
	}
	if len(p.ClientSecret.Reveal()) > 4096 || strings.ContainsAny(p.ClientSecret.Reveal(), "\r\n\x00") {
		return bad("ClientSecret", "over 4096 bytes, or several lines")
	}
	switch p.AuthMethod {
	case "":
	case AuthBasic, AuthPost:
		if p.ClientSecret.IsZero() {
			return bad("AuthMethod", "%s needs a secret", p.AuthMethod)
		}
	default:
		return bad("AuthMethod", "%.60q is not basic or post", p.AuthMethod)
	}
	if len(p.Scopes) > 32 {
		return bad("Scopes", "%d of them, at most 32", len(p.Scopes))
	}
	for _, s := range p.Scopes {
		if !isName(s) {
			return bad("Scopes", "%.60q is not a scope", s)
		}
	}
	if !slices.Contains(p.Scopes, "openid") {
		p.Scopes = append([]string{"openid"}, p.Scopes...)
	}
	words := strings.Fields(p.Prompt)
	p.Prompt = strings.Join(words, " ")
	for _, w := range words {
		if w != "login" && w != "consent" && w != "select_account" {
			return bad("Prompt", "%.60q is not login, consent or select_account", w)
		}
	}
	if p.MaxAge < 0 || p.MaxAge%time.Second != 0 || p.MaxAge > math.MaxInt32*time.Second {
		return bad("MaxAge", "%v is not a number of whole seconds, of 68 years at most", p.MaxAge)
	}
	if len(p.ACRValues) > maxACR {
		return bad("ACRValues", "%d of them, at most %d", len(p.ACRValues), maxACR)
	}
	for _, v := range p.ACRValues {
		if !isName(v) {
			return bad("ACRValues", "%.60q is not an authentication context", v)
		}
	}
	return nil
}

func (u *Upstream) open(p Provider) (*provider, error) {
	if err := p.fill(); err != nil {
		return nil, err
	}
	out := &provider{Provider: p, exchanges: make(chan struct{}, maxExchanges), logouts: make(chan struct{}, maxLogouts)}
	out.metadata = fetched[metadata]{fresh: metadataFresh, stale: metadataStale, interval: fetchInterval, now: u.now,
		fetch: func(ctx context.Context) (*metadata, error) { return u.discover(ctx, out) }}
	out.keys = fetched[keySet]{fresh: keysFresh, stale: keysStale, interval: fetchInterval, now: u.now,
		fetch: func(ctx context.Context) (*keySet, error) { return u.fetchKeys(ctx, out) }}
	return out, nil
}

// reservedID is no provider's: applications behind a proxy know an OAuth client that acts for itself as client:NAME.
const reservedID = "client"

func isID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// isName reports whether s can be one of a list that is separated by spaces: scopes, authentication contexts.
func isName(s string) bool {
	if s == "" || len(s) > maxACRText {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return true
}

// checkAddress refuses what is not an https URL. With loopback, it may be http on a loopback host.
func checkAddress(text string, loopback bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.User != nil, u.Opaque != "", strings.Contains(text, "#"), len(text) > 2048:
		return errors.New("not an absolute https URL")
	case u.Scheme == "https", u.Scheme == "http" && loopback && loopbackHost(u.Hostname()):
		return nil
	}
	return errors.New("not an https URL")
}

func loopbackHost(name string) bool {
	name = strings.ToLower(name)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// ServeHTTP answers Site.Base + "/oidc/ID/start", "/oidc/ID/callback" and "/oidc/ID/backchannel-logout", and 404 to
// everything else.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	site, err := u.options.Site(r)
	switch {
	case errors.Is(err, afterlogin.ErrUnavailable):
		u.trouble(w, err)
		return
	case err != nil || site == nil:
		u.show(w, http.StatusMisdirectedRequest, pageHost)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, site.Base+"/oidc/")
	id, what, found := strings.Cut(rest, "/")
	p := u.providers[id]
	if !ok || !found || p == nil || r.URL.RawPath != "" {
		u.show(w, http.StatusNotFound, pageUnknown)
		return
	}
	method := http.MethodGet
	switch what {
	case "start", "callback":
	case "backchannel-logout":
		method = http.MethodPost
	default:
		u.show(w, http.StatusNotFound, pageUnknown)
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		u.show(w, http.StatusMethodNotAllowed, pageMethod)
		return
	}
	switch what {
	case "start":
		u.start(w, r, site, p)
	case "callback":
		u.callback(w, r, site, p)
	default:
		u.logout(w, r, p)
	}
}
