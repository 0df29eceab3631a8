// Package config holds the settings of the server: what there is, what is default, and where each value came from.
// Settings come from flags, environment variables and a YAML file, in this order. All that is wrong with them is
// reported at once, each with its place and a remedy.
//
// Start with [Load]. The [Config] struct is the manual.
package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/jwt"
)

// Prefix begins the name of every environment variable of ours.
const Prefix = "AFTERLOGIN_"

// A Config is the settings of the server. The tags name each setting in the file (key), in the environment (env, behind
// Prefix) and on the command line (flag), and say what it does (doc).
type Config struct {
	Listen            string   `key:"listen" env:"LISTEN" flag:"listen" doc:"address to listen on, host:port; anything but loopback needs tls or behind_proxy"`
	Data              string   `key:"data" env:"DATA" flag:"data" doc:"directory of the embedded store, the keys and the admin key"`
	Store             string   `key:"store" env:"STORE" flag:"store" secret:"address" doc:"the store, if not the embedded one: redis://HOST:6379, rediss://…, redis+sentinel://HOST:26379,…/NAME or postgres://USER@HOST/DATABASE, shared by any number of servers"`
	StoreFile         string   `key:"store_file" env:"STORE_FILE" flag:"store-file" doc:"file with the address of the store, for one that has a password in it"`
	Hosts             []string `key:"hosts" env:"HOSTS" flag:"host" doc:"names, besides loopback ones, that requests may be addressed to"`
	BehindProxy       bool     `key:"behind_proxy" env:"BEHIND_PROXY" flag:"behind-proxy" doc:"a proxy in front does TLS, so plain HTTP on any address is fine"`
	TLSCert           string   `key:"tls.cert" env:"TLS_CERT" flag:"tls-cert" doc:"file with the certificate chain, PEM"`
	TLSKey            string   `key:"tls.key" env:"TLS_KEY" flag:"tls-key" doc:"file with the certificate's private key, PEM"`
	MasterKeyFile     string   `key:"master_key_file" env:"MASTER_KEY_FILE" flag:"master-key-file" doc:"file with the key that seals the other keys, the same for all servers of a store; empty: <data>/master.key, made at the first start"`
	MasterKey         string   `env:"MASTER_KEY" secret:"true" doc:"the key that seals the other keys, 32 bytes in base64; environment only"`
	Drain             Duration `key:"drain" env:"DRAIN" flag:"drain" doc:"how long requests are still taken after a stop was asked for and /readyz says so"`
	Shutdown          Duration `key:"shutdown_timeout" env:"SHUTDOWN_TIMEOUT" flag:"shutdown-timeout" doc:"how long running requests may take to finish after that"`
	LogLevel          string   `key:"log.level" env:"LOG_LEVEL" flag:"log-level" doc:"debug, info, warn or error; debug logs every request"`
	LogFormat         string   `key:"log.format" env:"LOG_FORMAT" flag:"log-format" doc:"text, json or auto: text on a terminal, json otherwise"`
	Issuer            string   `key:"issuer" env:"ISSUER" flag:"issuer" doc:"https address of this server, as https://auth.example.com: who issues, in JWTs and for OAuth clients; empty: of a server on a loopback address that address, otherwise neither"`
	SignInURL         string   `key:"sign_in_url" env:"SIGN_IN_URL" flag:"sign-in-url" doc:"the application's sign-in page: where people who are not signed in are sent, with return_to; a path is one of this server's host for /oauth/authorize, and of their own hosts for applications behind a proxy"`
	JWTAlgorithm      string   `key:"jwt_algorithm" env:"JWT_ALGORITHM" flag:"jwt-algorithm" doc:"what JWTs are signed with: EdDSA, ES256 or, for old clients, RS256"`
	ImportedKeys      bool     `key:"api_keys.imported" env:"API_KEYS_IMPORTED" flag:"imported-api-keys" doc:"accept API keys that were made elsewhere and imported by their hash; junk then costs a look into the store"`
	Origins           []string `key:"gateway.origins" env:"GATEWAY_ORIGINS" flag:"origin" doc:"address of an application behind a proxy that asks here, as https://shop.example.com: everything there needs a sign-in; those with rules of their own stand under gateway.apps in the file"`
	Proxies           []string `key:"gateway.proxies" env:"GATEWAY_PROXIES" flag:"proxy" doc:"addresses or networks of these proxies: what they say about a request (X-Forwarded-…) is believed"`
	Users             bool     `key:"sign_in.users" env:"SIGN_IN_USERS" flag:"users" doc:"ask for name and password of a built-in user at /login; see afterlogin users"`
	PasswordMin       int      `key:"sign_in.password_min" env:"SIGN_IN_PASSWORD_MIN" flag:"password-min" doc:"how many characters the password of a built-in user has at least"`
	PasswordACR       string   `key:"sign_in.password_acr" env:"SIGN_IN_PASSWORD_ACR" flag:"password-acr" doc:"the class of authentication (acr) that the password of a built-in user gives, for rules that ask for one; empty: none"`
	Remember          bool     `key:"sign_in.remember" env:"SIGN_IN_REMEMBER" flag:"remember" doc:"let people stay signed in after the browser was closed: the policy remember"`
	ReturnTo          []string `key:"sign_in.return_to" env:"SIGN_IN_RETURN_TO" flag:"return-to" doc:"origins, besides the applications', that people may be sent to after they have signed in"`
	KeepEnded         Duration `key:"keep_ended" env:"KEEP_ENDED" flag:"keep-ended" doc:"how long a session that is over is kept after its absolute end, so that people are told why it ended; each day of it costs the room of a day's sessions"`
	Node              string   `key:"node" env:"NODE" flag:"node" doc:"what this server is called in the audit log, in metrics and in the console; empty: the machine's name"`
	Console           bool     `key:"console.enabled" env:"CONSOLE_ENABLED" flag:"console" doc:"serve the console at /console/; afterlogin console link makes a way in"`
	ConsoleIndex      int      `key:"console.index" env:"CONSOLE_INDEX" flag:"console-index" doc:"how many sessions the search holds in memory, at about 100 bytes each; with more, or with 0, it looks through the store"`
	AuditKeep         Duration `key:"audit.keep" env:"AUDIT_KEEP" flag:"audit-keep" doc:"how long the audit log below the data directory is kept; 0: there is none"`
	WebhooksAllow     []string `key:"webhooks.allow" env:"WEBHOOKS_ALLOW" flag:"webhooks-allow" doc:"host names or networks that webhooks may be sent to although they are private, as 10.1.0.0/16; public ones always may"`
	WebhooksGiveUp    Duration `key:"webhooks.give_up" env:"WEBHOOKS_GIVE_UP" flag:"webhooks-give-up" doc:"how long an event is sent again and again before it becomes a dead letter"`
	TracingPeers      []string `key:"tracing.peers" env:"TRACING_PEERS" flag:"trace-peer" doc:"addresses or networks of callers whose traceparent is continued, and who decide what is traced; not of a proxy that hands on what strangers send"`
	Account           bool     `key:"account.enabled" env:"ACCOUNT_ENABLED" flag:"account" doc:"serve the page where people see where they are signed in, at /account/sessions"`
	AccountStylesheet string   `key:"account.stylesheet" env:"ACCOUNT_STYLESHEET" flag:"account-stylesheet" doc:"file with CSS for that page, of at most 64 KiB; docs/account.md names its properties"`
	AccountProduct    string   `key:"account.product" env:"ACCOUNT_PRODUCT" flag:"account-product" doc:"what people are signed in to, as the heading of that page has it; empty: the host"`
	GeoDatabase       string   `key:"geoip.database" env:"GEOIP_DATABASE" flag:"geoip" doc:"file in the MaxMind DB format (.mmdb) that says roughly where an address is: DB-IP Lite, GeoLite2, IPinfo Lite; it is read again when it changes"`
	GeoAttribution    string   `key:"geoip.attribution" env:"GEOIP_ATTRIBUTION" flag:"geoip-attribution" doc:"what pages with places say of their source, as Places by Example https://example.com; empty: what the database's license asks for"`
	SessionLimit      int      `key:"session_limits.session.max" env:"SESSION_LIMITS_SESSION_MAX" flag:"session-limit" doc:"how many sessions a person may have at once, 1 to 100; 0: any number"`
	SessionAtLimit    string   `key:"session_limits.session.at_limit" env:"SESSION_LIMITS_SESSION_AT_LIMIT" flag:"session-at-limit" doc:"what one more does: end_oldest ends the one that was made first, deny refuses the new one"`
	APIKeyLimit       int      `key:"session_limits.api_key.max" env:"SESSION_LIMITS_API_KEY_MAX" flag:"api-key-limit" doc:"the same for API keys; a rotation needs room for two"`
	APIKeyAtLimit     string   `key:"session_limits.api_key.at_limit" env:"SESSION_LIMITS_API_KEY_AT_LIMIT" flag:"api-key-at-limit" doc:"end_oldest or deny"`
	GrantLimit        int      `key:"session_limits.refresh_token.max" env:"SESSION_LIMITS_REFRESH_TOKEN_MAX" flag:"grant-limit" doc:"the same for OAuth grants that outlive the session (offline_access)"`
	GrantAtLimit      string   `key:"session_limits.refresh_token.at_limit" env:"SESSION_LIMITS_REFRESH_TOKEN_AT_LIMIT" flag:"grant-at-limit" doc:"end_oldest or deny"`
	RehearsalSessions int      `key:"rehearsal.session_limits.session" env:"REHEARSAL_SESSION_LIMITS_SESSION" flag:"rehearse-session-limit" doc:"count whom a limit of so many sessions would sign out, 1 to 100, without doing it; 0: rehearse none"`
	RehearsalAPIKeys  int      `key:"rehearsal.session_limits.api_key" env:"REHEARSAL_SESSION_LIMITS_API_KEY" flag:"rehearse-api-key-limit" doc:"the same for API keys"`
	RehearsalGrants   int      `key:"rehearsal.session_limits.refresh_token" env:"REHEARSAL_SESSION_LIMITS_REFRESH_TOKEN" flag:"rehearse-grant-limit" doc:"the same for OAuth grants that outlive the session"`
	CacheSize         int      `key:"cache_size" env:"CACHE_SIZE" flag:"cache-size" doc:"how many sessions are kept in memory, at about 700 bytes each"`

	// Policies are the lifetimes by policy name: the built-in policies, with what was changed, and new ones.
	Policies map[string]afterlogin.Policy `env:"-"`
	// RehearsalPolicies are what is stricter in a rehearsal, by policy and field.
	RehearsalPolicies map[string]map[string]time.Duration `env:"-"`
	// Apps are the applications of the file. GatewayApps returns them with those that Origins names.
	Apps []App `env:"-"`
	// Providers are the OpenID Connect providers of the file. SignInProviders returns them with their secrets.
	Providers []Provider `env:"-"`
	// Clients are the OAuth clients of the file. OAuthClients returns them with their secrets.
	Clients []Client `env:"-"`
}

