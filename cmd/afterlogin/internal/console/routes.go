package console

import (
	"net/http"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// A Route is one page of the console, or one act.
type Route struct {
	Method string // GET or POST
	Path   string // below the base, with {wildcards}
	// Needs are the scopes that a person must have to be offered it. The API decides.
	Needs []api.Scope
	// Label is what it is called in the navigation; empty: it is not there.
	Label string

	serve func(*visit) error
	// there reports whether the server has what it is about; nil: it always does.
	there func(*visit) bool
	// noted says that to look at it stands in the audit log, since the API's call does.
	noted bool
	// live says that its page has a live part.
	live bool
}

// routes are all routes, in the order of the navigation. docs/console.md has a line for each.
func routes() []Route {
	get := func(path, label string, serve func(*visit) error, needs ...api.Scope) Route {
		return Route{Method: http.MethodGet, Path: path, Label: label, Needs: needs, serve: serve}
	}
	post := func(path string, serve func(*visit) error, needs ...api.Scope) Route {
		return Route{Method: http.MethodPost, Path: path, Needs: needs, serve: serve}
	}
	list := []Route{
		get("/{$}", "Overview", (*visit).overview, api.ServerRead),

		get("/sessions", "Sessions", (*visit).sessions, api.SessionsRead),
		get("/sessions/{id}", "", (*visit).session, api.SessionsRead),
		get("/sessions/{id}/revoke", "", (*visit).askRevoke, api.SessionsWrite),
		post("/sessions/{id}/revoke", (*visit).revoke, api.SessionsWrite),
		post("/sessions/{id}/freeze", (*visit).freeze, api.SessionsWrite),
		post("/sessions/{id}/thaw", (*visit).thaw, api.SessionsWrite),

		get("/revocations", "Revoke by query", (*visit).revocations, api.SessionsRead),
		get("/revocations/new", "", (*visit).newRevocation, api.SessionsWrite),
		post("/revocations/new", (*visit).makeRevocation, api.SessionsWrite),
		get("/revocations/{id}", "", (*visit).revocation, api.SessionsRead),
		get("/revocations/{id}/confirm", "", (*visit).askConfirm, api.SessionsWrite),
		post("/revocations/{id}/confirm", (*visit).confirmRevocation, api.SessionsWrite),
		post("/revocations/{id}/undo", (*visit).undoRevocation, api.SessionsWrite),
		post("/revocations/{id}/cancel", (*visit).cancelRevocation, api.SessionsWrite),

		get("/subject", "", (*visit).subject, api.SessionsRead),
		get("/subject/sign-out", "", (*visit).askSignOut, api.SessionsWrite),
		post("/subject/sign-out", (*visit).signOutSubject, api.SessionsWrite),

		get("/keys", "API keys", (*visit).keys, api.SessionsRead),
		get("/keys/new", "", (*visit).newKey, api.APIKeysWrite),
		post("/keys/new", (*visit).makeKey, api.APIKeysWrite),
		get("/keys/{id}/rotate", "", (*visit).askRotateKey, api.APIKeysWrite),
		post("/keys/{id}/rotate", (*visit).rotateKey, api.APIKeysWrite),

		get("/clients", "Clients", (*visit).clients, api.ClientsRead),
		get("/clients/new", "", (*visit).newClient, api.ClientsWrite),
		post("/clients/new", (*visit).makeClient, api.ClientsWrite),
		get("/clients/{id}", "", (*visit).client, api.ClientsRead),
		get("/clients/{id}/secret", "", (*visit).askSecret, api.ClientsWrite),
		post("/clients/{id}/secret", (*visit).rotateSecret, api.ClientsWrite),
		get("/clients/{id}/remove", "", (*visit).askRemoveClient, api.ClientsWrite),
		post("/clients/{id}/remove", (*visit).removeClient, api.ClientsWrite),

		get("/users", "Users", (*visit).users, api.UsersRead),
		get("/users/new", "", (*visit).newUser, api.UsersWrite),
		post("/users/new", (*visit).makeUser, api.UsersWrite),
		get("/users/{name}", "", (*visit).user, api.UsersRead),
		get("/users/{name}/disable", "", (*visit).askDisable, api.UsersWrite),
		post("/users/{name}/disable", (*visit).disable, api.UsersWrite),
		post("/users/{name}/enable", (*visit).enable, api.UsersWrite),
		post("/users/{name}/password", (*visit).setPassword, api.UsersWrite),

		get("/signing-keys", "Signing keys", (*visit).signingKeys, api.ServerRead),
		post("/signing-keys/rotate", (*visit).rotateSigning, api.Admin),
		get("/signing-keys/{kid}/retire", "", (*visit).askRetire, api.Admin),
		post("/signing-keys/{kid}/retire", (*visit).retire, api.Admin),

		get("/explain", "Explain", (*visit).explain, api.Explain),
		post("/explain", (*visit).explainIt, api.Explain),

		get("/events", "Events", (*visit).events, api.EventsRead),
		get("/audit", "Audit log", (*visit).audit, api.AuditRead),
		get("/audit/export", "", (*visit).exportAudit, api.AuditRead),
		post("/audit/verify", (*visit).verifyAudit, api.AuditRead),

		get("/webhooks", "Webhooks", (*visit).webhooks, api.ServerRead),
		get("/webhooks/new", "", (*visit).newWebhook, api.WebhooksWrite),
		post("/webhooks/new", (*visit).makeWebhook, api.WebhooksWrite),
		get("/webhooks/{id}", "", (*visit).webhook, api.ServerRead),
		get("/webhooks/{id}/change", "", (*visit).editWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/change", (*visit).changeWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/test", (*visit).testWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/disable", (*visit).turnWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/enable", (*visit).turnWebhook, api.WebhooksWrite),
		get("/webhooks/{id}/secret", "", (*visit).askWebhookSecret, api.WebhooksWrite),
		post("/webhooks/{id}/secret", (*visit).rotateWebhookSecret, api.WebhooksWrite),
		get("/webhooks/{id}/remove", "", (*visit).askRemoveWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/remove", (*visit).removeWebhook, api.WebhooksWrite),
		post("/webhooks/{id}/redeliver", (*visit).redeliver, api.WebhooksWrite),

		get("/rehearsal", "Rehearsal", (*visit).rehearsal, api.ServerRead),
		get("/configuration", "Configuration", (*visit).configuration, api.ServerRead),

		get("/people", "Access", (*visit).people, api.ServerRead),
		get("/people/link", "", (*visit).newLink, api.Admin),
		post("/people/link", (*visit).makeLink, api.Admin),
		post("/people/links/{id}/cancel", (*visit).cancelLink, api.Admin),
	}
	for i := range list {
		switch list[i].Path {
		case "/audit/export", "/configuration", "/rehearsal", "/signing-keys": // rehearsal shows some of the configuration
			list[i].noted = list[i].Method == http.MethodGet
		case "/{$}", "/sessions/{id}", "/subject", "/events", "/webhooks", "/webhooks/{id}", "/revocations", "/revocations/{id}":
			list[i].live = list[i].Method == http.MethodGet
		}
		if strings.HasPrefix(list[i].Path, "/audit") {
			list[i].there = (*visit).hasAudit
		}
		if strings.HasPrefix(list[i].Path, "/revocations") {
			list[i].there = (*visit).hasRevocations
		}
		if strings.HasPrefix(list[i].Path, "/webhooks") {
			list[i].there = (*visit).hasWebhooks
		}
		if slices.Contains(list[i].Needs, api.UsersRead) || slices.Contains(list[i].Needs, api.UsersWrite) {
			list[i].there = (*visit).hasUsers
		}
	}
	return list
}

// Routes returns the routes, for the tests that compare them with the documentation.
func Routes() []Route {
	return append([]Route{
		{Method: http.MethodGet, Path: "/enter"}, {Method: http.MethodPost, Path: "/enter"}, {Method: http.MethodPost, Path: "/sign-out"},
	}, routes()...)
}

// mux returns what finds the route of a request.
func (c *Console) mux() http.Handler {
	m := http.NewServeMux()
	for _, rt := range routes() {
		m.HandleFunc(rt.Method+" "+c.base+rt.Path, func(w http.ResponseWriter, r *http.Request) { c.serve(w, r, rt) })
	}
	m.HandleFunc("GET "+c.base+"/enter", c.enter)
	m.HandleFunc("POST "+c.base+"/enter", c.useLink)
	m.HandleFunc("POST "+c.base+"/sign-out", c.signOut)
	return m
}
