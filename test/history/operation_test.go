package history

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/afterlogin/afterlogin"
)

// verb is what a client asks of a node.
type verb uint8

const (
	signIn     verb = iota // a new session
	grant                  // a refresh token and an access token, below the session or beside it
	validate               // a session's token
	access                 // an access token
	rotate                 // a session's token for its successor
	stepUp                 // a session's token for a fresh one; the old one is over at once
	refresh                // a refresh token for its successor and an access token
	revoke                 // a session or a grant
	everywhere             // sign the subject out everywhere
	others                 // sign the subject out everywhere but here
	verbs                  // how many there are
)

var verbNames = [verbs]string{"sign-in", "grant", "validate", "access", "rotate", "step-up", "refresh", "revoke", "everywhere", "others"}

func (v verb) String() string { return verbNames[v] }

// A request is what is asked of a node. It may travel to another process.
type request struct {
	Verb    verb
	Subject string
	Token   string
	Session afterlogin.SessionID
	Fresh   bool // past the node's memory
	Offline bool // a grant that outlives its session
}

// outcome is what came of a request.
type outcome uint8

const (
	ok      outcome = iota
	refused         // answer.Reason says why
	unknown         // unavailable: what it asked for may have happened, or may yet happen
	broken          // an answer that nobody should get: answer.Err says which
)

var outcomeNames = [...]string{"ok", "refused", "unknown", "broken"}

func (o outcome) String() string { return outcomeNames[o] }

// An answer is what a node says.
type answer struct {
	Outcome    outcome
	Reason     afterlogin.Reason
	Cause      afterlogin.Reason
	Token      string // the new one, if there is one
	Access     string
	Session    afterlogin.SessionID
	Generation uint32
	Err        string
}

// patience is how long a client waits for an answer.
const patience = 5 * time.Second

// serve asks the authority.
func serve(ctx context.Context, a *afterlogin.Authority, r request) answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tok := afterlogin.TokenFrom(r.Token)
	expect := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true, Fresh: r.Fresh}
	issued := func(got afterlogin.Issued, err error) answer {
		out := answerOf(err)
		if err == nil {
			out.Token, out.Session, out.Generation = got.Token.Reveal(), got.Session.ID, got.Session.Generation
		}
		return out
	}
	granted := func(got afterlogin.Grant, err error) answer {
		out := issued(got.Refresh, err)
		if err == nil {
			out.Access = got.Access.Token.Reveal()
		}
		return out
	}
	switch r.Verb {
	case signIn:
		return issued(a.Issue(ctx, afterlogin.IssueRequest{Subject: r.Subject}))
	case grant:
		expect.Fresh = true
		s, err := a.Validate(ctx, tok, expect)
		if err != nil {
			return answerOf(err)
		}
		return granted(a.IssueGrant(ctx, s, afterlogin.GrantRequest{Client: "app", Offline: r.Offline}))
	case validate:
		s, err := a.Validate(ctx, tok, expect)
		out := answerOf(err)
		if err == nil {
			out.Session, out.Generation = s.ID, s.Generation
		}
		return out
	case access:
		_, err := a.Validate(ctx, tok, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAccess}, Fresh: r.Fresh})
		return answerOf(err)
	case rotate:
		return issued(a.Rotate(ctx, tok, expect))
	case stepUp:
		return issued(a.StepUp(ctx, tok, afterlogin.Authentication{Methods: []string{"otp"}}, afterlogin.Client{}))
	case refresh:
		return granted(a.Refresh(ctx, tok, afterlogin.RefreshRequest{Client: "app"}))
	case revoke:
		return answerOf(a.Revoke(ctx, r.Session, afterlogin.ReasonSignedOut))
	case everywhere:
		return answerOf(a.RevokeSubject(ctx, 0, r.Subject, afterlogin.Sessions, afterlogin.ReasonAdministrator))
	case others:
		return answerOf(a.RevokeOthers(ctx, r.Session, afterlogin.ReasonSignedOutAll))
	}
	return answer{Outcome: broken, Err: fmt.Sprint("no such verb: ", r.Verb)}
}

func answerOf(err error) answer {
	var no *afterlogin.Refusal
	switch {
	case err == nil:
		return answer{}
	case errors.As(err, &no):
		return answer{Outcome: refused, Reason: no.Reason, Cause: no.Cause}
	case errors.Is(err, afterlogin.ErrUnavailable):
		return answer{Outcome: unknown, Err: err.Error()}
	}
	return answer{Outcome: broken, Err: err.Error()}
}

// digest stands for a token's text in a history. Zero is none.
type digest uint64

func digestOf(token string) digest {
	if token == "" {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(token))
	return digest(h.Sum64() | 1)
}

// An operation is one entry of a history: what a client asked, and what it heard. It is never changed once recorded.
type operation struct {
	verb       verb
	subject    int
	line       int    // which of the subject's lines, where one is meant: see model
	parent     int    // the line of the session that a grant is made from; -1: none
	generation uint32 // that was presented
	token      digest // that was presented
	fresh      bool
	offline    bool
	node       int
	call, ret  int64 // nanoseconds since the history began, by one monotonic clock

	outcome       outcome
	reason        afterlogin.Reason
	newToken      digest
	newAccess     digest
	newGeneration uint32
	err           string

	ending bool // set before a history is checked: the line was ended while the operation went on, perhaps
}

func (o *operation) String() string {
	s := fmt.Sprintf("%10.6f-%10.6f node %d subject %d %v", seconds(o.call), seconds(o.ret), o.node, o.subject, o.verb)
	if o.verb != everywhere {
		s += fmt.Sprintf(" line %d", o.line)
	}
	if o.generation != 0 {
		s += fmt.Sprintf(" generation %d", o.generation)
	}
	if o.fresh {
		s += " fresh"
	}
	if o.offline {
		s += " offline"
	}
	s += ": " + o.outcome.String()
	if o.reason != "" {
		s += " " + string(o.reason)
	}
	if o.newToken != 0 {
		s += fmt.Sprintf(" -> generation %d (%x, %x)", o.newGeneration, uint16(o.newToken), uint16(o.newAccess))
	}
	if o.err != "" {
		s += ": " + o.err
	}
	return s
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

// strong reports whether a yes to the operation is a yes of the store at a moment of the call, never one from memory.
func (o *operation) strong() bool { return o.fresh || o.verb != validate && o.verb != access }

// about returns the line that the answer is about: of a new grant, the session that it is made from.
func (o *operation) about() int {
	if o.verb == grant {
		return o.parent
	}
	return o.line
}
