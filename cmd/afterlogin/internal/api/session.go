package api

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/inurl"
)

// A Session is what a caller learns of a session, an API key, or another credential. It holds no secret.
type Session struct {
	ID         string     `json:"id" doc:"Its handle, ses_…, key_…, grant_… or tok_…: no secret, and stable while its token is renewed."`
	Kind       string     `json:"kind" enum:"session,api_key,refresh_token,access_token,authorization_code,ticket,jwt,client"`
	Root       string     `json:"root,omitempty" doc:"What it lives under, if that is not itself: it ends with that."`
	Grant      string     `json:"grant,omitempty" doc:"The OAuth grant that a token was made from."`
	Origin     string     `json:"origin,omitempty" doc:"The session that an API key or an offline grant came from."`
	Client     string     `json:"client,omitempty" doc:"The OAuth client it is for."`
	Subject    string     `json:"subject" doc:"Who signed in; empty while nobody has."`
	Policy     string     `json:"policy" doc:"The policy it lives by."`
	Name       string     `json:"name,omitempty" doc:"What people call it."`
	CreatedAt  time.Time  `json:"created_at"`
	LastSeenAt time.Time  `json:"last_seen_at" doc:"When it was last used, to within a minute."`
	ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"When it ends whatever happens. Absent on an API key without an end."`
	IdleAt     *time.Time `json:"idle_expires_at,omitempty" doc:"When it ends if it is not used. Absent on API keys."`
	Auth       Auth       `json:"auth" doc:"How and when the person proved who they are."`
	Device     Device     `json:"device" doc:"Where it was made."`
	Generation uint32     `json:"generation" doc:"How often its token has been renewed, and one."`
	Scopes     []string   `json:"scopes" doc:"What it may do."`
	Audience   []string   `json:"audience,omitempty" doc:"The services it is for; absent: any."`
	Actor      string     `json:"actor,omitempty" doc:"Who acts for the subject (RFC 8693)."`
	Networks   []string   `json:"networks,omitempty" doc:"Where an API key may be used from; absent: anywhere."`
	Rate       int        `json:"rate,omitempty" doc:"How many requests a minute an API key may make on each node; absent: any number."`
	Frozen     bool       `json:"frozen,omitempty" doc:"It is on hold: refused until it is thawed."`
	FrozenWhy  string     `json:"frozen_reason,omitempty" doc:"Why it is on hold."`
	EndedAt    *time.Time `json:"ended_at,omitempty" doc:"When it ended, if it has."`
	EndedWhy   string     `json:"ended_reason,omitempty" doc:"Why it ended: signed_out, signed_out_all, administrator, superseded, expired, idle, reused, …"`
}

// Auth is how and when a person proved who they are.
type Auth struct {
	Methods []string   `json:"methods" doc:"RFC 8176 names: pwd, otp, hwk, …"`
	At      *time.Time `json:"at,omitempty"`
}

// Device is where a session was made.
type Device struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

func newSession(s *afterlogin.Session) *Session {
	out := &Session{
		ID: string(s.ID), Kind: s.Kind.String(), Subject: s.Subject, Policy: s.Policy, Name: s.Name,
		CreatedAt: s.Created, LastSeenAt: s.LastSeen, ExpiresAt: stamp(s.Absolute), IdleAt: stamp(s.Idle),
		Auth:   Auth{Methods: s.Auth.Methods, At: stamp(s.Auth.At)},
		Device: Device{UserAgent: s.Device.UserAgent},
		Grant:  string(s.Grant), Origin: string(s.Origin), Client: s.Client, Audience: s.Audience, Actor: s.Actor(),
		Generation: s.Generation, Scopes: s.Scopes, EndedAt: stamp(s.Ended), EndedWhy: string(s.Why),
	}
	if s.Frozen() {
		out.Frozen, out.FrozenWhy, out.EndedWhy = true, string(s.Why), ""
	}
	if s.Device.Addr.IsValid() {
		out.Device.IP = s.Device.Addr.String()
	}
	if s.Root != s.ID {
		out.Root = string(s.Root)
	}
	if s.Limits != nil {
		out.Rate = s.Limits.Rate
		for _, p := range s.Limits.Networks {
			out.Networks = append(out.Networks, p.String())
		}
	}
	if out.Scopes == nil {
		out.Scopes = []string{}
	}
	if out.Auth.Methods == nil {
		out.Auth.Methods = []string{}
	}
	return out
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// DeviceInput is where a request to the application came from.
type DeviceInput struct {
	IP        string `json:"ip,omitempty" doc:"The client's address, not that of a proxy." maxLength:"64"`
	UserAgent string `json:"user_agent,omitempty" doc:"Its User-Agent header; 256 bytes are kept." maxLength:"2048"`
}

func (d *DeviceInput) client() (afterlogin.Client, error) {
	if d == nil {
		return afterlogin.Client{}, nil
	}
	c := afterlogin.Client{UserAgent: d.UserAgent}
	if d.IP != "" {
		var err error
		if c.Addr, err = netip.ParseAddr(d.IP); err != nil || c.Addr.Zone() != "" {
			return c, invalid("body.device.ip", "not an IP address: give it alone, without a port")
		}
	}
	return c, nil
}

// duration reads a duration of the body. Empty is zero.
func duration(field, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return 0, invalid("body."+field, "%v", err)
	}
	if d == 0 {
		return 0, invalid("body."+field, "must not be zero: leave it away")
	}
	return d, nil
}

// reserved begins the subjects that belong to the server itself.
const reserved = "afterlogin/"

// AdminSubject is the subject of the server's own API keys.
const AdminSubject = reserved + "admin"

// checkSubject refuses what cannot be a subject. A subject stands in URLs, so it must not be a token.
func checkSubject(location, s string) error {
	switch {
	case s == "" || len(s) > 512 || !utf8.ValidString(s) || s[0] == 0:
		return invalid(location, "want 1 to 512 bytes of UTF-8, not beginning with a zero byte")
	case len(inurl.Find(s, tokenKinds)) > 0:
		return invalid(location, "this looks like a token: a subject is a name, which stands in URLs and logs")
	}
	return nil
}

// checkOwnSubject is checkSubject for a subject that somebody wants to sign in as.
func checkOwnSubject(location, s string) error {
	if strings.HasPrefix(s, reserved) {
		return invalid(location, "names that begin with %s belong to the server", reserved)
	}
	return checkSubject(location, s)
}
