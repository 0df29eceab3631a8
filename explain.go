package afterlogin

import (
	"context"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
)

// An Explanation tells what the authority thinks of a token, check by check. It holds no secret.
type Explanation struct {
	Valid   bool      `json:"valid"`
	Reason  Reason    `json:"reason,omitempty"`
	Steps   []Step    `json:"steps"`
	Session *Session  `json:"-"` // what it is of, good or not; nil if that is not known
	At      time.Time `json:"at"`

	// The rest is there with a Session.

	// Above is what it lives under, nearest first; the root is the last. A root has none.
	Above []*Session `json:"-"`
	// Timers are what ends it, or renews it, and when: its own and those of what it lives under.
	Timers []Timer `json:"-"`
	// Rotations are the last renewals of the token, the oldest first, at most 4. Session.Generation counts all.
	Rotations []Rotation `json:"-"`
	// Forgiven is how many lost answers in a row were forgiven.
	Forgiven int `json:"-"`
	// Binding is the proof of possession that it needs besides the token; "" is none: whoever holds it may use it.
	Binding string `json:"-"`
	// Cached says that this node holds it in memory and would answer from there now. This explanation is from the store.
	Cached bool `json:"-"`
}

// A Timer is a moment at which something becomes of a credential by itself.
type Timer struct {
	Of   SessionID
	Name string // idle, absolute, renewal, grace
	At   time.Time
	Left time.Duration // from Explanation.At; negative if it is past
}

// A Rotation is one renewal of a token.
type Rotation struct {
	Generation uint32 // that it made
	At         time.Time
	// Fresh says that the new secret does not come from the one before: a sign-in, a step-up, or after a lost answer.
	Fresh bool
}

// A Step is one check, in the order in which Validate makes them.
type Step struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Note  string `json:"note"` // in plain words
}

// Explain examines a token as Validate would, and says what it finds. It never writes: where Validate would end the
// session for reuse, Explain only says so. It needs no expectations; it names the kind and goes on.
func (a *Authority) Explain(ctx context.Context, t Token, from Client) (*Explanation, error) {
	now := a.now()
	ex := &Explanation{At: now}
	if looksLikeJWT(t) {
		return a.explainJWT(ctx, t, ex)
	}
	tok, err := opaque.Parse(t.Reveal())
	if err != nil && a.imported && couldBeImported(t.Reveal()) {
		return a.explainImport(ctx, t, ex)
	}
	if !ex.step("form", err == nil, ReasonMalformed, map[bool]string{
		true:  fmt.Sprintf("a token of kind %s, generation %d", Kind(tok.Kind), tok.Generation),
		false: fmt.Sprintf("not a token: want al, a kind, _ and %d or %d characters in all, got %d", opaque.RootLength, opaque.ChildLength, len(t.Reveal())),
	}) {
		return ex, nil
	}
	trust, err := a.codec.Verify(&tok)
	if err != nil {
		return nil, unavailable("keys", err)
	}
	if !ex.step("mac", trust != opaque.Forged, ReasonForged, map[bool]string{
		true:  fmt.Sprintf("made by this installation, key %d", tok.KeyID),
		false: "not made by this installation, or altered on the way",
	}) {
		return ex, nil
	}
	x, err := a.look(ctx, &presented{Token: tok, verifier: opaque.Verifier(tok.ID, tok.Generation, &tok.Secret), trust: trust}, now)
	if err != nil {
		return nil, err
	}
	if a.explainStanding(x, ex); !ex.Valid {
		return ex, nil
	}
	ex.Valid = false
	v := a.judge(x, x.clientHash(from))
	reason := map[verdict]Reason{forged: ReasonForged, replaced: ReasonSuperseded, reuse: ReasonReused, ahead: ReasonRolledBack}[v]
	if !ex.step("generation", reason == "", reason, map[bool]string{true: x.verdictText(v), false: x.verdictText(v)}) {
		return ex, nil
	}
	if x.state.used != 0 {
		ex.step("once", false, ReasonUsed, map[bool]string{false: "redeemed before, at " + fromMillis(x.state.used).Format(time.RFC3339)})
		return ex, nil
	}
	ex.Valid = true
	return ex, nil
}

// explainImport examines what may be an API key that was made elsewhere.
func (a *Authority) explainImport(ctx context.Context, t Token, ex *Explanation) (*Explanation, error) {
	ex.step("form", true, "", map[bool]string{true: "not one of our tokens: an imported API key, or nothing"})
	tok := presentedImport(t.Reveal())
	x, err := a.look(ctx, &tok, ex.At)
	if err != nil {
		return nil, err
	}
	return a.explainStanding(x, ex), nil
}

func (e *Explanation) step(check string, ok bool, why Reason, note map[bool]string) bool {
	e.Steps = append(e.Steps, Step{Check: check, OK: ok, Note: note[ok]})
	if !ok {
		e.Reason = why
	}
	return ok
}

func (x *exam) life() string {
	s := x.session()
	if s.Absolute.IsZero() {
		return "good, without an end"
	}
	text := "good until " + s.Absolute.Format(time.RFC3339)
	if !s.Idle.IsZero() {
		text += ", or " + s.Idle.Format(time.RFC3339) + " if it is not used"
	}
	return text
}

func ended(why, cause Reason, at time.Time) string {
	if why == ReasonFrozen {
		return fmt.Sprintf("on hold since %s: %s", at.Format(time.RFC3339), cause)
	}
	if cause != "" {
		why = cause
	}
	return fmt.Sprintf("over: %s at %s", why, at.Format(time.RFC3339))
}

// verdictText puts a verdict into words.
func (x *exam) verdictText(v verdict) string {
	gen, c := x.tok.Generation, x.state.generation
	switch v {
	case current:
		return fmt.Sprintf("generation %d is the current one", gen)
	case graced, handOut:
		return fmt.Sprintf("generation %d was replaced by %d a moment ago and is still in its grace", gen, c)
	case lostAnswer:
		return fmt.Sprintf("generation %d was replaced by %d, which nobody has used: a lost answer, renewed where the answer can carry a token", gen, c)
	case replaced:
		return fmt.Sprintf("generation %d was replaced by a step-up a moment ago", gen)
	case reuse:
		if x.policy.KeepOnReuse {
			return fmt.Sprintf("generation %d is out of date, %d is current: refused", gen, c)
		}
		return fmt.Sprintf("generation %d is out of date, %d is current: presenting it ends the session", gen, c)
	case ahead:
		return fmt.Sprintf("generation %d is newer than the store's %d: the store has lost changes", gen, c)
	}
	return fmt.Sprintf("the secret is not that of generation %d", gen)
}
