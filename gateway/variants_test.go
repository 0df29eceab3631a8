package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
)

// What Traefik asks (ForwardAuth, pkg/middlewares/auth/forward.go and doc.traefik.io, "ForwardAuth"): a GET of the
// configured address with all headers of the client less the hop-by-hop ones (Connection, Keep-Alive, Proxy-Authenticate,
// Proxy-Authorization, Te, Trailers, Transfer-Encoding, Upgrade), and X-Forwarded-Method, -Proto, -Host, -Uri and -For
// set by itself. Behind another proxy it trusts (forwardedHeaders, trustForwardHeader) the proto of a WebSocket is ws or
// wss. Of a 2xx answer, each name in authResponseHeaders is taken out of the client's request, and put in if the answer
// has it; everything else is given to the client whole.
func TestTraefik(t *testing.T) {
	d := open(t)
	token, _ := d.issue()
	// reaches returns the headers that reach the application.
	reaches := func(client http.Header) (*http.Response, http.Header) {
		resp := d.ask("/traefik", "GET", "/orders?page=2", func(r *http.Request) {
			r.Host, r.Header["Accept-Encoding"], r.Header["User-Agent"] = "afterlogin:7070", []string{"gzip"}, []string{"Mozilla/5.0"}
			r.Header.Set("X-Forwarded-Port", "443")
			r.Header.Set("X-Forwarded-Server", "traefik-1")
			r.Header.Set("X-Real-Ip", "203.0.113.7")
			for name, values := range client {
				r.Header[name] = values
			}
		})
		to := client.Clone()
		if resp.StatusCode != 200 {
			return resp, nil
		}
		for _, name := range append([]string{"Cookie", "Authorization", "X-Api-Key"}, identityHeaders[:6]...) {
			delete(to, name)
			if v := resp.Header[name]; len(v) > 0 {
				to[name] = v
			}
		}
		return resp, to
	}
	_, to := reaches(http.Header{
		"Cookie": {"theme=dark; " + httpauth.CookieName + "=" + token}, "X-Auth-Subject": {"admin"}, "X-Auth-Scopes": {"admin"}, "X-Auth-Assertion": {"eyJ"},
	})
	if to.Get("Cookie") != "theme=dark" || to.Get("X-Auth-Subject") != "mia" || to.Get("X-Auth-Scopes") != "orders:read" || len(to["X-Auth-Assertion"]) != 1 {
		t.Errorf("the application gets %v", to)
	}
	_, to = reaches(http.Header{"Authorization": {"Bearer " + token}, "Cookie": {"theme=dark"}})
	if to.Get("Cookie") != "theme=dark" || to["Authorization"] != nil || to.Get("X-Auth-Subject") != "mia" {
		t.Errorf("the application gets %v", to)
	}
	resp, _ := reaches(http.Header{"Accept": {html}})
	status(t, resp, 303)
	has(t, resp, "Location", origin+"/.afterlogin/login?return_to=%2Forders%3Fpage%3D2")
	// A WebSocket, without the Upgrade that Traefik takes out.
	for from, want := range map[string]int{origin: 200, "https://evil.example": 403} {
		resp := d.ask("/traefik", "GET", "/socket", cookie(token), replaced("X-Forwarded-Proto", "wss"),
			header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), header("Sec-WebSocket-Version", "13"), header("Origin", from))
		status(t, resp, want)
	}
}

