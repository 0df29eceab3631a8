package upstream

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// maxQuery is the greatest query of an address here, in bytes. Some providers' codes are a few thousand.
const maxQuery = 16 << 10

// maxReturn is the longest return_to, in bytes.
const maxReturn = 2048

// errQuery means that an address does not say what it should, each thing once.
var errQuery = errors.New("a parameter is there twice, or not as it should be")

// parseQuery reads a query in which no parameter stands twice (RFC 6749, 3.1), known here or not.
func parseQuery(raw string) (url.Values, error) {
	if len(raw) > maxQuery {
		return nil, errQuery
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errQuery
	}
	for _, values := range q {
		if len(values) > 1 {
			return nil, errQuery
		}
	}
	return q, nil
}

// begin returns the attempt that the query of a start asks for.
func (p *provider) begin(site *Site, raw string, now time.Time) (*attempt, error) {
	q, err := parseQuery(raw)
	if err != nil {
		return nil, err
	}
	a := &attempt{
		Provider: p.ID, Origin: site.Origin, Base: site.Base, State: randomText(), Nonce: randomText(), Verifier: oauth2.GenerateVerifier(),
		ReturnTo: returnTo(site, q.Get("return_to")), ACR: p.ACRValues, Began: now.Unix(),
	}
	for name, to := range map[string]*bool{"remember": &a.Remember, "confirm": &a.Confirm} {
		switch q.Get(name) {
		case "", "0":
		case "1":
			*to = true
		default:
			return nil, errQuery
		}
	}
	if p.MaxAge > 0 {
		a.MaxAge = new(int64(p.MaxAge / time.Second))
	}
	if text := q.Get("max_age"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, errQuery
		}
		if a.MaxAge == nil || int64(n) < *a.MaxAge {
			a.MaxAge = new(int64(n))
		}
	}
	if text := q.Get("acr_values"); text != "" {
		asked := strings.Split(text, " ")
		if len(asked) > maxACR || slices.ContainsFunc(asked, func(v string) bool { return !isName(v) }) {
			return nil, errQuery
		}
		a.ACR = narrow(p.ACRValues, asked)
	}
	return a, nil
}

// narrow returns those that are asked for and allowed; all that are allowed, if that is none; all that are asked for, if
// any is allowed. Anybody can write an address: what the provider's own settings ask for it cannot take away.
func narrow(allowed, asked []string) []string {
	if len(allowed) == 0 {
		return asked
	}
	var both []string
	for _, v := range asked {
		if slices.Contains(allowed, v) {
			both = append(both, v)
		}
	}
	if len(both) == 0 {
		return allowed
	}
	return both
}

// returnTo returns the text, which is judged when somebody is signed in, unless it is of no use in any case: then it is
// empty. What leads back to here would lead to what is about to end.
func returnTo(site *Site, text string) string {
	path, _, _ := strings.Cut(text, "?")
	path = strings.TrimPrefix(path, site.Origin)
	if len(text) > maxReturn || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || strings.HasPrefix(path, site.Base+"/oidc/") {
		return ""
	}
	return text
}

// start sends the browser to the provider. It must be asked for on a page of the site, by a person: one that comes from
// elsewhere, or does not say, is shown a page with a link first, since a provider that knows the person would sign them in
// without a word.
func (u *Upstream) start(w http.ResponseWriter, r *http.Request, site *Site, p *provider) {
	if !asPage(r) {
		u.show(w, http.StatusForbidden, pageFramed)
		return
	}
	a, err := p.begin(site, r.URL.RawQuery, u.now())
	if err != nil {
		u.show(w, http.StatusBadRequest, pageQuery)
		return
	}
	if !fromHere(w, r) {
		u.showLink(w, http.StatusOK, pageContinue.with(p.Name), Link{r.URL.RequestURI(), "Continue with " + p.Name})
		return
	}
	m, err := p.metadata.get(r.Context(), nil)
	if err != nil {
		u.unavailable(w, site, p, a)
		return
	}
	if err := u.keep(w, r, a); errors.Is(err, errTooLong) {
		a.ReturnTo = ""
		err = u.keep(w, r, a)
		if err != nil {
			u.show(w, http.StatusBadRequest, pageQuery)
			return
		}
	} else if err != nil {
		u.trouble(w, err)
		return
	}
	w.Header().Set("Location", u.authorizationURL(p, m, a))
	noStore(w.Header())
	w.WriteHeader(http.StatusSeeOther)
}

