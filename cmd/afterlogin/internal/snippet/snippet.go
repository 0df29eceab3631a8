// Package snippet writes the configuration that puts a proxy and afterlogin in front of an application: nginx, Caddy,
// Traefik, HAProxy, Apache and Envoy.
//
// What it writes is complete, and is what the suite of this package runs: real proxies, with exactly these files, in front
// of an application that knows nothing of afterlogin, attacked by the requests in hostile_test.go. docs/proxies.md says
// what each proxy can do and what it cannot. Start with [Render].
package snippet

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// A File is a part of a configuration.
type File struct {
	Name    string // as "afterlogin.cfg", without a directory
	Content string
}

// A Proxy is something that Render writes a configuration for.
type Proxy struct {
	Name  string   // as it is called on the command line
	Title string   // as its makers call it
	Files []string // what is written, the configuration first
}

// Proxies are all that there are, in the order of the documentation.
func Proxies() []Proxy {
	return []Proxy{
		{"nginx", "nginx", []string{"afterlogin-SITE.conf"}},
		{"caddy", "Caddy", []string{"Caddyfile"}},
		{"traefik", "Traefik", []string{"afterlogin-SITE.yaml"}},
		{"haproxy", "HAProxy", []string{"haproxy.cfg", "afterlogin.lua"}},
		{"apache", "Apache httpd", []string{"afterlogin-SITE.conf", "afterlogin-SITE.lua"}},
		{"envoy", "Envoy", []string{"envoy.yaml"}},
	}
}

// identity are the headers of every answer that lets a request pass, which the application gets. See the documentation
// of package gateway.
var identity = []string{"X-Auth-Subject", "X-Auth-Session", "X-Auth-Kind", "X-Auth-Scopes", "X-Auth-Time", "X-Auth-Assertion"}

// rest are the headers that say what is left of the credentials. They become Cookie and Authorization, and do not reach
// the application under these names.
var rest = []string{"X-Auth-Cookie", "X-Auth-Authorization"}

// foreign are headers of a client by which applications let themselves be told another path, method, host or address
// than those that were judged. None of them reaches the application.
var foreign = []string{
	"Forwarded", "X-Forwarded", "X-Forwarded-By", "X-Forwarded-Path", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Scheme",
	"X-Forwarded-Server", "X-Forwarded-Ssl", "X-Original-Host", "X-Original-Method", "X-Original-Uri",
	"X-Original-Url", "X-Rewrite-Url", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Client-Ip", "X-Cluster-Client-Ip",
	"True-Client-Ip", "Cf-Connecting-Ip", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "Proxy",
}

// others are headers by which applications let themselves be told who it is by other programs than afterlogin. There is
// none of these in front of them, so that whoever sends one is not to be believed.
var others = []string{
	"Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups", "X-Remote-User", "X-Remote-Name", "X-Remote-Email", "X-Remote-Group",
	"X-Remote-Groups", "X-Webauth-User", "X-Webauth-Name", "X-Webauth-Email", "X-Webauth-Groups", "X-Webauth-Role",
	"X-Authenticated-User", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
	"X-Forwarded-Access-Token", "X-Auth-User", "X-Auth-Name", "X-Auth-Email", "X-Auth-Groups", "X-Auth-Roles",
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username",
	"X-Auth-Request-Access-Token",
}

// values are what the templates read.
type values struct {
	Site
	Proxy Proxy
}

// Identity, Rest and Foreign are names of headers.
func (values) Identity() []string { return identity }
func (values) Rest() []string     { return rest }
func (values) Foreign() []string  { return append(append([]string(nil), foreign...), others...) }

// Forged returns every way to write the names of the headers that afterlogin sets, since much that reads headers takes
// _ for -: x_auth_subject and X-Auth_Subject are X-Auth-Subject to it.
func (values) Forged() []string {
	var all []string
	for _, name := range append(append([]string(nil), identity...), rest...) {
		parts := strings.Split(name, "-")
		for bits := range 1 << (len(parts) - 1) {
			spelling := parts[0]
			for i, part := range parts[1:] {
				spelling += string("-_"[bits>>i&1]) + part
			}
			all = append(all, spelling)
		}
	}
	return all
}

// Spellings returns the beginnings of names that Caddy drops, which knows patterns at the end alone: every name that
// afterlogin sets with whatever a name may have for -, and the others with what programs are known to take for it.
func (values) Spellings() []string {
	var all []string
	for _, separator := range strings.Split("- _ . ! # $ % & ' * + ^ ` | ~", " ") {
		all = append(all, "X"+separator+"Auth*")
	}
	for _, name := range []string{"X-Forwarded", "X-Original", "X-Rewrite", "X-Http", "X-Method", "X-Real", "X-Client", "X-Cluster", "X-Remote",
		"X-Webauth", "True-Client", "Cf-Connecting"} {
		for _, separator := range []string{"-", "_", "."} {
			all = append(all, strings.Replace(name, "-", separator, 1)+"*")
		}
	}
	return append(all, "Remote*", "Forwarded", "Proxy")
}

// Errors returns the statuses that Apache answers with by itself.
func (values) Errors() []int {
	return []int{400, 401, 403, 404, 405, 408, 411, 413, 414, 417, 421, 426, 431, 500, 501, 502, 503, 504}
}

// ServerName returns the host as nginx has it beside server_name. Long ones are a pattern: those that are not go into a
// table, which has no room for them unless somebody changes its size.
func (v values) ServerName() string {
	if len(v.Name) <= maxWord {
		return v.Name
	}
	return `"~^` + strings.ReplaceAll(v.Name, ".", `\.`) + `$"`
}

// Variable returns the end of a header's name as a word: subject for X-Auth-Subject.
func (values) Variable(header string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(header, "X-Auth-"), "-", "_"))
}

var functions = template.FuncMap{
	"lower": strings.ToLower,
	// underscored returns the name with _ for every -, empty if there is none.
	"underscored": func(name string) string {
		if u := strings.ReplaceAll(name, "-", "_"); u != name {
			return u
		}
		return ""
	},
}

// Render writes the configuration of a proxy for a site: the files that [Proxy.Files] names, in that order.
func Render(proxy string, o Options) ([]File, error) {
	for _, p := range Proxies() {
		if p.Name != proxy {
			continue
		}
		site, err := o.site(p)
		if err != nil {
			return nil, err
		}
		t, err := template.New("").Funcs(functions).ParseFS(templates, "templates/*")
		if err != nil {
			return nil, err
		}
		var files []File
		for _, name := range p.Files {
			source := p.Name + path.Ext(name)
			var b bytes.Buffer
			if err := t.ExecuteTemplate(&b, source, values{site, p}); err != nil {
				return nil, fmt.Errorf("snippet: %w", err)
			}
			files = append(files, File{strings.ReplaceAll(name, "SITE", site.Slug), b.String()})
		}
		return files, nil
	}
	return nil, &OptionError{"proxy", fmt.Sprintf("%q is none of %s", proxy, names()), "name one of them"}
}

func names() string {
	var all []string
	for _, p := range Proxies() {
		all = append(all, p.Name)
	}
	return strings.Join(all, ", ")
}