// What Envoy asks (ext_authz, HTTP service; envoyproxy.io, "External Authorization", HttpService and
// AuthorizationRequest): the client's method, Host, path_prefix with the path and query behind it, Content-Length: 0,
// Authorization, and of the other headers those in allowed_headers. Of a 200 answer it takes the headers in
// allowed_upstream_headers, in place of the client's, and takes out those that x-envoy-auth-headers-to-remove names.
// Another status than 200 is the client's answer, with its headers; a 5xx is an error, which is denied.
func TestEnvoy(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/admin/", Scopes: []string{"admin"}}))
	token, _ := d.issue()
	ask := func(method, target string, change ...func(*http.Request)) *http.Response {
		r := httptest.NewRequest(method, "http://shop.example.com"+gateway.Path+"/envoy/x", http.NoBody)
		r.RequestURI = gateway.Path + "/envoy" + target
		r.URL.Path = r.RequestURI
		r.RemoteAddr = "192.0.2.10:40000"
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		r.Header.Set("Content-Length", "0")
		for _, f := range change {
			f(r)
		}
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		d.checkAnswer("/envoy", w.Result(), w.Body.Len())
		return w.Result()
	}
	resp := ask("POST", "/orders?page=2", header("Cookie", "theme=dark; "+httpauth.CookieName+"="+token), header("X-Forwarded-Host", "evil.example"), header("X-Forwarded-Uri", "/public"))
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "mia")
	has(t, resp, "Cookie", "theme=dark")
	has(t, resp, "X-Envoy-Auth-Headers-To-Remove", "authorization,x-api-key")
	resp = ask("GET", "/orders", header("Authorization", "Bearer "+token))
	status(t, resp, 200)
	has(t, resp, "X-Envoy-Auth-Headers-To-Remove", "cookie,authorization,x-api-key")
	// Two lines come as one, with a comma.
	status(t, ask("GET", "/orders", header("Authorization", "Bearer "+token+",Bearer "+token)), 400)
	resp = ask("GET", "/orders", header("Cookie", "a=1,"+httpauth.CookieName+"="+token))
	status(t, resp, 401)

	status(t, ask("GET", "/admin/", cookie(token)), 403)
	status(t, ask("GET", "/%61dmin/", cookie(token)), 403)
	status(t, ask("GET", "//evil.example/", cookie(token)), 400)
	status(t, ask("GET", "/a/../admin/", cookie(token)), 400)
	status(t, ask("GET", "/a%2f..%2fadmin/", cookie(token)), 400)
	resp = ask("GET", "/orders?page=2", navigation)
	status(t, resp, 303)
	has(t, resp, "Location", origin+"/.afterlogin/login?return_to=%2Forders%3Fpage%3D2")
	status(t, ask("GET", "/orders", cookie(token), func(r *http.Request) { r.Host = "evil.example" }), 421)
	status(t, ask("GET", "/orders", cookie(token), header("X-Forwarded-Proto", "")), 400)
	status(t, ask("GET", "/orders", cookie(token), header("X-Forwarded-For", "")), 400)
	status(t, ask("POST", "/orders", cookie(token), header("Origin", "https://evil.example")), 403)
	status(t, ask("GET", "", cookie(token)), 404)
	status(t, ask("GET", "?x=1", cookie(token)), 404)
}

// Over a connection, with a server that cleans nothing, the same answers come.
func TestServer(t *testing.T) {
	d := open(t, func(o *gateway.Options, _ *gateway.App) { o.Proxies = prefixes("127.0.0.0/8", "::1/128") })
	token, _ := d.issue()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !gateway.Handles(r) {
			http.NotFound(w, r)
			return
		}
		d.ServeHTTP(w, r)
	}))
	defer server.Close()
	do := func(method, target string, change ...func(*http.Request)) *http.Response {
		r := must[*http.Request](t)(http.NewRequest(method, server.URL+target, nil))
		r.Header.Set("X-Forwarded-Method", "GET")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Host", "shop.example.com")
		r.Header.Set("X-Forwarded-Uri", "/orders")
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		for _, f := range change {
			f(r)
		}
		resp := must[*http.Response](t)(http.DefaultTransport.RoundTrip(r))
		resp.Body.Close()
		return resp
	}
	resp := do("GET", "/forward-auth", cookie(token))
	status(t, resp, 200)
	for _, name := range identityHeaders {
		if len(resp.Header[name]) != 1 {
			t.Errorf("%d headers %s", len(resp.Header[name]), name)
		}
	}
	if resp.ContentLength != 0 {
		t.Errorf("%d bytes", resp.ContentLength)
	}
	status(t, do("GET", "/forward-auth/envoy/orders%3Fx", cookie(token), func(r *http.Request) { r.Host = "shop.example.com" }), 200)
	status(t, do("GET", "/forward-auth/envoy/a%2fb", cookie(token), func(r *http.Request) { r.Host = "shop.example.com" }), 400)
	status(t, do("GET", "/forward-auth/../forward-auth", cookie(token)), 404)
	status(t, do("GET", "/forward-auth%2fenvoy/orders", cookie(token)), 404)
	status(t, do("GET", "/forward-authority", cookie(token)), 404)
	status(t, do("HEAD", "/forward-auth", cookie(token)), 200)
	// Real addresses of the machine itself: from elsewhere nothing is believed.
	key, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Kind, r.Networks = afterlogin.KindAPIKey, prefixes("127.0.0.0/8") })
	status(t, do("GET", "/forward-auth", header("X-Api-Key", key)), 403)
	status(t, do("GET", "/forward-auth", header("X-Api-Key", key), replaced("X-Forwarded-For", "127.0.0.1")), 200)
	d.pass(2 * time.Hour)
	status(t, do("GET", "/forward-auth", cookie(token)), 401)
}