// Default returns the settings of a server that was told nothing.
func Default() Config {
	return Config{
		Listen:    "127.0.0.1:7070",
		Data:      "./afterlogin-data",
		Drain:     Duration(500 * time.Millisecond),
		Shutdown:  Duration(10 * time.Second),
		LogLevel:  "info",
		LogFormat: "auto",
		CacheSize: 100_000,
		KeepEnded: Duration(24 * time.Hour),

		Console:        true,
		ConsoleIndex:   2_000_000,
		AuditKeep:      Duration(400 * 24 * time.Hour),
		WebhooksGiveUp: Duration(3 * 24 * time.Hour),

		Account: true,

		SessionAtLimit: afterlogin.EndOldest.String(),
		APIKeyAtLimit:  afterlogin.DenyNew.String(),
		GrantAtLimit:   afterlogin.EndOldest.String(),

		JWTAlgorithm: string(jwt.EdDSA),

		Proxies:     []string{"127.0.0.0/8", "::1/128"},
		Users:       true,
		PasswordMin: 15,
		Remember:    true,

		Policies: afterlogin.DefaultPolicies(),
	}
}

// A Setting describes one field of Config.
type Setting struct {
	Key    string // in the file; empty if it cannot stand there
	Env    string // the whole name of the environment variable
	Flag   string // without dashes; empty if there is none
	Doc    string
	Secret bool // never shown
	// Address says that it is an address which may have a password in it: shown without that.
	Address bool
	field   int // its index in Config
}

