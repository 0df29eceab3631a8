package api

import (
	"context"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin"
)

// ExplainRequest asks what the server thinks of a token, or of a credential that is named otherwise. Exactly one of
// token, id and prefix is given.
type ExplainRequest struct {
	Token  string       `json:"token,omitempty" maxLength:"4096"`
	ID     string       `json:"id,omitempty" doc:"A handle: ses_…, key_…, grant_…, tok_…" maxLength:"64"`
	Prefix string       `json:"prefix,omitempty" doc:"The beginning of a handle or of a token, 6 characters of the id at least: what was found in a log, say." maxLength:"104"`
	Device *DeviceInput `json:"device,omitempty" doc:"Where the token is presented from."`
}

// Explanation is what the server thinks of a token, check by check.
type Explanation struct {
	Valid     bool              `json:"valid"`
	Reason    string            `json:"reason,omitempty"`
	Message   string            `json:"message,omitempty" doc:"What the person is told, if anything."`
	Steps     []afterlogin.Step `json:"steps" doc:"The checks in the order in which they are made. Of an id or a prefix, those that need no token."`
	Session   *Session          `json:"session,omitempty"`
	Above     []*Session        `json:"above,omitempty" doc:"What it lives under, nearest first: any of them takes it along when it ends."`
	Timers    []Timer           `json:"timers,omitempty" doc:"What ends it or renews it by itself, and what is left."`
	Rotations []Rotation        `json:"rotations,omitempty" doc:"The last renewals of its token, the oldest first; session.generation counts all."`
	Forgiven  int               `json:"forgiven,omitempty" doc:"How many lost answers in a row were forgiven."`
	Binding   string            `json:"binding" doc:"The proof of possession that it needs besides the token; none: whoever holds it may use it."`
	EndedBy   string            `json:"ended_by,omitempty" doc:"Who ended it, if the audit log of this server knows: key_…, console/NAME, self."`
	Source    string            `json:"source" doc:"Where this answer is from: store. Explaining never believes memory."`
	Cached    bool              `json:"cached" doc:"Whether this server would answer a validation from memory now."`
	Node      string            `json:"node,omitempty" doc:"The server that answered."`
	Matches   []*Session        `json:"matches,omitempty" doc:"What begins with the prefix, if that is more than one: then there is no more than this."`
	At        time.Time         `json:"at"`
}

// Timer is a moment at which something becomes of a credential by itself.
type Timer struct {
	Of          string    `json:"of" doc:"The credential's handle."`
	Name        string    `json:"name" enum:"idle,absolute,renewal,grace"`
	At          time.Time `json:"at"`
	LeftSeconds int64     `json:"left_seconds" doc:"Negative if it is past."`
}

// Rotation is one renewal of a token.
type Rotation struct {
	Generation uint32    `json:"generation"`
	At         time.Time `json:"at"`
	Fresh      bool      `json:"fresh,omitempty" doc:"The secret does not come from the one before: a step-up, or after a lost answer."`
}

// maxMatches is how many credentials a prefix may begin, to be listed.
const maxMatches = 20

func (a *API) explainRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/explain", scope: Explain, id: "explain-token", status: http.StatusOK,
		errors:  []int{http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity},
		summary: "Explain a token, a handle or the beginning of one",
		text: "Says what validation would, check by check, and changes nothing: where validation would end the session, this only says so. " +
			"With it come what the credential lives under, its timers, its last renewals, and why and by whom it was ended.",
	}, a.explain)
}

func (a *API) explain(ctx context.Context, in *struct{ Body ExplainRequest }) (*struct{ Body Explanation }, error) {
	b := &in.Body
	given := 0
	for _, text := range []string{b.Token, b.ID, b.Prefix} {
		if text != "" {
			given++
		}
	}
	if given != 1 {
		return nil, invalid("body.token", "give exactly one of token, id and prefix")
	}
	from, err := b.Device.client()
	if err != nil {
		return nil, err
	}
	var ex *afterlogin.Explanation
	switch {
	case b.Token != "":
		ex, err = a.authority.Explain(ctx, afterlogin.TokenFrom(b.Token), from)
	case b.ID != "":
		ex, err = a.authority.ExplainID(ctx, afterlogin.SessionID(b.ID))
		err = badIDAt("body.id", err)
	default:
		var all []*afterlogin.Session
		if all, err = a.authority.FindPrefix(ctx, 0, b.Prefix, maxMatches); err != nil {
			break
		}
		switch len(all) {
		case 0:
			return nil, NewProblem(http.StatusNotFound, "no-such-session", "nothing that is kept begins with that")
		case 1:
			ex, err = a.authority.ExplainID(ctx, all[0].ID)
		default:
			out := &struct{ Body Explanation }{Explanation{Steps: []afterlogin.Step{}, At: a.now().UTC(), Node: a.node, Source: "store", Binding: "none"}}
			for _, s := range all {
				out.Body.Matches = append(out.Body.Matches, newSession(s))
			}
			return out, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &struct{ Body Explanation }{a.explanation(ctx, ex)}, nil
}

func (a *API) explanation(ctx context.Context, ex *afterlogin.Explanation) Explanation {
	out := Explanation{
		Valid: ex.Valid, Reason: string(ex.Reason), Steps: ex.Steps, At: ex.At.UTC(),
		Forgiven: ex.Forgiven, Binding: ex.Binding, Source: "store", Cached: ex.Cached, Node: a.node,
	}
	if out.Binding == "" {
		out.Binding = "none"
	}
	if ex.Session == nil {
		return out
	}
	out.Session = newSession(ex.Session)
	if !ex.Valid {
		why := &afterlogin.Refusal{Reason: ex.Reason}
		if ex.Session.Why != ex.Reason {
			why.Cause = ex.Session.Why
		}
		out.Message = why.Message()
	}
	for _, s := range ex.Above {
		out.Above = append(out.Above, newSession(s))
	}
	for _, t := range ex.Timers {
		out.Timers = append(out.Timers, Timer{Of: string(t.Of), Name: t.Name, At: t.At.UTC(), LeftSeconds: int64(t.Left / time.Second)})
	}
	for _, r := range ex.Rotations {
		out.Rotations = append(out.Rotations, Rotation{Generation: r.Generation, At: r.At.UTC(), Fresh: r.Fresh})
	}
	if a.endedBy != nil && !ex.Session.Ended.IsZero() {
		out.EndedBy = a.endedBy(ctx, ex.Session)
	}
	return out
}
