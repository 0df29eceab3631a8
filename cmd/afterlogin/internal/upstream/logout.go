package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Bounds of back-channel logout.
const (
	maxLogoutBody = 2 * maxToken
	maxLogouts    = 16               // of one provider, at once
	logoutWait    = 5 * time.Second  // for one of those under way to end
	logoutTime    = 20 * time.Second // in all; the server gives an answer 30 s
)

// logoutEvent is the member of events that makes a token a logout token.
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// A logoutToken is what a provider says about the end of a session of its own (OpenID Connect Back-Channel Logout 1.0,
// 2.4), after all checks.
type logoutToken struct {
	id      string
	subject string // or
	sid     string // or both
	issued  time.Time
}

// logout ends the sessions that a provider's logout token names. It answers 200 when that is durable, 400 if the token is
// not heeded, and 503 if that is not known now: so that the provider tries again.
func (u *Upstream) logout(w http.ResponseWriter, r *http.Request, p *provider) {
	noStore(w.Header())
	// What anybody can send, as slowly as they like, takes nobody's place: the request is read, and has the form of one.
	raw, err := logoutTokenOf(w, r)
	if err == nil {
		_, err = signed{p, algorithms}.parse(raw)
	}
	if err != nil {
		u.logoutFailed(w, p, false, err)
		return
	}
	// A provider that hangs up must not keep anybody signed in.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), logoutTime)
	defer cancel()
	if !p.enter(u.logoutWait) {
		u.logoutFailed(w, p, false, errBusy)
		return
	}
	defer p.leave()
	m, err := p.metadata.get(ctx, nil)
	if err != nil {
		u.logoutFailed(w, p, false, err)
		return
	}
	proof, err := u.prove(ctx, p, m, raw)
	if err != nil {
		u.logoutFailed(w, p, false, err)
		return
	}
	t, err := u.examineLogout(ctx, p, m, proof)
	if err != nil {
		u.logoutFailed(w, p, true, err)
		return
	}
	replayed, err := u.attached.heed(ctx, p, t.id, t.issued, func() error { return u.end(ctx, p, t) })
	if err == nil && replayed {
		err = errReplayed
	}
	if err != nil {
		u.logoutFailed(w, p, true, err)
		return
	}
	u.log.Info("an OpenID provider has signed somebody out", "provider", p.ID, "one_session", t.sid != "")
	w.WriteHeader(http.StatusOK)
}

// end does what a logout token asks for.
func (u *Upstream) end(ctx context.Context, p *provider, t *logoutToken) error {
	if t.sid != "" {
		known, err := u.attached.endSession(ctx, p, t.sid, t.issued)
		if err != nil || known || t.subject == "" {
			return err
		}
		// A session that nobody has heard of: its ID token did not name it. What is known of it is whose it is.
	}
	return u.attached.endSubject(ctx, p, t.subject, t.issued)
}

// Why a request is not one for a logout.
var (
	errLogoutForm = errors.New("want a URL-encoded form with one logout_token, of at most 64 KiB")
	errReplayed   = errors.New("this token was heeded before")
	errBusy       = fmt.Errorf("%w: too many logouts of the provider are under way", afterlogin.ErrUnavailable)
)

// enter waits until fewer than maxLogouts of the provider's are under way, but not for longer than that. Each provider has
// its own: one that hangs does not keep people signed in who come from another.
func (p *provider) enter(limit time.Duration) bool {
	wait := time.NewTimer(limit)
	defer wait.Stop()
	select {
	case p.logouts <- struct{}{}:
		return true
	case <-wait.C:
		return false
	}
}

func (p *provider) leave() { <-p.logouts }

// logoutTokenOf returns the token of the request.
func logoutTokenOf(w http.ResponseWriter, r *http.Request) (string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || r.ContentLength > maxLogoutBody || r.URL.RawQuery != "" {
		return "", errLogoutForm
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogoutBody))
	if err != nil {
		return "", errLogoutForm
	}
	return parseLogoutForm(string(b))
}

func parseLogoutForm(text string) (string, error) {
	q, err := url.ParseQuery(text)
	if err != nil || len(q["logout_token"]) != 1 || q["logout_token"][0] == "" {
		return "", errLogoutForm
	}
	return q["logout_token"][0], nil
}

// examineLogout checks a logout token (OpenID Connect Back-Channel Logout 1.0, 2.6).
func (u *Upstream) examineLogout(ctx context.Context, p *provider, m *metadata, proof proved) (*logoutToken, error) {
	if proof.typ != "logout+jwt" && !(p.UntypedLogout && (proof.typ == "" || proof.typ == "jwt")) {
		return nil, errors.New("typ is not logout+jwt")
	}
	o, err := parseObject(proof.payload)
	if err != nil {
		return nil, err
	}
	if _, err := u.verifier(p, m, proof).VerifyLogout(ctx, proof.token); err != nil {
		return nil, plain("logout token", err)
	}
	if err := checkParties(p, o); err != nil {
		return nil, err
	}
	if o.has("nonce") {
		return nil, errors.New("nonce is there: it is an ID token")
	}
	events, err := parseObject(o["events"])
	if err != nil {
		return nil, errors.New("events is not an object")
	}
	if _, err := parseObject(events[logoutEvent]); err != nil {
		return nil, errors.New("events does not name a logout")
	}
	t, now := &logoutToken{}, u.now()
	if t.issued, err = o.date("iat"); err != nil || t.issued.IsZero() {
		return nil, errors.New("iat is missing, or no time")
	}
	if t.issued.After(now.Add(skew)) || t.issued.Before(now.Add(-maxOld)) {
		return nil, fmt.Errorf("iat is %v from now: it is old, or one of the two clocks is wrong", t.issued.Sub(now).Round(time.Second))
	}
	if exp, err := o.date("exp"); err != nil || !exp.After(now) {
		return nil, errors.New("exp is missing, or over")
	}
	if t.id, err = o.text("jti"); err != nil || t.id == "" || len(t.id) > 1024 {
		return nil, errors.New("jti is missing, or over 1024 bytes")
	}
	if t.subject, err = o.text("sub"); err != nil || o.has("sub") && !isSubject(t.subject) {
		return nil, errors.New("sub is not 1 to 255 bytes of text")
	}
	if t.sid, err = o.text("sid"); err != nil || len(t.sid) > maxSID || o.has("sid") && t.sid == "" {
		return nil, errors.New("sid is not 1 to 255 bytes of text")
	}
	if t.subject == "" && t.sid == "" {
		return nil, errors.New("neither sub nor sid is there")
	}
	return t, nil
}

// logoutFailed answers a logout that was not done. What the provider has not signed, or nobody knows whether it has, is no
// more than Debug in the log: strangers could write there what they like. That a provider cannot be reached is logged by
// whoever asks it.
func (u *Upstream) logoutFailed(w http.ResponseWriter, p *provider, signed bool, err error) {
	status, code, text := http.StatusBadRequest, "invalid_request", err.Error()
	log := func(level slog.Level, what string) {
		if !signed {
			level = slog.LevelDebug
		}
		u.log.Log(context.Background(), level, what, "provider", p.ID, "err", err)
	}
	if errors.Is(err, errDown) || errors.Is(err, afterlogin.ErrUnavailable) {
		status, code, text = http.StatusServiceUnavailable, "temporarily_unavailable", "not now; send it again in a moment"
		retryAfter(w.Header())
		log(slog.LevelError, "a back-channel logout cannot be done now")
	} else {
		log(slog.LevelWarn, "a back-channel logout was refused")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, text})
}
