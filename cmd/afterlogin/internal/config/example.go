package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// Example returns a configuration file with every setting at its default, commented out, and what each does.
func Example() string {
	var b strings.Builder
	b.WriteString("# Configuration of afterlogin serve. Every setting is shown with its default; remove the # to change one.\n")
	b.WriteString("# Flags win over environment variables, which win over this file. Check it: afterlogin config check --config FILE\n")
	c := Default()
	var above []string // the sections that the last setting stood in
	for _, s := range settings {
		if s.Key == "" {
			continue
		}
		parts := strings.Split(s.Key, ".")
		in, name := parts[:len(parts)-1], parts[len(parts)-1]
		if len(above) > 0 && (len(in) == 0 || in[0] != above[0]) {
			b.WriteString(exampleLists[above[0]])
		}
		for i, section := range in {
			if i < len(above) && slices.Equal(above[:i+1], in[:i+1]) {
				continue
			}
			if i == 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "#%s%s:\n", strings.Repeat("  ", i), section)
		}
		if above = in; len(in) == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "# %s\n# (flag --%s, environment %s)\n", s.Doc, s.Flag, s.Env)
		value := s.Text(&c)
		if value == "" {
			value = `""`
		}
		fmt.Fprintf(&b, "#%s%s: %s\n", strings.Repeat("  ", len(in)), name, value)
	}
	b.WriteString(exampleClients)
	b.WriteString("\n# How long sessions live, by policy. A policy with a new name starts as a copy of browser.\n")
	for _, f := range policyFields {
		fmt.Fprintf(&b, "# %-8s  %s\n", f.key, f.doc)
	}
	fmt.Fprintf(&b, "# (environment %s, as in %sPOLICY_BROWSER_IDLE=30m)\n#policies:\n", PolicyVariable, Prefix)
	for _, name := range sortedPolicies(afterlogin.DefaultPolicies()) {
		p := c.Policies[name]
		fmt.Fprintf(&b, "#  %s:\n", name)
		for _, f := range policyFields {
			if d := *f.field(&p); d != 0 {
				fmt.Fprintf(&b, "#    %s: %s\n", f.key, Duration(d))
			}
		}
	}
	return b.String()
}

// exampleClients shows the clients' part of the file. It stands as it is even without the #: no client is default.
const exampleClients = `
# OAuth clients; others are made with "afterlogin clients add". docs/oauth.md says what each line means, and there is no
# environment variable for them. A secret's hash: printf %s "$secret" | sha256sum
#oauth:
##  clients:
##  - id: web-shop
##    name: Web shop
##    auth: secret
##    secret_file: /run/secrets/web-shop
##    grant_types: [authorization_code, refresh_token]
##    redirect_uris: ["https://shop.example.com/callback"]
##    scopes: [orders:read, orders:write]
##    first_party: true
`

// exampleLists shows, behind the settings of a section, the list that it may have besides. No entry is default, so they
// stay comments even without the #, and there is no environment variable for them.
var exampleLists = map[string]string{
	"gateway": `##  apps: # applications with rules of their own; docs/gateway.md
##  - origin: https://shop.example.com
##    rules:
##    - path: /assets/
##      public: true
##    - path: /admin/
##      kinds: [session]
##      scopes: [admin]
##      max_age: 10m
`,
	"rehearsal": `##  policies: # stricter forms of policies, tried beside the real ones; docs/rehearsal.md
##    browser:
##      idle: 15m
##      grace: 0s
`,
	"sign_in": `##  providers: # OpenID Connect providers; docs/upstream.md
##  - id: example
##    name: Example
##    issuer: https://login.example.com
##    client_id: afterlogin
##    client_secret_file: /run/secrets/example
`,
}
