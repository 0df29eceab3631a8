// Package api is the JSON API of the server: sessions, subjects, validation and explanation over an
// afterlogin.Authority, described by an OpenAPI 3.1 document that is made from the same Go types.
//
// Every route but the document itself asks for an API key with a scope; a route without one cannot be registered. What
// a token is never stands in a URL, an error or a list. Errors are problems of RFC 9457.
//
// Start with [New], which returns the http.Handler.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/webhook"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
)

// Limits of a request.
const (
	// MaxBody is the greatest size of a body, in bytes. A batch of 100 tokens takes about 10,000.
	MaxBody = 64 << 10
	// MaxBodyWithData is that of a sign-in, which can carry 64 KiB of session data.
	MaxBodyWithData = MaxBody + 16<<10
	// MaxBatch is how many tokens one request may validate.
	MaxBatch = 100
	// requestTimeout bounds a request's work on the store.
	requestTimeout = 10 * time.Second
	// bodyTimeout is how long a request's body may take to arrive; huma's default.
	bodyTimeout = 5 * time.Second
)

// version is that of the API, not of the program: it changes when a client could notice.
const version = "1.0.0"

// An API answers the requests below /v1, and /openapi.json. It is safe for concurrent use.
type API struct {
	authority *afterlogin.Authority
	log       *slog.Logger
	now       func() time.Time
	mux       *http.ServeMux
	huma      huma.API
	methods   map[string][]string // by path
	document  []byte
	keys      *keyring.Ring
	algorithm jwt.Algorithm
	streams   streams
	users     *users.Users
	pulse     *pulse.Pulse
	rehearsal *rehearsal.Rehearsal
	roster    *roster.Roster
	jobs      *revocation.Revocations
	console   *entrance.Entrance
	webhooks  *webhook.Webhooks
	backup    func(context.Context, io.Writer) error
	backingUp sync.Mutex
	audit     *audit.Log
	exporting sync.Mutex // the audit log

	clientAddr func(*http.Request) netip.Addr
	node       string
	settings   func() []Setting
	endedBy    func(context.Context, *afterlogin.Session) string
}

// Options configure New. The zero value works.
type Options struct {
	Logger *slog.Logger     // nil discards; never gets a token
	Now    func() time.Time // the authority's clock; nil means time.Now
	// Keys are the authority's, for /v1/keys. Nil leaves signing keys alone.
	Keys *keyring.Ring
	// Algorithm is what the authority signs JWTs with. Empty is EdDSA.
	Algorithm jwt.Algorithm
	// Users are the built-in users, for /v1/users. Nil: there are none.
	Users *users.Users
	// Roster finds sessions, for /v1/search. Nil: there is no search.
	Roster *roster.Roster
	// Revocations are the jobs that end sessions by a query, for /v1/revocations. Nil: there are none.
	Revocations *revocation.Revocations
	// Webhooks are where events are sent, for /v1/webhooks. Nil: there are none.
	Webhooks *webhook.Webhooks
	// Console is the entrance of the console, for /v1/console. Nil: there is none.
	Console *entrance.Entrance
	// Pulse has the figures over time, for /v1/overview. Nil: there are none.
	Pulse *pulse.Pulse
	// Rehearsal counts whom stricter rules would have signed out, for /v1/rehearsal. Nil: none are rehearsed.
	Rehearsal *rehearsal.Rehearsal
	// Audit is the audit log, for /v1/audit, and in which acts are put. Nil: there is none.
	Audit *audit.Log
	// Backup writes a backup of the store, for /v1/backup. Nil: there are none through the API.
	Backup func(context.Context, io.Writer) error
	// Node is what this server is called among those that share a store. Empty is no name.
	Node string
	// Settings are those of the server, for /v1/config, with secrets masked. Nil: there are none.
	Settings func() []Setting
	// EndedBy tells who ended a session, "" if that is not known. Nil: it never is.
	EndedBy func(context.Context, *afterlogin.Session) string
	// ClientAddr tells where a request came from, by which API keys that are bound to networks are judged. Nil is the
	// connection's address.
	ClientAddr func(*http.Request) netip.Addr
}

// New returns the API of the authority.
func New(authority *afterlogin.Authority, o Options) *API {
	a := &API{authority: authority, log: o.Logger, now: o.Now, mux: http.NewServeMux(), methods: make(map[string][]string), keys: o.Keys, algorithm: o.Algorithm, users: o.Users, pulse: o.Pulse, rehearsal: o.Rehearsal, roster: o.Roster, jobs: o.Revocations, console: o.Console, webhooks: o.Webhooks, backup: o.Backup, audit: o.Audit, clientAddr: o.ClientAddr, node: o.Node, settings: o.Settings, endedBy: o.EndedBy}
	if a.clientAddr == nil {
		a.clientAddr = remoteAddr
	}
	if a.algorithm == "" {
		a.algorithm = jwt.EdDSA
	}
	a.streams.end = make(chan struct{})
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.huma = humago.New(a.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "afterlogin", Version: version,
				Description: "Everything that happens after login: issue, check, renew, list and end sessions. " +
					"Every call needs an API key, as `Authorization: Bearer alk_…` or as `x-api-key: alk_…`.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", Description: "An API key."},
				"apiKey": {Type: "apiKey", In: "header", Name: "x-api-key", Description: "An API key."},
			}},
		},
		// No docs page: huma's load their scripts from elsewhere. No schema links either: answers stay as they are.
		Formats: map[string]huma.Format{
			"application/json": {Marshal: writeJSON, Unmarshal: strictUnmarshal},
			"json":             {Marshal: writeJSON, Unmarshal: strictUnmarshal}, // application/problem+json
		},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	})
	a.sessionRoutes()
	a.freezeRoutes()
	a.subjectRoutes()
	a.tokenRoutes()
	a.accessRoutes()
	a.ticketRoutes()
	a.apiKeyRoutes()
	a.clientRoutes()
	a.userRoutes()
	a.signingKeyRoutes()
	a.eventRoutes()
	a.configRoutes()
	a.backupRoutes()
	a.auditRoutes()
	a.overviewRoutes()
	a.rehearsalRoutes()
	a.searchRoutes()
	a.revocationRoutes()
	a.consoleRoutes()
	a.webhookRoutes()
	a.finish()
	return a
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// route is one call of the API. Scope is required.
type route struct {
	method, path string
	scope        Scope
	or           Scope  // does in its place; empty: none
	id           string // the operation's name in the document
	summary      string
	text         string
	status       int // of success
	maxBody      int64
	errors       []int // besides those that every call has
}

