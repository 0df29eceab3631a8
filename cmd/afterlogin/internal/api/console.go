package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// ConsoleLinkRequest says what link into the console to make.
type ConsoleLinkRequest struct {
	Role     string `json:"role,omitempty" enum:"admin,viewer" doc:"What the person may do; admin, if absent. A viewer sees everything but secrets, and changes nothing."`
	Name     string `json:"name,omitempty" doc:"Who it is for, as it is written in the audit log: 1 to 64 of a to z, 0 to 9 and . _ @ -. The role, if absent." maxLength:"64"`
	Lifetime string `json:"lifetime,omitempty" doc:"For how long the link is good, 1s to 24h; 30m, if absent." maxLength:"32"`
}

// ConsoleLink is the answer that hands out a link.
type ConsoleLink struct {
	ID        string    `json:"id" doc:"Names the link, in lists and in the audit log; it opens nothing."`
	URL       string    `json:"url" doc:"The link. It is shown this once, and good once. Of a server that does not know its own address, a path."`
	Role      string    `json:"role" enum:"admin,viewer"`
	Name      string    `json:"name"`
	ExpiresAt time.Time `json:"expires_at" doc:"When the link is over, if nobody uses it."`
}

// ConsoleOpenLink is a link into the console that nobody has used yet.
type ConsoleOpenLink struct {
	ID        string    `json:"id" doc:"DELETE /v1/console/links/{id} cancels it."`
	Role      string    `json:"role" enum:"admin,viewer"`
	Name      string    `json:"name" doc:"Who it is for."`
	By        string    `json:"by,omitempty" doc:"Who made it: the handle of an API key, console/NAME."`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at" doc:"When it is over, if nobody uses it."`
}

// ConsoleLinks are the links that are open.
type ConsoleLinks struct {
	Data []ConsoleOpenLink `json:"data"`
}

// ConsolePerson is somebody who is signed in to the console.
type ConsolePerson struct {
	Name    string   `json:"name"`
	Role    string   `json:"role" enum:"admin,viewer"`
	Link    string   `json:"link,omitempty" doc:"The id of the link that they came in with."`
	By      string   `json:"by,omitempty" doc:"Who made that: the handle of an API key, console/NAME."`
	Session *Session `json:"session" doc:"DELETE /v1/sessions/{id} ends it."`
}

// ConsolePeople is a page of those who are signed in to the console.
type ConsolePeople struct {
	Data []ConsolePerson `json:"data"`
	Next string          `json:"next_cursor,omitempty" doc:"The cursor of the next page. Absent on the last."`
}

type consolePeopleInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before." maxLength:"128"`
}

type consoleLinkInput struct {
	ID string `path:"id" doc:"The id of a link, link_…." maxLength:"64"`
}

// ConsoleScopes returns what a role of the console may do.
func ConsoleScopes(role entrance.Role) []string {
	var out []string
	for _, s := range Scopes() {
		if role == entrance.Admin || role == entrance.Viewer && slices.Contains(viewerScopes, s) {
			out = append(out, string(s))
		}
	}
	return out
}

var viewerScopes = []Scope{SessionsRead, ClientsRead, UsersRead, EventsRead, Explain, AuditRead, ServerRead}

