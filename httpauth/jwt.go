package httpauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// JWT returns a short-lived signed token for the session (or whatever else) of the request, for the Authorization header
// of a call to a service behind this application, which verifies it without a call of its own. Name the service in
// Audience. It asks for a JWT whatever the request says.
//
// For the same request of the same session it returns the same token until half of its life is over, so that a page that
// calls ten services a hundred times does not sign a thousand tokens. The token ends with the session: see package
// jwt/revoked for services that want to know at once.
//
// Errors: a Refusal if nobody is signed in or more is asked for than there is, ErrBadRequest, a LimitError, and
// ErrUnavailable.
func (x *Auth) JWT(r *http.Request, a afterlogin.AccessRequest) (afterlogin.Token, error) {
	t, _, err := x.jwt(r, a)
	return t, err
}

// jwt also returns how long the token is good.
func (x *Auth) jwt(r *http.Request, a afterlogin.AccessRequest) (afterlogin.Token, time.Duration, error) {
	v := x.visitOf(r.Context())
	if v == nil {
		return afterlogin.Token{}, 0, x.outside(r)
	}
	s, err := v.person()
	if err != nil {
		return afterlogin.Token{}, 0, err
	}
	a.JWT = true
	key := jwtFor(s, a)
	if t, left := x.made.get(key, time.Now()); left > 0 {
		return t, left, nil
	}
	got, err := x.authority.IssueAccess(r.Context(), s, a)
	if err != nil {
		return afterlogin.Token{}, 0, err
	}
	life := got.Session.Absolute.Sub(got.Session.Created)
	x.made.put(key, got.Token, life, time.Now())
	return got.Token, life, nil
}

// JWTHandler answers a request of a signed-in person, as Require has it, with a JWT as JSON: access_token, token_type and
// expires_in, as a token endpoint would. It is for pages whose scripts call services that verify JWTs. The answer is not
// stored by any cache. Only POST is answered, with the protection that Require gives to forms.
func (x *Auth) JWTHandler(a afterlogin.AccessRequest) http.Handler {
	return x.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "Use POST.", http.StatusMethodNotAllowed)
			return
		}
		t, left, err := x.jwt(r, a)
		if err != nil {
			Answer(w, r, err)
			return
		}
		noStore(w.Header())
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(struct {
			AccessToken string `json:"access_token"`
			TokenType   string `json:"token_type"`
			ExpiresIn   int64  `json:"expires_in"`
		}{t.Reveal(), "Bearer", int64(left / time.Second)})
	}))
}

// SetJWTCookie has the answer set the cookie Options.JWTCookie to a JWT of the request's session, for services behind this
// host that read it there. It is for this application's own Audience if the request names none. The browser drops it when
// the token is over; nothing renews it. It must be called before the headers are written. SignOut clears the cookie.
// A request that was let in by a ticket or by this cookie is refused.
func (x *Auth) SetJWTCookie(w http.ResponseWriter, r *http.Request, a afterlogin.AccessRequest) error {
	if x.options.JWTCookie == "" {
		return errNoJWTCookie
	}
	v, err := x.open(r)
	if err != nil {
		return err
	}
	s, err := v.lasting()
	if err != nil {
		return err
	}
	a.JWT = true
	if len(a.Audience) == 0 {
		a.Audience = x.options.Audience
	}
	got, err := x.authority.IssueAccess(r.Context(), s, a)
	if err != nil {
		return err
	}
	life := int64(got.Session.Absolute.Sub(got.Session.Created) / time.Second)
	w.Header().Add("Set-Cookie", x.options.JWTCookie+"="+got.Token.Reveal()+x.attributes+"; Max-Age="+strconv.FormatInt(max(life, 1), 10))
	noStore(w.Header())
	return nil
}

var errNoJWTCookie = errors.New("httpauth: SetJWTCookie: Options.JWTCookie is not set")

// maxJWTs is how many tokens are kept for another use.
const maxJWTs = 4096

// madeJWTs keeps tokens for the same wish of the same session. When there are too many, the older half goes at once, so
// that nobody waits for a search: to lose one costs a signature.
type madeJWTs struct {
	mu         sync.Mutex
	young, old map[jwtKey]madeJWT
}

type madeJWT struct {
	token      afterlogin.Token
	fresh, end time.Time // handed out again until fresh
}

// jwtKey is everything that decides what stands in a token.
type jwtKey struct {
	id     afterlogin.SessionID
	kind   afterlogin.Kind
	jti    string
	authAt int64
	life   time.Duration
	wish   string
}

func jwtFor(s *afterlogin.Session, a afterlogin.AccessRequest) jwtKey {
	var b strings.Builder
	for _, list := range [][]string{{a.Client}, {a.Actor}, a.Scopes, a.Audience, s.Auth.Methods, s.Scopes} {
		list = slices.Clone(list)
		slices.Sort(list)
		b.WriteString(strconv.Itoa(len(list)))
		for _, t := range list {
			b.WriteString(strconv.Quote(t))
		}
	}
	return jwtKey{s.ID, s.Kind, s.JWTID, s.Auth.At.UnixMilli(), a.Lifetime, b.String()}
}

func (m *madeJWTs) get(k jwtKey, now time.Time) (t afterlogin.Token, left time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.young[k]
	if !ok {
		j, ok = m.old[k]
	}
	if ok && now.Before(j.fresh) {
		return j.token, j.end.Sub(now)
	}
	return afterlogin.Token{}, 0
}

func (m *madeJWTs) put(k jwtKey, t afterlogin.Token, life time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= maxJWTs/2 {
		m.old, m.young = m.young, nil
	}
	if m.young == nil {
		m.young = make(map[jwtKey]madeJWT)
	}
	m.young[k] = madeJWT{t, now.Add(life / 2), now.Add(life)}
}