// scopes are those of which a caller needs one.
func (r *route) scopes() []Scope {
	if r.or == "" {
		return []Scope{r.scope}
	}
	return []Scope{r.scope, r.or}
}

// operation checks the route and returns the part of its description that does not depend on its types.
func (a *API) operation(r route) huma.Operation {
	if !slices.Contains(Scopes(), r.scope) {
		panic(fmt.Sprintf("api: %s %s names no scope: nobody may call it", r.method, r.path))
	}
	if r.maxBody == 0 {
		r.maxBody = MaxBody
	}
	a.methods[r.path] = append(a.methods[r.path], r.method)
	needs := "Needs the scope `" + string(r.scope) + "`"
	if r.or != "" {
		needs += " or `" + string(r.or) + "`"
	}
	errs := append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable}, r.errors...)
	slices.Sort(errs)
	return huma.Operation{
		Method: r.method, Path: r.path, OperationID: r.id, Summary: r.summary,
		Description:   strings.TrimSpace(r.text + "\n\n" + needs + "."),
		DefaultStatus: r.status, Errors: slices.Compact(errs),
		MaxBodyBytes:    r.maxBody + 1, // huma refuses a body of exactly that size, too
		BodyReadTimeout: bodyTimeout,
		Security:        []map[string][]string{{"bearer": {string(r.scope)}}, {"apiKey": {string(r.scope)}}},
		Metadata:        map[string]any{"api": a},
	}
}

// register adds a route whose requests huma parses and checks against the types.
func register[I, O any](a *API, r route, handler func(context.Context, *I) (*O, error)) {
	op := a.operation(r)
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		req, w := humago.Unwrap(ctx)
		act := a.act(r, req)
		c, cancel, problem := a.admit(req, r.scopes()...)
		if problem != nil {
			a.refused(req.Context(), act, problem)
			problem.Write(w, req)
			return
		}
		defer cancel()
		if problem := a.begin(act); problem != nil {
			problem.Write(w, req)
			return
		}
		next(huma.WithContext(ctx, context.WithValue(c, actKey{}, act)))
	}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		act, _ := ctx.Value(actKey{}).(*act)
		if err != nil {
			p := a.problem(ctx, err).withRequest(ctx)
			a.done(ctx, act, p.Status, p.Kind())
			return nil, p
		}
		if p := a.done(ctx, act, r.status, ""); p != nil {
			return nil, p.withRequest(ctx)
		}
		return out, nil
	})
}

// finish answers what no route does, and makes the document.
func (a *API) finish() {
	for path, methods := range a.methods {
		allow := slices.Sorted(slices.Values(methods))
		if slices.Contains(allow, http.MethodGet) {
			allow = append(allow, http.MethodHead)
		}
		list := strings.Join(allow, ", ")
		a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			p := NewProblem(http.StatusMethodNotAllowed, "method-not-allowed", "this path takes "+list)
			p.header = http.Header{"Allow": {list}}
			p.Write(w, r)
		})
	}
	b, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		panic("api: the OpenAPI document: " + err.Error()) // it does not depend on input
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		panic(err)
	}
	out.WriteByte('\n')
	a.document = out.Bytes()
	a.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(a.document)
	})
	a.mux.HandleFunc("/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		p := NewProblem(http.StatusMethodNotAllowed, "method-not-allowed", "this path takes GET, HEAD")
		p.header = http.Header{"Allow": {"GET, HEAD"}}
		p.Write(w, r)
	})
	a.mux.HandleFunc("/", NotFound)
}

// NotFound answers 404 for a path that names nothing.
func NotFound(w http.ResponseWriter, r *http.Request) {
	NewProblem(http.StatusNotFound, "no-such-path", "there is nothing at this path; /openapi.json lists what there is").Write(w, r)
}

// OpenAPI returns the document that /openapi.json answers.
func (a *API) OpenAPI() []byte { return bytes.Clone(a.document) }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := a.tokenInURL(r); p != nil {
		p.Write(w, r)
		return
	}
	// The mux would redirect to a cleaned path. A redirect can carry a credential to where it was not meant to go.
	if p := r.URL.EscapedPath(); strings.Contains(p, "//") || strings.Contains(p+"/", "/./") || strings.Contains(p+"/", "/../") {
		NotFound(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}