func (a *API) consoleRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/console/links", scope: Admin, id: "create-console-link", status: http.StatusCreated,
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Make a link into the console",
		text: "Whoever opens it and confirms is signed in to the console, in the role of the link. It is good once. " +
			"Opening it without confirming, as previews and prefetches do, does not use it up. " +
			"Nobody lets somebody in who may do more: the caller needs all scopes of the role besides, which of an admin are all. " +
			"Once the API key, or the console's session, that made it was ended by somebody or put on hold, it is not good any more.",
	}, a.createConsoleLink)
	register(a, route{
		method: http.MethodGet, path: "/v1/console/links", scope: ServerRead, id: "list-console-links", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "List the links into the console that are open", text: "All that would let somebody in now, the first to end first, without their secrets.",
	}, a.listConsoleLinks)
	register(a, route{
		method: http.MethodDelete, path: "/v1/console/links/{id}", scope: Admin, id: "cancel-console-link", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound}, summary: "Cancel a link into the console",
		text: "Durable when answered. One that was used already has let somebody in: `GET /v1/console/people`.",
	}, func(ctx context.Context, in *consoleLinkInput) (*struct{}, error) {
		if a.console == nil {
			return nil, noConsole()
		}
		err := a.console.Cancel(ctx, in.ID)
		if errors.Is(err, entrance.ErrNoLink) {
			return nil, NewProblem(http.StatusNotFound, "no-such-link", "there is no such link, or it is over: used, cancelled or too old")
		}
		return nil, err
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/console/people", scope: ServerRead, id: "list-console-people", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "List who is signed in to the console",
		text: "Page by page; a page may hold fewer than the limit, or none, and still not be the last. To throw somebody out, end the session: `DELETE /v1/sessions/{id}`, with the scope `admin` besides.",
	}, func(ctx context.Context, in *consolePeopleInput) (*struct{ Body ConsolePeople }, error) {
		if a.console == nil {
			return nil, noConsole()
		}
		page, err := a.console.People(ctx, in.Cursor, in.Limit)
		if err != nil {
			return nil, err
		}
		out := &struct{ Body ConsolePeople }{ConsolePeople{Data: make([]ConsolePerson, 0, len(page.People)), Next: page.Next}}
		for _, p := range page.People {
			out.Body.Data = append(out.Body.Data, ConsolePerson{Name: p.Name, Role: string(p.Role), Link: p.Link, By: p.By, Session: newSession(p.Session)})
		}
		return out, nil
	})
}

func noConsole() error {
	return NewProblem(http.StatusNotFound, "not-configured", "this server has no console")
}

func (a *API) createConsoleLink(ctx context.Context, in *struct{ Body ConsoleLinkRequest }) (*struct{ Body ConsoleLink }, error) {
	if a.console == nil {
		return nil, noConsole()
	}
	life, err := duration("lifetime", in.Body.Lifetime)
	if err != nil {
		return nil, err
	}
	r := entrance.LinkRequest{Role: entrance.Role(in.Body.Role), Name: in.Body.Name, Lifetime: life, By: afterlogin.ActorOf(ctx)}
	if r.Role == "" {
		r.Role = entrance.Admin
	}
	if r.Name == "" {
		r.Name = string(r.Role)
	}
	act, _ := ctx.Value(actKey{}).(*act)
	if act != nil {
		act.entry.Detail += " for " + Redact(clip(r.Name)) + " as " + string(r.Role)
	}
	if err := mayGive(ctx, ConsoleScopes(r.Role)); err != nil {
		return nil, err
	}
	if c := caller(ctx); c != nil {
		r.Maker = c.ID
	}
	l, err := a.console.MakeLink(ctx, r)
	var field *entrance.FieldError
	switch {
	case errors.As(err, &field):
		return nil, invalid("body."+field.Field, "%s", field.Message)
	case errors.Is(err, entrance.ErrTooManyLinks):
		return nil, NewProblem(http.StatusConflict, "too-many-links", err.Error())
	case err != nil:
		return nil, err
	}
	if act != nil {
		act.entry.Target = l.ID
	}
	a.log.InfoContext(ctx, "a link into the console was made", "request_id", RequestID(ctx), "link", l.ID, "role", l.Role, "name", l.Name, "by", callerID(ctx))
	return &struct{ Body ConsoleLink }{ConsoleLink{ID: l.ID, URL: l.URL, Role: string(l.Role), Name: l.Name, ExpiresAt: linkEnd(l)}}, nil
}

func linkEnd(l *entrance.Link) time.Time { return l.Until.UTC().Truncate(time.Second) }

func (a *API) listConsoleLinks(ctx context.Context, _ *struct{}) (*struct{ Body ConsoleLinks }, error) {
	if a.console == nil {
		return nil, noConsole()
	}
	all, err := a.console.Links(ctx)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body ConsoleLinks }{ConsoleLinks{Data: make([]ConsoleOpenLink, 0, len(all))}}
	for _, l := range all {
		out.Body.Data = append(out.Body.Data, ConsoleOpenLink{l.ID, string(l.Role), l.Name, l.By, l.Created.UTC(), linkEnd(l)})
	}
	return out, nil
}
