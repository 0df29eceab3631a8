// Package badshop is a small web shop with a switch for every weakness that package grade looks for. With all of them off
// it is in order. It is test data: nothing but tests may import it.
package badshop

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// User and Password are the only ones who can sign in.
const (
	User     = "mia@shop.example"
	Password = "tea and biscuits"
)

// A Weakness is a switch.
type Weakness string

// How tokens are made. Those up to Short may be on together: a token is then made of all of them.
const (
	Counter  Weakness = "counter"   // a number that rises
	Time     Weakness = "time"      // the time, in nanoseconds
	UUIDv1   Weakness = "uuid v1"   // the time, and a fixed node
	UserData Weakness = "user data" // the user's name, in base64, beside enough chance
	MD5User  Weakness = "md5 user"  // the MD5 of the user's name
	Short    Weakness = "short"     // 48 random bits

	MD5Counter Weakness = "md5 counter" // the MD5 of a number that rises
	MD5Time    Weakness = "md5 time"    // the MD5 of the user's name and the time, in milliseconds
	UUIDv4     Weakness = "uuid v4"     // 122 random bits
	ULID       Weakness = "ulid"        // the time, and 80 random bits
	Middling   Weakness = "80 bits"     // 80 random bits
	LowChance  Weakness = "low chance"  // 32 characters that are made of few random bits
	Tiny       Weakness = "tiny"        // a number that rises, as short as it is
	Huge       Weakness = "huge"        // more than browsers keep
)

// What the cookie is like.
const (
	NoSecure    Weakness = "no Secure"
	NoHTTPOnly  Weakness = "no HttpOnly"
	NoSameSite  Weakness = "no SameSite"
	CrossSite   Weakness = "SameSite=None"
	NoPrefix    Weakness = "no prefix"
	Domain      Weakness = "Domain"
	LongLived   Weakness = "long-lived"
	FirstWins   Weakness = "first cookie wins"
	LastWins    Weakness = "last cookie wins"
	YearCookie  Weakness = "kept for over a year"
	TokenInPage Weakness = "token in page"
)

// What happens at sign-in and sign-out.
const (
	Fixation    Weakness = "fixation"          // the token of before is kept
	OldAlive    Weakness = "old token alive"   // a stranger's token is signed in, too
	Adoption    Weakness = "adoption"          // an unknown token is taken over
	AdoptsEarly Weakness = "adoption early"    // and only where it is shown the form with it
	KeepsOld    Weakness = "keeps old session" // signing in again leaves the session of before
	SurvivesOut Weakness = "survives sign-out"
	CookieStays Weakness = "cookie stays"
	HiddenOut   Weakness = "hidden sign-out"  // no weakness: the form has a page of its own
	LinkOut     Weakness = "sign-out by link" // hardly one
	SilentOut   Weakness = "sign-out by address"
	Remember    Weakness = "remember cookie"  // no weakness: a second cookie that is enough to be signed in
	Inline      Weakness = "form on the page" // no weakness: strangers are shown the form in place of the page, which says no name
	ErrsUnknown Weakness = "error for unknown tokens"
)

// Where tokens go, and what is accepted as one.
const (
	TokenInURL    Weakness = "token in URL"
	TokenInPath   Weakness = "token in path" // one of 16 characters
	TokenRefresh  Weakness = "token in Refresh"
	PublicLanding Weakness = "public landing" // no weakness: the sign-in leads to a page that is the same for everybody
	PublicNews    Weakness = "public news"    // likewise, and new every time
	TokenInLink   Weakness = "token in link"
	QueryToken    Weakness = "query token"
	PathToken     Weakness = "path token"
	Public        Weakness = "public cache"
	NoCacheHeader Weakness = "no cache header"
	PrivateOnly   Weakness = "private, no-cache"
	Truncated     Weakness = "truncated token"
	ShortByOne    Weakness = "one character less"
	AnyCase       Weakness = "any case"
	Extended      Weakness = "extended token"
)