// Name is what the setting is called in output: its key, or the variable if it has none.
func (s Setting) Name() string {
	if s.Key != "" {
		return s.Key
	}
	return s.Env
}

// pointer returns a pointer to the setting's field in c.
func (s Setting) pointer(c *Config) any {
	return reflect.ValueOf(c).Elem().Field(s.field).Addr().Interface()
}

// Text returns the setting's value in c as it would stand in the file. A secret is masked.
func (s Setting) Text(c *Config) string {
	if s.Secret {
		if *s.pointer(c).(*string) == "" {
			return ""
		}
		return "[secret]"
	}
	switch p := s.pointer(c).(type) {
	case *string:
		if s.Address && *p != "" {
			return backend.Name(*p)
		}
		return *p
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *Duration:
		return p.String()
	case *[]string:
		return "[" + strings.Join(*p, ", ") + "]"
	}
	panic("config: no text for " + s.Name())
}

// Settings returns every setting but the policies', in the order of Config.
func Settings() []Setting { return slices.Clone(settings) }

var settings = func() (all []Setting) {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("env") == "-" {
			continue
		}
		all = append(all, Setting{
			Key: f.Tag.Get("key"), Env: Prefix + f.Tag.Get("env"), Flag: f.Tag.Get("flag"),
			Doc: f.Tag.Get("doc"), Secret: f.Tag.Get("secret") == "true", Address: f.Tag.Get("secret") == "address", field: i,
		})
	}
	return all
}()

