package account

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin"
)

// answer is the list as JSON. Times are RFC 3339, in UTC; those of a last use are cut to five minutes.
type answer struct {
	Subject string       `json:"subject"`
	Devices []jsonDevice `json:"devices"`
	Apps    []jsonGrant  `json:"apps"`
	APIKeys []jsonKey    `json:"api_keys"`
	Ended   []jsonEnded  `json:"ended"`
	More    bool         `json:"more"` // there is more than is listed
	Source  *jsonSource  `json:"place_source,omitempty"`
}

type jsonDevice struct {
	ID         afterlogin.SessionID `json:"id"`
	Here       bool                 `json:"this_device"`
	Name       string               `json:"name"`
	Place      string               `json:"place,omitempty"`
	SignedIn   time.Time            `json:"signed_in_at"`
	LastSeen   time.Time            `json:"last_seen_at"`
	Methods    []string             `json:"methods,omitempty"`
	Provider   string               `json:"provider,omitempty"`
	Remembered bool                 `json:"remembered"`
	Held       bool                 `json:"on_hold"`
}

type jsonGrant struct {
	ID       afterlogin.SessionID `json:"id"`
	Name     string               `json:"name"`
	Since    time.Time            `json:"since"`
	LastSeen time.Time            `json:"last_used_at"`
	Scopes   []string             `json:"scopes,omitempty"`
	Held     bool                 `json:"on_hold"`
}

type jsonKey struct {
	ID       afterlogin.SessionID `json:"id"`
	Name     string               `json:"name"`
	Since    time.Time            `json:"created_at"`
	LastSeen time.Time            `json:"last_used_at"`
	Until    *time.Time           `json:"expires_at,omitempty"`
	Scopes   []string             `json:"scopes,omitempty"`
	Held     bool                 `json:"on_hold"`
}

type jsonEnded struct {
	ID     afterlogin.SessionID `json:"id"`
	Kind   string               `json:"kind"` // device, app or api_key
	Name   string               `json:"name"`
	Place  string               `json:"place,omitempty"`
	Since  time.Time            `json:"since"`
	Ended  time.Time            `json:"ended_at"`
	Reason afterlogin.Reason    `json:"reason"`
	Why    string               `json:"why"` // in words
}

type jsonSource struct {
	Text string `json:"text"`
	URL  string `json:"url,omitempty"`
}

// answer puts the overview into JSON. Lists are never null.
func (v *visit) answer(o *overview, here *afterlogin.Session) *answer {
	w := v.words
	out := &answer{Subject: here.Subject, Devices: []jsonDevice{}, Apps: []jsonGrant{}, APIKeys: []jsonKey{}, Ended: []jsonEnded{}, More: o.more}
	for i := range o.devices {
		e := &o.devices[i]
		out.Devices = append(out.Devices, jsonDevice{
			ID: e.id, Here: e.here, Name: w.title(e), Place: w.place(e), SignedIn: e.since.UTC(), LastSeen: e.seen, Methods: e.methods,
			Provider: e.provider, Remembered: e.remembered, Held: e.held,
		})
	}
	for i := range o.apps {
		e := &o.apps[i]
		out.Apps = append(out.Apps, jsonGrant{ID: e.id, Name: w.title(e), Since: e.since.UTC(), LastSeen: e.seen, Scopes: e.scopes, Held: e.held})
	}
	for i := range o.keys {
		e := &o.keys[i]
		k := jsonKey{ID: e.id, Name: w.title(e), Since: e.since.UTC(), LastSeen: e.seen, Scopes: e.scopes, Held: e.held}
		if !e.until.IsZero() {
			until := e.until.UTC()
			k.Until = &until
		}
		out.APIKeys = append(out.APIKeys, k)
	}
	for i := range o.ended {
		e := &o.ended[i]
		out.Ended = append(out.Ended, jsonEnded{
			ID: e.id, Kind: e.kind, Name: w.title(e), Place: w.place(e), Since: e.since.UTC(), Ended: e.ended.UTC(), Reason: e.why, Why: w.why(e.why),
		})
	}
	if from := v.a.o.Places.Attribution(); o.places && from.Text != "" {
		out.Source = &jsonSource{from.Text, from.URL}
	}
	return out
}

func (v *visit) write(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic("account: " + err.Error()) // it is made of what can be written
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Language", v.words["lang"])
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
