package snippet_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
	"github.com/afterlogin/afterlogin/gateway"
)

func TestOptions(t *testing.T) {
	yes, no := true, false
	tests := []struct {
		name                   string
		o                      snippet.Options
		origin, listen, bypass string // what the configuration of nginx must hold
	}{
		{"nothing", snippet.Options{}, "http://shop.localhost:8080", "listen 127.0.0.1:8080;", "server localhost:3000;"},
		{"a port", snippet.Options{Host: "shop.localhost:9090"}, "http://shop.localhost:9090", "listen 127.0.0.1:9090;", ""},
		{"two ports", snippet.Options{Host: "Shop.LOCALHOST:9090", Listen: "8081"}, "", "", ""}, // all addresses, in plain HTTP
		{"mapped", snippet.Options{Host: "shop.localhost:9090", Listen: "127.0.0.1:8081"}, "http://shop.localhost:9090", "listen 127.0.0.1:8081;", ""},
		{"the usual port", snippet.Options{Host: "localhost:80"}, "http://localhost", "listen 127.0.0.1:80;", ""},
		{"a real host", snippet.Options{Host: "Shop.Example.com", App: "http://10.0.0.7:8000/"}, "https://shop.example.com", "listen 443 ssl http2;", "server 10.0.0.7:8000;"},
		{"a real host on a port", snippet.Options{Host: "shop.example.com", Listen: ":8443"}, "https://shop.example.com:8443", "listen 8443 ssl http2;", ""},
		{"TLS for trying out", snippet.Options{Plain: &no}, "https://shop.localhost", "ssl_certificate /etc/letsencrypt/live/shop.localhost/fullchain.pem;", ""},
		{"a certificate", snippet.Options{TLSCert: "/etc/a.pem", TLSKey: "/etc/b.pem"}, "https://shop.localhost", "ssl_certificate_key /etc/b.pem;", ""},
		{"IPv6", snippet.Options{App: "[::1]:3000", Listen: "[::1]:8080"}, "http://shop.localhost:8080", "listen [::1]:8080;", "server [::1]:3000;"},
		{"plain", snippet.Options{Host: "shop.example.com", Plain: &yes}, "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, err := snippet.Render("nginx", tt.o)
			if tt.origin == "" {
				var bad *snippet.OptionError
				if !errors.As(err, &bad) {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"afterlogin serve --origin " + tt.origin + "\n", tt.listen, tt.bypass} {
				if !strings.Contains(files[0].Content, want) {
					t.Errorf("%q is not in it", want)
				}
			}
		})
	}
}