// policyFields are the durations of a policy by their key in the file.
var policyFields = []struct {
	key, doc string
	field    func(*afterlogin.Policy) *time.Duration
}{
	{"idle", "ends a session that long after its last use", func(p *afterlogin.Policy) *time.Duration { return &p.Idle }},
	{"absolute", "ends it that long after its start, however it is used", func(p *afterlogin.Policy) *time.Duration { return &p.Absolute }},
	{"renewal", "after how long its token is replaced", func(p *afterlogin.Policy) *time.Duration { return &p.Renewal }},
	{"grace", "for how long a replaced token is still good", func(p *afterlogin.Policy) *time.Duration { return &p.Grace }},
}

// check reports what is wrong with the settings taken together.
func (l *Loaded) check() {
	c := &l.Config
	if err := checkListen(c.Listen); err != nil {
		l.fault("listen", "%v", err)
	} else if !Loopback(c.Listen) && c.TLSCert == "" && !c.BehindProxy {
		l.faultHint("listen", strings.Join([]string{
			"one of",
			"  --tls-cert FILE --tls-key FILE  to serve HTTPS",
			"  --behind-proxy                  if a proxy in front does TLS",
			fmt.Sprintf("  %-30s  to serve this machine only", "--listen 127.0.0.1:"+port(c.Listen)),
		}, "\n"), "refusing to listen on %s without TLS: tokens and API keys would cross the network in clear text", c.Listen)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		l.faultHint("tls.cert", "name both files", "tls.cert and tls.key belong together, and one is missing")
	}
	if c.Data == "" {
		l.fault("data", "the data directory has no name")
	}
	l.checkStore()
	for _, h := range c.Hosts {
		if !validHost(h) {
			l.faultHint("hosts", "write the name alone, auth.example.com", "%q is not a host name", h)
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		l.fault("log.level", "%q is not debug, info, warn or error", c.LogLevel)
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.LogFormat) {
		l.fault("log.format", "%q is not auto, text or json", c.LogFormat)
	}
	if c.CacheSize < 0 || c.CacheSize > 100_000_000 {
		l.fault("cache_size", "%d is not between 0 and 100000000", c.CacheSize)
	}
	l.checkRange("keep_ended", c.KeepEnded, 0, Duration(400*24*time.Hour))
	l.checkOperation()
	l.checkRange("drain", c.Drain, 0, Duration(10*time.Minute))
	l.checkRange("shutdown_timeout", c.Shutdown, Duration(time.Millisecond), Duration(10*time.Minute))
	if c.MasterKey != "" && c.MasterKeyFile != "" {
		l.faultHint("master_key_file", "keep one of them", "%sMASTER_KEY is set, too", Prefix)
	}
	l.checkOAuth()
	l.checkGateway()
	l.checkSignIn()
	l.checkAccount()
	l.checkLimits()
	for _, name := range sortedPolicies(c.Policies) {
		if err := afterlogin.CheckPolicy(name, c.Policies[name]); err != nil {
			l.fault(l.policyKey(name, err.Error()), "%v", err)
		}
	}
}

// checkStore reports what is wrong with the store's address. No message repeats it.
func (l *Loaded) checkStore() {
	c := &l.Config
	switch {
	case c.Store != "" && c.StoreFile != "":
		l.faultHint("store_file", "keep one of them", "store is set, too")
	case c.Store != "":
		if err := backend.Check(c.Store); err != nil {
			l.faultHint("store", "the forms are "+backend.Forms, "%v", err)
		} else if strings.HasPrefix(l.Source("store"), "flag ") && backend.HasPassword(c.Store) {
			l.Warnings = append(l.Warnings, "the password in --store can be read by everybody on this machine, in the list of processes; set "+Prefix+"STORE, or put the address into a file and name it with --store-file")
		}
	}
}

func (l *Loaded) checkRange(key string, d, low, high Duration) {
	if d < low || d > high {
		l.fault(key, "%v is not between %v and %v", d, low, high)
	}
}

// policyKey names the setting that a policy's error is about: the first word of it, if that is a field.
func (l *Loaded) policyKey(name, msg string) string {
	key := "policies." + name
	first, _, _ := strings.Cut(msg, " ")
	first = strings.TrimSuffix(first, ":")
	for _, f := range policyFields {
		if _, set := l.places[key+"."+f.key]; f.key == first && set {
			return key + "." + f.key
		}
	}
	for _, f := range policyFields { // the field it is about has its default: name one that was set
		if _, set := l.places[key+"."+f.key]; set {
			return key + "." + f.key
		}
	}
	return key
}

func sortedPolicies(m map[string]afterlogin.Policy) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// PolicyValues yields key and value of every policy's settings, in order.
func (c *Config) PolicyValues(yield func(key, value string) bool) {
	for _, name := range sortedPolicies(c.Policies) {
		p := c.Policies[name]
		for _, f := range policyFields {
			if !yield(fmt.Sprintf("policies.%s.%s", name, f.key), Duration(*f.field(&p)).String()) {
				return
			}
		}
	}
	c.rehearsalValues(yield)
}