// JWTs. JWT alone is no weakness: a good secret, an end, and a server that remembers which are over.
const (
	JWT         Weakness = "jwt"
	WeakSecret  Weakness = "secret"         // of the usual ones
	KnownSecret Weakness = "known password" // of a list of passwords
	AlgNone     Weakness = "alg none"       // accepted
	OnlyNone    Weakness = "only none"      // accepted in this spelling
	OnlyNoneUp  Weakness = "only None"
	OnlyNONE    Weakness = "only NONE"
	OnlyNOnE    Weakness = "only nOnE"
	OnlyTwo     Weakness = "only two parts"    // alg none, and no dot for a signature
	EmptySign   Weakness = "empty signature"   // accepted
	NoJTI       Weakness = "no jti"            // no weakness: tokens of one second are the same
	NoSignature Weakness = "no signature"      // nothing is verified
	OtherSign   Weakness = "signature ignored" // the payload is compared, the signature is not looked at
	OtherClaims Weakness = "payload ignored"   // the signature is verified, over the payload that was given out
	NoExpiry    Weakness = "no exp"
	FarExpiry   Weakness = "far exp"
	PasswordIn  Weakness = "password in claims"
	Stateless   Weakness = "stateless" // nothing is remembered, so that signing out ends nothing
)

// A Shop answers requests.
type Shop struct {
	on map[Weakness]bool

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	count    int
	last     int64 // milliseconds of MD5Time
	secret   []byte
}

type session struct {
	user, csrf string // user: empty for strangers
	body       string // of the JWT
	adopted    bool
}

// New makes a shop with the weaknesses.
func New(weak ...Weakness) *Shop {
	s := &Shop{on: make(map[Weakness]bool), sessions: make(map[string]*session), secret: []byte(random(32))}
	for _, w := range weak {
		s.on[w] = true
	}
	if s.on[WeakSecret] {
		s.secret = []byte("your-256-bit-secret")
	}
	if s.on[KnownSecret] {
		s.secret = []byte("trustno1")
	}
	return s
}

