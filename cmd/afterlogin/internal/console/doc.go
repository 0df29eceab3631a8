// Package console is the administration in a browser: who is signed in, with what, and why somebody is not any more; and
// what to do about it. It needs no JavaScript: with it, lists search as one types and numbers are live.
//
// It does everything through the handler of the JSON API, in this process and as the person who is signed in (api.As): the
// same scopes, the same checks, the same audit. There is nothing that it can do and an API key with the same scopes cannot.
// What a role may not do is not offered, and is refused by the API if it is tried.
//
// Start with [New]. It answers below Options.Base, and assumes nothing of the server around it.
//
// # Who may enter
//
// Somebody with the scope admin makes a link (POST /v1/console/links, "afterlogin console link"), which is good once: see
// package entrance. The session that it makes has the policy console, a cookie and a tenant of its own. See enter.go.
//
// # How a screen is written
//
// A screen is a file of Go, a template of the same name in templates/, and its routes in routes (routes.go), which is what
// docs/console.md and the tests are compared with. A route's function gets a visit: one request of one person.
//
//	func (v *visit) keys() error {
//		var list api.List
//		if err := v.get("/v1/api-keys", v.query("subject", "cursor"), &list); err != nil {
//			return err // an *api.Problem becomes a page with its text and its status
//		}
//		return v.show("keys", "API keys", list)
//	}
//
//	get, post, del, call   call the API. The error is *api.Problem if that said no.
//	show                   answers with a template; its data is .Data, and everything else that it needs is in screen: .May
//	                       "sessions:write", .CSRF, .Now, .Query, .Form, .Fault "subject" for what is wrong with a field
//	again                  shows a form once more, with what was typed and what the API said about it, beside the fields
//	done                   redirects after an act, to a page that says what was done: a key of the table done (words.go)
//	confirm                asks before an act that cannot be taken back: a page with one button, and one way back
//
// An act is a POST that ends with done, so that a reload does not repeat it; its form holds {{template "csrf" .}}, which
// is checked before the function is called. What hands out a secret is the exception: it shows it at once.
//
// Templates define "main", the page's own part. One that defines "live" too has that part, which must stand in its "main"
// as {{template "live-part" .}}, replaced while somebody watches, whenever an event says that it may have changed, and every
// few seconds: see live.go; v.matters says which events those are. The function of the route is called again for it, as it is for a reload. Ids of elements in it
// must stay the same: focus and open <details> are found again by them.
//
// Parts that many pages use are in templates/parts.html: "time", "ago", "pager", "field", "session-row", "badge", "csrf".
// Addresses are made with {{path "sessions" .ID}}, which escapes; a subject stands in a query: {{path "subject"}}?name={{.}}.
//
// # Style
//
// One sheet, static/console.css, with custom properties for both themes; no inline style and no inline script, which the
// Content-Security-Policy would stop. Charts and graphs are drawn on the server as SVG (chart.go, graph.go), with a table or
// a list of the same behind each.
package console