// Whatever is taken means nothing to the proxy but what it says.
func TestOptionsRefused(t *testing.T) {
	injections := []string{"x; }", "x\n", "x y", `x"`, "x'", "x`", "x$y", "x{", "x}", "x#", "x\\", "x\x00", "x\t", "(x", "x)", "x|y", "x&y", "x<y", "x>y", "x%y", "x,y", "x*", "x?y", "é", "x\u2028"}
	try := func(o snippet.Options, option string) {
		t.Helper()
		for _, p := range snippet.Proxies() {
			_, err := snippet.Render(p.Name, o)
			var bad *snippet.OptionError
			if !errors.As(err, &bad) || bad.Reason == "" || bad.Remedy == "" {
				t.Errorf("%s: %+v is taken: %v", p.Name, o, err)
			} else if bad.Option != option && bad.Option != "lua-path" && bad.Option != "tls-key" {
				t.Errorf("%s: %+v: --%s is blamed", p.Name, o, bad.Option)
			} else if strings.ContainsAny(bad.Error(), "\n\x00\u2028") {
				t.Errorf("%q holds what does something to a terminal", bad.Error())
			}
		}
	}
	for _, x := range injections {
		try(snippet.Options{Host: x}, "host")
		try(snippet.Options{Host: x + ".localhost:8080"}, "host")
		try(snippet.Options{Host: "shop.localhost:80" + x}, "host")
		try(snippet.Options{App: x + ":3000"}, "app")
		try(snippet.Options{App: "localhost:3000" + x}, "app")
		try(snippet.Options{Afterlogin: x + ":7070"}, "afterlogin")
		try(snippet.Options{Listen: x + ":8080"}, "listen")
		try(snippet.Options{Listen: "127.0.0.1:8080" + x}, "listen")
		try(snippet.Options{TLSCert: "/etc/" + x, TLSKey: "/etc/k"}, "tls-cert")
		try(snippet.Options{LuaPath: "/etc/" + x}, "lua-path")
	}
	for _, host := range []string{"http://shop.localhost", "shop.localhost/", "shop.localhost:", "shop.localhost:0", "shop.localhost:65536", "shop.localhost:080", "shop.localhost:+80", "-x.localhost",
		"x-.localhost", ".localhost", "shop..localhost", "shop.localhost.", "[::1]:8080", "a:b@c", "_x.localhost", strings.Repeat("a", 64) + ".localhost", strings.Repeat("a.", 130) + "localhost"} {
		try(snippet.Options{Host: host}, "host")
	}
	for _, app := range []string{"localhost", "https://localhost:3000", "localhost:3000/x", "http://localhost:3000/x", ":3000", "[::1]", "[::1", "[x]:3000", "[127.0.0.1]:3000", "[fe80::1%eth0]:3000", "a..b:3000", "127.0.0.1:7070"} {
		try(snippet.Options{App: app}, "app")
	}
	for _, listen := range []string{"0.0.0.0:8080", ":8080", "8080", "shop.localhost:8080", "127.0.0.1", "::1:8080", "127.0.0.1:99999"} {
		try(snippet.Options{Listen: listen}, "listen")
	}
	for _, path := range []string{"x.pem", "./x.pem", "/etc/../x.pem", "/etc//x.pem", "/etc/x.pem/", "/", "/etc/-x", "/etc/.x"} {
		try(snippet.Options{TLSCert: path, TLSKey: "/etc/k"}, "tls-cert")
	}
	if _, err := snippet.Render("apache2", snippet.Options{}); err == nil {
		t.Error("a proxy that there is none of is taken")
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("localhost:3000", "shop.localhost", "127.0.0.1:7070", "", "", "")
	f.Add("http://a_b:1/", "shop.example.com:443", "[::1]:7070", ":8443", "/etc/a.pem", "/etc/b.pem")
	want := map[string]int{}
	for _, p := range snippet.Proxies() {
		files, err := snippet.Render(p.Name, snippet.Options{Host: "shop.example.com", TLSCert: "/c", TLSKey: map[bool]string{false: "/k"}[p.Name == "haproxy"], Listen: "127.0.0.1:8443"})
		if err != nil {
			f.Fatal(err)
		}
		want[p.Name] = strings.Count(files[0].Content, "\n")
	}
	f.Fuzz(func(t *testing.T, app, host, afterlogin, listen, cert, key string) {
		for _, p := range snippet.Proxies() {
			files, err := snippet.Render(p.Name, snippet.Options{App: app, Host: host, Afterlogin: afterlogin, Listen: listen, TLSCert: cert, TLSKey: key})
			if err != nil {
				continue
			}
			// What is taken adds no lines, and nothing that ends a word, a string or a comment.
			if n := strings.Count(files[0].Content, "\n"); n > want[p.Name]+8 {
				t.Errorf("%s: %d lines, not %d", p.Name, n, want[p.Name])
			}
			for _, text := range []string{app, host, afterlogin, listen, cert, key} {
				if strings.ContainsAny(text, "\n\r\x00\"'`${}();#\\ \t") {
					t.Errorf("%s takes %q", p.Name, text)
				}
			}
		}
	})
}

// variants are options whose configurations differ in what they hold.
func variants() map[string]snippet.Options {
	return map[string]snippet.Options{
		"plain": {Host: "shop.localhost:8080"},
		"tls":   {Host: "shop.example.com", TLSCert: "/etc/a.pem", TLSKey: "/etc/b.pem"},
	}
}

// yamlOf returns the configuration as YAML has it.
func yamlOf(t *testing.T, proxy string, o snippet.Options) (all map[string]any, text string) {
	t.Helper()
	files, err := snippet.Render(proxy, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalWithOptions([]byte(files[0].Content), &all, yaml.Strict()); err != nil {
		t.Fatalf("%v\n%s", err, files[0].Content)
	}
	return all, files[0].Content
}

// at returns what is there by the names and the numbers of the path.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok || m[step] == nil {
				t.Fatalf("there is no %v of %v", step, path)
			}
			v = m[step]
		case int:
			l, ok := v.([]any)
			if !ok || len(l) <= step {
				t.Fatalf("there is no %v of %v", step, path)
			}
			v = l[step]
		}
	}
	return v
}

// sent are the headers of gateway's answers that applications get.
var sent = []string{gateway.HeaderSubject, gateway.HeaderSession, gateway.HeaderKind, gateway.HeaderScopes, gateway.HeaderTime, gateway.HeaderAssertion}