func rawRandom(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func random(n int) string { return base64.RawURLEncoding.EncodeToString(rawRandom(n)) }

// name is the cookie's.
func (s *Shop) name() string {
	if s.on[NoPrefix] || s.on[NoSecure] || s.on[Domain] {
		return "session"
	}
	return "__Host-session"
}

// token makes one for the user. The lock is held.
func (s *Shop) token(user string) string {
	s.count++
	var parts []string
	if s.on[Counter] {
		parts = append(parts, fmt.Sprintf("%016x", s.count))
	}
	if s.on[Time] {
		parts = append(parts, strconv.FormatInt(time.Now().UnixNano(), 10))
	}
	if s.on[UUIDv1] {
		ticks := uint64(time.Now().UnixNano()/100 + 122192928000000000)
		parts = append(parts, fmt.Sprintf("%08x-%04x-1%03x-8a3c-0242ac110002", uint32(ticks), uint16(ticks>>32), uint16(ticks>>48)&0xfff))
	}
	if s.on[UserData] {
		parts = append(parts, base64.RawURLEncoding.EncodeToString([]byte(user+"|"+random(24))))
	}
	if s.on[MD5User] {
		sum := md5.Sum([]byte(user))
		parts = append(parts, hex.EncodeToString(sum[:]))
	}
	if s.on[Short] {
		parts = append(parts, hex.EncodeToString(rawRandom(6)))
	}
	if parts != nil {
		return strings.Join(parts, ".")
	}
	b := rawRandom(32)
	switch {
	case s.on[MD5Counter]:
		sum := md5.Sum([]byte(strconv.Itoa(s.count)))
		return hex.EncodeToString(sum[:])
	case s.on[MD5Time]:
		s.last = max(s.last+1, time.Now().UnixMilli())
		sum := md5.Sum([]byte(user + strconv.FormatInt(s.last, 10)))
		return hex.EncodeToString(sum[:])
	case s.on[UUIDv4]:
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
	case s.on[ULID]:
		const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
		ms, text := time.Now().UnixMilli(), make([]byte, 26)
		for i := range 10 {
			text[9-i] = alphabet[ms>>(5*i)&31]
		}
		for i := range 16 {
			text[10+i] = alphabet[b[i]&31]
		}
		return string(text)
	case s.on[TokenInPath]:
		return base64.RawURLEncoding.EncodeToString(b[:12])
	case s.on[Middling]:
		return hex.EncodeToString(b[:10])
	case s.on[LowChance]: // 32 random bits, four times, each a little different
		for i := 4; i < 16; i++ {
			b[i] = b[i%4] ^ byte(i*37)
		}
		return hex.EncodeToString(b[:16])
	case s.on[Tiny]:
		return strconv.Itoa(s.count)
	case s.on[Huge]:
		return base64.RawURLEncoding.EncodeToString(b) + strings.Repeat("A", 4200)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// begin makes a session and returns what the browser gets. The lock is held.
func (s *Shop) begin(user string) string {
	id := s.token(user)
	if old := s.sessions[id]; old != nil && old.user == user && user != "" { // the same token for all
		return id
	}
	se := &session{user: user, csrf: random(16)}
	if !s.on[NoJTI] {
		s.sessions[id] = se
	}
	if !s.on[JWT] {
		return id
	}
	claims := map[string]any{"sub": "u1", "jti": id, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "user": user == User}
	if s.on[NoExpiry] {
		delete(claims, "exp")
	}
	if s.on[FarExpiry] {
		claims["exp"] = time.Now().AddDate(10, 0, 0).Unix()
	}
	if s.on[PasswordIn] {
		claims["password"] = Password
	}
	if s.on[NoJTI] {
		delete(claims, "jti")
	}
	body, _ := json.Marshal(claims)
	se.body = base64.RawURLEncoding.EncodeToString(body)
	if s.on[NoJTI] && s.sessions[se.body] == nil {
		s.sessions[se.body] = se
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + se.body
	return text + "." + s.sign(text)
}

func (s *Shop) sign(text string) string {
	m := hmac.New(sha256.New, s.secret)
	m.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// find returns the session of the token. The lock is held.
func (s *Shop) find(token string) (string, *session) {
	if s.on[JWT] {
		return s.findJWT(token)
	}
	if se := s.sessions[token]; se != nil {
		return token, se
	}
	for id, se := range s.sessions {
		switch {
		case s.on[ShortByOne] && len(token) == len(id)-1 && strings.HasPrefix(id, token),
			s.on[Truncated] && len(token) >= 8 && strings.HasPrefix(id, token),
			s.on[Extended] && strings.HasPrefix(token, id),
			s.on[AnyCase] && strings.EqualFold(id, token):
			return id, se
		}
	}
	return "", nil
}

func (s *Shop) findJWT(token string) (string, *session) {
	parts := strings.Split(token, ".")
	if len(parts) == 2 && (s.on[AlgNone] || s.on[OnlyTwo]) {
		if s.on[OnlyTwo] {
			parts[0] = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"two"}`))
		}
		parts = append(parts, "")
	}
	if len(parts) != 3 {
		return "", nil
	}
	var header struct{ Alg string }
	var claims struct {
		JTI  string
		Exp  int64
		User bool
	}
	h, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	b, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	if err1 != nil || err2 != nil || json.Unmarshal(h, &header) != nil || json.Unmarshal(b, &claims) != nil {
		return "", nil
	}
	id := claims.JTI
	if s.on[NoJTI] {
		id = parts[1]
	}
	se := s.sessions[id]
	signed := s.sign(parts[0]+"."+parts[1]) == parts[2]
	if s.on[Stateless] && signed && claims.User && se == nil {
		se = &session{user: User, csrf: "stateless"}
	}
	if se == nil || claims.Exp < time.Now().Unix() && !s.on[NoExpiry] {
		return "", nil
	}
	switch {
	case header.Alg == "HS256" && signed,
		s.on[NoSignature],
		header.Alg == "two" && s.on[OnlyTwo],
		s.on[Weakness("only "+header.Alg)] && parts[2] == "",
		s.on[EmptySign] && header.Alg == "HS256" && parts[1] == se.body && parts[2] == "",
		s.on[AlgNone] && strings.EqualFold(header.Alg, "none") && parts[2] == "",
		s.on[OtherSign] && header.Alg == "HS256" && parts[1] == se.body,
		s.on[OtherClaims] && header.Alg == "HS256" && s.sign(parts[0]+"."+se.body) == parts[2]:
		return id, se
	}
	return "", nil
}

// presented is the token of the request, as far as the shop would look; empty: none, or too many.
func (s *Shop) presented(r *http.Request) string {
	cookies := r.CookiesNamed(s.name())
	switch {
	case len(cookies) == 1, len(cookies) > 1 && s.on[FirstWins]:
		return cookies[0].Value
	case len(cookies) > 1 && s.on[LastWins]:
		return cookies[len(cookies)-1].Value
	case len(cookies) > 1:
		return ""
	}
	if s.on[QueryToken] && r.URL.Query().Get("sid") != "" {
		return r.URL.Query().Get("sid")
	}
	if _, t, ok := strings.Cut(r.URL.Path, ";jsessionid="); ok && s.on[PathToken] {
		return t
	}
	if c, err := r.Cookie("__Host-z-remember"); err == nil && s.on[Remember] {
		return c.Value
	}
	t, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return t
}

// set sends the cookie.
func (s *Shop) set(w http.ResponseWriter, value string) {
	c := http.Cookie{Name: s.name(), Value: value, Path: "/", Secure: !s.on[NoSecure], HttpOnly: !s.on[NoHTTPOnly], SameSite: http.SameSiteLaxMode}
	if s.on[NoSameSite] {
		c.SameSite = 0
	}
	if s.on[CrossSite] {
		c.SameSite = http.SameSiteNoneMode
	}
	if s.on[Domain] {
		c.Domain = "shop.localhost"
	}
	if s.on[LongLived] {
		c.MaxAge = 90 * 86400
	}
	if s.on[YearCookie] {
		c.MaxAge = 400 * 86400
	}
	if value == "" {
		c.MaxAge = -1
	}
	// Not http.SetCookie, which would drop what does not fit.
	w.Header().Add("Set-Cookie", c.String())
}

// ServeHTTP answers a request.
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.on[Public]:
		w.Header().Set("Cache-Control", "public, max-age=60")
	case s.on[PrivateOnly]:
		w.Header().Set("Cache-Control", "private, no-cache")
	case !s.on[NoCacheHeader]:
		w.Header().Set("Cache-Control", "no-store")
	}
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	}
	token := s.presented(r)
	id, se := s.find(token)
	path, _, _ := strings.Cut(r.URL.Path, ";")
	if s.on[TokenInPath] && strings.HasPrefix(path, "/account/") {
		path = "/account"
	}
	switch r.Method + " " + path {
	case "GET /":
		s.page(w, se, token, `<p>Tea of the week.</p>`)
	case "GET /login":
		s.loginPage(w, se, token)
	case "POST /login":
		s.login(w, r, id, se, token)
	case "POST /api/login":
		s.apiLogin(w, r)
	case "GET /welcome":
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<p>Welcome. <a href="/account">Account</a> <a href="/login">Sign in</a>`)
		if s.on[PublicNews] {
			io.WriteString(w, "<p>News: "+random(8))
		}
	case "GET /account":
		if s.on[TokenRefresh] && se != nil {
			w.Header().Set("Refresh", "600; url=/account?again="+token)
		}
		if s.on[ErrsUnknown] && se == nil && token != "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if s.on[Inline] && (se == nil || se.user == "") {
			s.loginPage(w, se, "")
			return
		}
		if se == nil || se.user == "" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		s.page(w, se, token, "<h1>Your account</h1>")
	case "POST /logout":
		s.logout(w, r, id, se)
	case "GET /logout":
		switch {
		case s.on[HiddenOut] && se != nil:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, signOutForm(se))
		case s.on[SilentOut]:
			s.end(w, r, id)
		default:
			http.NotFound(w, r)
		}
	case "GET /leave":
		s.end(w, r, id)
	default:
		http.NotFound(w, r)
	}
}

func (s *Shop) page(w http.ResponseWriter, se *session, token, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, "<!doctype html><title>Shop</title><nav>")
	if se != nil && se.user != "" {
		hello := se.user
		if s.on[Inline] {
			hello = "you"
		}
		fmt.Fprintf(w, `<a href="/account">Account</a> Hello %s`, html.EscapeString(hello))
		switch {
		case s.on[LinkOut]:
			io.WriteString(w, ` <a href="/leave">Sign out</a>`)
		case !s.on[HiddenOut] && !s.on[SilentOut]:
			io.WriteString(w, signOutForm(se))
		}
		if s.on[TokenInPage] {
			fmt.Fprintf(w, `<script>window.token = %q</script>`, token)
		}
		if s.on[TokenInLink] {
			fmt.Fprintf(w, `<a href="/help?back=1&amp;s=%s">Help</a>`, token)
		}
	} else {
		io.WriteString(w, `<a href="/login">Sign in</a>`)
	}
	io.WriteString(w, "</nav>"+body)
}

func signOutForm(se *session) string {
	return ` <form method="post" action="/logout"><input type="hidden" name="csrf" value="` + se.csrf + `"><button>Sign out</button></form>`
}

// loginPage shows the form. Strangers get a session, for what proves that the form is this site's own.
func (s *Shop) loginPage(w http.ResponseWriter, se *session, token string) {
	if token != "" && se == nil && s.on[AdoptsEarly] {
		se = &session{csrf: random(16), adopted: true}
		s.sessions[token] = se
	}
	if se == nil {
		value := s.begin("")
		_, se = s.find(value)
		s.set(w, value)
	}
	s.page(w, nil, "", fmt.Sprintf(`<form method="post" action="/login"><input type="hidden" name="csrf" value="%s">
<input name="email" type="email" autocomplete="username"><input name="password" type="password"><button name="go" value="1">Sign in</button></form>`, se.csrf))
}

func (s *Shop) login(w http.ResponseWriter, r *http.Request, id string, se *session, token string) {
	forged := se != nil && r.PostFormValue("csrf") != se.csrf
	if r.PostFormValue("email") != User || r.PostFormValue("password") != Password || forged {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var value string
	switch {
	case s.on[Fixation] && se != nil && !s.on[JWT], se != nil && se.adopted:
		se.user, value = User, token
	case s.on[Adoption] && se == nil && token != "" && !s.on[JWT]:
		value = token
		s.sessions[token] = &session{user: User, csrf: random(16)}
	default:
		if se != nil && s.on[OldAlive] {
			se.user = User
		}
		if se != nil && !s.on[OldAlive] && (se.user == "" || !s.on[KeepsOld]) {
			delete(s.sessions, id)
		}
		value = s.begin(User)
	}
	s.set(w, value)
	if s.on[Remember] {
		also := "r" + random(32)
		s.sessions[also] = &session{user: User, csrf: random(16)}
		http.SetCookie(w, &http.Cookie{Name: "__Host-z-remember", Value: also, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 86400})
	}
	to := "/account"
	if s.on[TokenInPath] {
		to += "/" + value
	}
	if s.on[PublicLanding] || s.on[PublicNews] {
		to = "/welcome"
	}
	if s.on[TokenInURL] {
		to += "?sid=" + value
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s *Shop) apiLogin(w http.ResponseWriter, r *http.Request) {
	var in struct{ Username, Password string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Username != User || in.Password != Password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"access_token": s.begin(User), "token_type": "Bearer"}})
}

func (s *Shop) logout(w http.ResponseWriter, r *http.Request, id string, se *session) {
	if se == nil || r.PostFormValue("csrf") != se.csrf {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.end(w, r, id)
}

// end ends the session.
func (s *Shop) end(w http.ResponseWriter, r *http.Request, id string) {
	if !s.on[SurvivesOut] {
		delete(s.sessions, id)
	}
	if !s.on[CookieStays] {
		s.set(w, "")
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// All are the weaknesses that can be on together with opaque tokens, in an order.
func All() []Weakness {
	return []Weakness{
		Counter, Time, UUIDv1, MD5User, Short,
		NoSecure, NoHTTPOnly, NoSameSite, Domain, LongLived, FirstWins, TokenInPage,
		OldAlive, Adoption, KeepsOld, SurvivesOut, CookieStays,
		TokenInURL, TokenInLink, QueryToken, PathToken, Public, Truncated, AnyCase, Extended,
	}
}

// AllJWT are those that can be on together with JWTs.
func AllJWT() []Weakness {
	return slices.Concat(All()[5:], []Weakness{JWT, WeakSecret, AlgNone, NoSignature, NoExpiry, PasswordIn})
}