// askedCookie is what tells a click on our page from a link elsewhere where the browser does not: one that sends no
// Sec-Fetch-Site does not send a SameSite=Strict cookie with what another site leads to.
const askedCookie = "__Host-Http-afterlogin_asked"

// fromHere reports whether a page of this site, or the person with the address bar, asks. If that is not known it sets
// askedCookie, for the next time.
func fromHere(w http.ResponseWriter, r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		if len(r.CookiesNamed(askedCookie)) > 0 {
			return true
		}
		w.Header().Add("Set-Cookie", askedCookie+"=1; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=600")
	}
	return false
}

// asPage reports whether the answer is to be a page of its own: not a picture, and not in a frame.
func asPage(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return (mode == "" || mode == "navigate") && (dest == "" || dest == "document")
}

// authorizationURL returns where the browser is sent (OpenID Connect Core 1.0, 3.1.2.1).
func (u *Upstream) authorizationURL(p *provider, m *metadata, a *attempt) string {
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(a.Verifier), oidc.Nonce(a.Nonce)}
	set := func(name, value string) { options = append(options, oauth2.SetAuthURLParam(name, value)) }
	if p.Prompt != "" {
		set("prompt", p.Prompt)
	}
	if a.MaxAge != nil {
		set("max_age", strconv.FormatInt(*a.MaxAge, 10))
	}
	switch {
	case len(a.ACR) == 0:
	case m.claims: // one or the other: what both together mean is not specified (OpenID Connect Core 1.0, 5.5.1.1)
		set("claims", essentialACR(a.ACR))
	default:
		set("acr_values", strings.Join(a.ACR, " "))
	}
	return p.oauth2(m, a).AuthCodeURL(a.State, options...)
}

// essentialACR asks for one of the values, and for no sign-in without.
func essentialACR(values []string) string {
	var c struct {
		IDToken struct {
			ACR struct {
				Essential bool     `json:"essential"`
				Values    []string `json:"values"`
			} `json:"acr"`
		} `json:"id_token"`
	}
	c.IDToken.ACR.Essential, c.IDToken.ACR.Values = true, values
	b, err := json.Marshal(c)
	if err != nil {
		panic("upstream: " + err.Error()) // strings and a boolean
	}
	return string(b)
}

// oauth2 returns what golang.org/x/oauth2 needs to know. The way that the secret is sent is decided here: to try one after
// the other would use up the code.
func (p *provider) oauth2(m *metadata, a *attempt) *oauth2.Config {
	style := oauth2.AuthStyleInParams
	if !p.ClientSecret.IsZero() {
		post := p.AuthMethod == AuthPost ||
			p.AuthMethod == "" && m.authMethods != nil && !slices.Contains(m.authMethods, "client_secret_basic") &&
				slices.Contains(m.authMethods, "client_secret_post")
		if !post {
			style = oauth2.AuthStyleInHeader
		}
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret.Reveal(), Scopes: p.Scopes,
		RedirectURL: p.redirectURI(a.Origin + a.Base),
		Endpoint:    oauth2.Endpoint{AuthURL: m.authorization, TokenURL: m.token, AuthStyle: style},
	}
}

// redirectURI is where the provider answers to. Each provider has its own, so that the answer of one is never taken for
// that of another (RFC 9700, 4.4.2.2).
func (p *provider) redirectURI(place string) string { return place + "/oidc/" + p.ID + "/callback" }

// again returns the link that begins the attempt anew.
func (a *attempt) again(site *Site, p *provider) Link {
	q := make(url.Values)
	if a.ReturnTo != "" {
		q.Set("return_to", a.ReturnTo)
	}
	if a.Remember {
		q.Set("remember", "1")
	}
	if a.Confirm {
		q.Set("confirm", "1")
	}
	if a.MaxAge != nil {
		q.Set("max_age", strconv.FormatInt(*a.MaxAge, 10))
	}
	if len(a.ACR) > 0 {
		q.Set("acr_values", strings.Join(a.ACR, " "))
	}
	to := site.Base + "/oidc/" + p.ID + "/start"
	if len(q) > 0 {
		to += "?" + q.Encode()
	}
	return Link{to, "Sign in with " + p.Name}
}
