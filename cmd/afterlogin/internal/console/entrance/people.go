package entrance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A Person is somebody who has come into the console with a link.
type Person struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// personDetail is what the entry of a session says.
type personDetail struct {
	Person
	Session afterlogin.SessionID `json:"session"`
	Invitation
}

// An Invitation says how somebody came in.
type Invitation struct {
	Link string `json:"link,omitempty"` // its id
	By   string `json:"by,omitempty"`   // who made it, for people to read
}

// Admit writes down that the session, which was just made with the link, may enter. Until it returns nil it may not.
func (e *Entrance) Admit(ctx context.Context, s *afterlogin.Session, l *Link) error {
	if !ours(s) {
		return ErrNobody
	}
	detail, err := json.Marshal(personDetail{Person{l.Name, l.Role}, s.ID, Invitation{l.ID, l.By}})
	if err != nil {
		return err
	}
	_, err = e.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: peopleRealm, Name: string(s.ID), Detail: detail, Until: s.Absolute})
	return err
}

// ours reports whether the session has what every session of the console has.
func ours(s *afterlogin.Session) bool {
	return s != nil && s.Kind == afterlogin.KindSession && s.Root == s.ID && s.Tenant == Tenant && s.Policy == afterlogin.PolicyConsole &&
		strings.HasPrefix(s.Subject, SubjectPrefix) && !s.Absolute.IsZero()
}

// Person returns who the session was made for. That the session is good is for the caller to know. Errors: ErrNobody,
// afterlogin.ErrUnavailable.
func (e *Entrance) Person(ctx context.Context, s *afterlogin.Session) (*Person, error) {
	d, err := e.person(ctx, s)
	if err != nil {
		return nil, err
	}
	return &d.Person, nil
}

func (e *Entrance) person(ctx context.Context, s *afterlogin.Session) (*personDetail, error) {
	if !ours(s) {
		return nil, ErrNobody
	}
	found, err := e.authority.TemporaryEntries(ctx, 0, peopleRealm, string(s.ID), max(s.Absolute.Sub(e.now()), time.Second))
	if err != nil {
		return nil, err
	}
	for _, entry := range found {
		var d personDetail
		if err := json.Unmarshal(entry.Detail, &d); err != nil {
			return nil, fmt.Errorf("%w: a person's entry: %w", afterlogin.ErrUnavailable, err)
		}
		if d.Session == s.ID && SubjectPrefix+d.Name == s.Subject && (d.Role == Admin || d.Role == Viewer) {
			return &d, nil
		}
	}
	return nil, ErrNobody
}

// An Access is a session of the console, with who has it.
type Access struct {
	Person
	Invitation
	Session *afterlogin.Session
}

// A Page is a part of the list of those who are in. Next is the cursor of the rest, empty at the end.
type Page struct {
	People []Access
	Next   string
}

// People returns who is signed in to the console, page by page. Errors: afterlogin.ErrBadCursor, ErrUnavailable.
func (e *Entrance) People(ctx context.Context, cursor string, limit int) (Page, error) {
	p, err := e.authority.Page(ctx, afterlogin.Query{Tenant: Tenant, Kind: afterlogin.KindSession, After: cursor, Limit: limit})
	if err != nil {
		return Page{}, err
	}
	out := Page{Next: p.Next}
	for _, s := range p.Sessions {
		switch who, err := e.person(ctx, s); {
		case errors.Is(err, ErrNobody): // a crash came between the session and what is written of it: it opens nothing
		case err != nil:
			return Page{}, err
		default:
			out.People = append(out.People, Access{who.Person, who.Invitation, s})
		}
	}
	return out, nil
}