func TestTraefik(t *testing.T) {
	for name, o := range variants() {
		t.Run(name, func(t *testing.T) {
			all, _ := yamlOf(t, "traefik", o)
			slug := "shop_localhost_cead16be"
			if name == "tls" {
				slug = "shop_example_com_b4981fa5"
				at(t, all, "tls", "certificates", 0, "certFile")
				at(t, all, "http", "routers", slug, "tls")
			}
			var copied []string
			for _, h := range at(t, all, "http", "middlewares", slug+"-ask", "forwardAuth", "authResponseHeaders").([]any) {
				copied = append(copied, h.(string))
			}
			want := append(slices.Clone(sent), "Cookie", "Authorization", "X-Api-Key")
			slices.Sort(copied)
			slices.Sort(want)
			if !slices.Equal(copied, want) {
				t.Errorf("authResponseHeaders = %v, want %v", copied, want)
			}
			if got := at(t, all, "http", "middlewares", slug+"-ask", "forwardAuth", "address"); got != "http://127.0.0.1:7070"+gateway.Path+"/traefik" {
				t.Errorf("address = %v", got)
			}
			clean := at(t, all, "http", "middlewares", slug+"-clean", "headers", "customRequestHeaders").(map[string]any)
			for _, h := range append(slices.Clone(sent), gateway.HeaderCookie, gateway.HeaderAuthorization) {
				for _, spelling := range []string{h, strings.ReplaceAll(h, "-", "_"), strings.Replace(h, "-", "_", 1)} {
					if v, ok := clean[spelling]; !ok || v != "" {
						t.Errorf("%s of a client is not dropped", spelling)
					}
				}
			}
			if got := fmt.Sprint(at(t, all, "http", "routers", slug, "middlewares")); got != fmt.Sprintf("[%s-clean %[1]s-ask %[1]s-strip]", slug) {
				t.Errorf("middlewares = %s", got)
			}
			for _, h := range []string{gateway.HeaderCookie, gateway.HeaderAuthorization} {
				at(t, all, "http", "middlewares", slug+"-strip", "headers", "customRequestHeaders")
				if v, ok := at(t, all, "http", "middlewares", slug+"-strip", "headers", "customRequestHeaders").(map[string]any)[h]; !ok || v != "" {
					t.Errorf("%s reaches the application", h)
				}
			}
		})
	}
}

func TestEnvoy(t *testing.T) {
	for name, o := range variants() {
		t.Run(name, func(t *testing.T) {
			all, _ := yamlOf(t, "envoy", o)
			chain := at(t, all, "static_resources", "listeners", 0, "filter_chains", 0)
			if name == "tls" {
				at(t, chain, "transport_socket", "typed_config", "common_tls_context", "tls_certificates", 0)
			}
			manager := at(t, chain, "filters", 0, "typed_config")
			var order []string
			for _, f := range at(t, manager, "http_filters").([]any) {
				order = append(order, at(t, f, "name").(string))
			}
			if want := []string{"envoy.filters.http.header_mutation", "envoy.filters.http.ext_authz", "envoy.filters.http.router"}; !slices.Equal(order, want) {
				t.Errorf("filters %v, want %v", order, want)
			}
			if got := at(t, manager, "common_http_protocol_options", "headers_with_underscores_action"); got != "DROP_HEADER" {
				t.Errorf("underscores: %v", got)
			}
			dropped := map[string]bool{}
			for _, m := range at(t, manager, "http_filters", 0, "typed_config", "mutations", "request_mutations").([]any) {
				if name, ok := m.(map[string]any)["remove"].(string); ok {
					dropped[name] = true
				}
			}
			ask := at(t, manager, "http_filters", 1, "typed_config")
			copied := map[string]bool{}
			for _, p := range at(t, ask, "http_service", "authorization_response", "allowed_upstream_headers", "patterns").([]any) {
				copied[p.(map[string]any)["exact"].(string)] = true
			}
			for _, h := range sent {
				if h := strings.ToLower(h); !dropped[h] || !copied[h] {
					t.Errorf("%s: dropped %v, copied %v", h, dropped[h], copied[h])
				}
			}
			for _, h := range []string{gateway.HeaderCookie, gateway.HeaderAuthorization} {
				if h := strings.ToLower(h); !dropped[h] || copied[h] {
					t.Errorf("%s: dropped %v, copied %v", h, dropped[h], copied[h])
				}
			}
			for _, h := range []string{"cookie", "authorization", "x-api-key"} {
				if !copied[h] {
					t.Errorf("%s is not copied", h)
				}
			}
			if at(t, ask, "failure_mode_allow") != false || at(t, ask, "http_service", "path_prefix") != gateway.Path+"/envoy" {
				t.Errorf("ext_authz: %v", ask)
			}
		})
	}
}

// Nothing is left of a template in what is printed, and every line has an end.
func TestRender(t *testing.T) {
	for _, p := range snippet.Proxies() {
		for name, o := range variants() {
			if p.Name == "haproxy" {
				o.TLSKey = ""
			}
			files, err := snippet.Render(p.Name, o)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != len(p.Files) {
				t.Errorf("%s: %d files", p.Name, len(files))
			}
			for _, f := range files {
				if strings.Contains(f.Content, "{{") || strings.Contains(f.Content, "<no value>") || !strings.HasSuffix(f.Content, "\n") || strings.HasPrefix(f.Content, "\n") {
					t.Errorf("%s %s: %s is not whole", p.Name, name, f.Name)
				}
				if !strings.Contains(f.Content, "afterlogin") || strings.Contains(f.Name, "SITE") {
					t.Errorf("%s %s: %s", p.Name, name, f.Name)
				}
				for i, line := range strings.Split(f.Content, "\n") {
					if strings.TrimRight(line, " \t") != line {
						t.Errorf("%s %s: %s:%d ends with a blank", p.Name, name, f.Name, i+1)
					}
				}
			}
			if dir := os.Getenv("SNIPPET_DIR"); dir != "" {
				for _, f := range files {
					os.WriteFile(dir+"/"+p.Name+"-"+name+"-"+f.Name, []byte(f.Content), 0o644)
				}
			}
		}
	}
}
