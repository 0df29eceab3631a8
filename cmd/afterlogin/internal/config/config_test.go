package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/afterlogin/afterlogin"
)

// load writes the file, if there is a text, and loads it with the variables and the arguments.
func load(t *testing.T, text string, environ []string, args ...string) (*Loaded, error) {
	t.Helper()
	file := ""
	if text != "" {
		file = filepath.Join(t.TempDir(), "afterlogin.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags := Bind(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(file, environ, flags)
}

// samples is a value for every setting that is not its default. A setting without one fails the test.
var samples = map[string]struct {
	text string
	want any
}{
	"listen":                {"127.0.0.1:9090", "127.0.0.1:9090"},
	"data":                  {"/var/lib/afterlogin", "/var/lib/afterlogin"},
	"store":                 {"redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"},
	"store_file":            {"/run/secrets/store", "/run/secrets/store"},
	"hosts":                 {"a.example,b.example", []string{"a.example", "b.example"}},
	"behind_proxy":          {"true", true},
	"tls.cert":              {"cert.pem", "cert.pem"},
	"tls.key":               {"key.pem", "key.pem"},
	"master_key_file":       {"/run/secrets/master", "/run/secrets/master"},
	"AFTERLOGIN_MASTER_KEY": {"c2VjcmV0", "c2VjcmV0"},
	"drain":                 {"3s", Duration(3 * time.Second)},
	"shutdown_timeout":      {"1m30s", Duration(90 * time.Second)},
	"log.level":             {"debug", "debug"},
	"log.format":            {"json", "json"},
	"cache_size":            {"12", 12},
	"keep_ended":            {"7d", Duration(7 * 24 * time.Hour)},
	"node":                  {"east-1", "east-1"},
	"console.enabled":       {"false", false},
	"console.index":         {"1000", 1000},
	"audit.keep":            {"30d", Duration(30 * 24 * time.Hour)},
	"webhooks.allow":        {"10.1.0.0/16,hooks.example.com", []string{"10.1.0.0/16", "hooks.example.com"}},
	"tracing.peers":         {"10.2.0.0/16,10.0.0.7", []string{"10.2.0.0/16", "10.0.0.7"}},
	"webhooks.give_up":      {"1h", Duration(time.Hour)},
	"issuer":                {"https://auth.example.com", "https://auth.example.com"},
	"sign_in_url":           {"/login", "/login"},
	"jwt_algorithm":         {"ES256", "ES256"},
	"api_keys.imported":     {"true", true},
	"gateway.origins":       {"https://a.example,http://b.localhost:8080", []string{"https://a.example", "http://b.localhost:8080"}},
	"gateway.proxies":       {"10.0.0.0/8,10.1.1.1", []string{"10.0.0.0/8", "10.1.1.1"}},
	"sign_in.users":         {"false", false},
	"sign_in.password_min":  {"10", 10},
	"sign_in.password_acr":  {"urn:example:silver", "urn:example:silver"},
	"sign_in.remember":      {"false", false},
	"sign_in.return_to":     {"https://a.example,https://b.example", []string{"https://a.example", "https://b.example"}},
	"account.enabled":       {"false", false},
	"account.stylesheet":    {"/etc/afterlogin/account.css", "/etc/afterlogin/account.css"},
	"account.product":       {"Example", "Example"},
	"geoip.database":        {"/var/lib/places.mmdb", "/var/lib/places.mmdb"},
	"geoip.attribution":     {"Places by us", "Places by us"},

	"session_limits.session.max":             {"5", 5},
	"session_limits.session.at_limit":        {"deny", "deny"},
	"session_limits.api_key.max":             {"10", 10},
	"session_limits.api_key.at_limit":        {"end_oldest", "end_oldest"},
	"session_limits.refresh_token.max":       {"20", 20},
	"session_limits.refresh_token.at_limit":  {"deny", "deny"},
	"rehearsal.session_limits.session":       {"3", 3},
	"rehearsal.session_limits.api_key":       {"4", 4},
	"rehearsal.session_limits.refresh_token": {"6", 6},
}

// companion is what has to be set with it.
var companion = map[string]string{"tls.cert": "AFTERLOGIN_TLS_KEY=key.pem", "tls.key": "AFTERLOGIN_TLS_CERT=cert.pem", "geoip.attribution": "AFTERLOGIN_GEOIP_DATABASE=places.mmdb"}

func TestEverySettingFromEverywhere(t *testing.T) {
	for _, s := range Settings() {
		sample, ok := samples[s.Name()]
		if !ok {
			t.Errorf("%s has no sample here", s.Name())
			continue
		}
		if s.Doc == "" {
			t.Errorf("%s has no doc", s.Name())
		}
		var with []string
		if c := companion[s.Name()]; c != "" {
			with = append(with, c)
		}
		check := func(from string, l *Loaded, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s from %s: %v", s.Name(), from, err)
				return
			}
			if got := reflect.ValueOf(s.pointer(&l.Config)).Elem().Interface(); !reflect.DeepEqual(got, sample.want) {
				t.Errorf("%s from %s: %v, want %v", s.Name(), from, got, sample.want)
			}
			if got := l.Source(s.Name()); !strings.HasPrefix(got, from) && !strings.Contains(got, from) {
				t.Errorf("%s: source %q, want %q", s.Name(), got, from)
			}
			if s.Secret && strings.Contains(s.Text(&l.Config), sample.text) {
				t.Errorf("%s is not masked", s.Name())
			}
		}
		l, err := load(t, "", append(with, s.Env+"="+sample.text))
		check("env "+s.Env, l, err)
		if s.Flag != "" {
			l, err = load(t, "", append(with, s.Env+"=nonsense:1:2")[:len(with)], "--"+s.Flag+"="+sample.text)
			check("flag --"+s.Flag, l, err)
		}
		if s.Key != "" {
			l, err = load(t, inYAML(s.Key, sample.text), with)
			check("afterlogin.yaml:", l, err)
		}
	}
}

// inYAML writes the setting as a file.
func inYAML(key, text string) string {
	if strings.Contains(text, ",") {
		text = "[" + text + "]"
	}
	var b strings.Builder
	for i, part := range strings.Split(key, ".") {
		if i > 0 {
			b.WriteString("\n" + strings.Repeat("  ", i))
		}
		b.WriteString(part + ":")
	}
	return b.String() + " " + text + "\n"
}

func TestPrecedence(t *testing.T) {
	file := "listen: 127.0.0.1:1\ndrain: 1s\nlog: {level: warn}\n"
	l, err := load(t, file, []string{"AFTERLOGIN_LISTEN=127.0.0.1:2", "AFTERLOGIN_DRAIN=2s"}, "--listen=127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Listen != "127.0.0.1:3" || l.Config.Drain != Duration(2*time.Second) || l.Config.LogLevel != "warn" || l.Config.LogFormat != "auto" {
		t.Errorf("got %+v", l.Config)
	}
	for key, want := range map[string]string{"listen": "flag --listen", "drain": "env AFTERLOGIN_DRAIN", "log.format": "default"} {
		if got := l.Source(key); got != want {
			t.Errorf("source of %s: %q, want %q", key, got, want)
		}
	}
}

func TestPolicies(t *testing.T) {
	l, err := load(t, "policies:\n  browser:\n    idle: 30m\n  kiosk:\n    absolute: 8h\n    idle: 5m\n    renewal: 2m\n",
		[]string{"AFTERLOGIN_POLICY_BROWSER_ABSOLUTE=12h", "AFTERLOGIN_POLICY_API_KEY_ABSOLUTE=30d"})
	if err != nil {
		t.Fatal(err)
	}
	want := afterlogin.DefaultPolicies()
	p := want["browser"]
	p.Idle, p.Absolute = 30*time.Minute, 12*time.Hour
	want["browser"] = p
	k := want["api-key"]
	k.Absolute = 30 * 24 * time.Hour
	want["api-key"] = k
	kiosk := afterlogin.DefaultPolicies()["browser"]
	kiosk.Absolute, kiosk.Idle, kiosk.Renewal = 8*time.Hour, 5*time.Minute, 2*time.Minute
	kiosk.Grace = p.Grace
	want["kiosk"] = kiosk
	if !reflect.DeepEqual(l.Config.Policies, want) {
		t.Errorf("got %+v\nwant %+v", l.Config.Policies, want)
	}
	if got := l.Source("policies.browser.absolute"); got != "env AFTERLOGIN_POLICY_BROWSER_ABSOLUTE" {
		t.Errorf("source %q", got)
	}
}

func TestBadFiles(t *testing.T) {
	tests := []struct {
		name, text string
		line, col  int
		want, hint string
	}{
		{"unknown key", "listen: 127.0.0.1:1\nlissten: x\n", 2, 1, `unknown key "lissten"`, `did you mean "listen"?`},
		{"unknown key, nothing near", "frobnicate: 1\n", 1, 1, `unknown key "frobnicate"`, "known are listen, data"},
		{"unknown key in a section", "log:\n  levle: info\n", 2, 3, `unknown key "levle" in log`, `did you mean "level"?`},
		{"unknown key in a policy", "policies:\n  browser:\n    idel: 30m\n", 3, 5, `unknown key "idel" in policies.browser`, `did you mean "idle"?`},
		{"case matters", "Listen: x\n", 1, 1, `unknown key "Listen"`, `did you mean "listen"?`},
		{"bad duration", "drain: banana\n", 1, 8, `drain: "banana" is not a duration: write 30s`, ""},
		{"duration without a unit", "shutdown_timeout: 30\n", 1, 19, `"30" has no unit`, ""},
		{"bad duration in a policy", "policies:\n  browser:\n    idle: 1w\n", 3, 11, `policies.browser.idle: "1w" is not a duration`, ""},
		{"negative duration", "drain: -3s\n", 1, 8, `"-3s" is not a duration`, ""},
		{"number for a text", "listen: 7070\n", 1, 9, "want a text, got the number 7070", ""},
		{"text for a truth", "behind_proxy: yes please\n", 1, 15, `want true or false, got the text "yes please"`, ""},
		{"text for a number", "cache_size: many\n", 1, 13, `want a whole number, got the text "many"`, ""},
		{"text for a list", "hosts: a.example\n", 1, 8, `want a list, got the text "a.example"`, ""},
		{"number in a list", "hosts: [a.example, 3]\n", 1, 20, "got the number 3 in it", ""},
		{"list for a section", "log: [a]\n", 1, 6, "want keys and values, got a list", "write key: value"},
		{"section for a text", "listen:\n  host: x\n", 2, 3, "want a text, got a section", ""},
		{"duplicate key", "drain: 1s\nlisten: 127.0.0.1:1\ndrain: 2s\n", 3, 1, `"drain" stands here again; it is in line 1 already`, "keep one"},
		{"a secret", "master_key: hunter2hunter2\n", 1, 1, "a secret does not belong into this file", ""},
		{"an anchor", "listen: &a 127.0.0.1:1\n", 1, 9, "anchors", ""},
		{"two documents", "drain: 1s\n---\ndrain: 2s\n", 3, 1, "second document", ""},
		{"a scalar", "hello\n", 1, 1, "want keys and values", ""},
		{"not YAML", "listen: [\n", 1, 9, "not YAML", ""},
		{"too deep", strings.Repeat("[", 10_000), 1, 1, "nested deeper", ""},
		{"bad policy name", "policies:\n  Kiosk!: {idle: 1m}\n", 2, 3, `"Kiosk!" is not a name`, ""},
		{"policy against the rules", "policies:\n  browser:\n    idle: 25h\n", 3, 11, "idle: 25h0m0s is longer than absolute", ""},
		{"policy against the rules, the other key", "policies:\n  browser:\n    absolute: 30m\n", 3, 15, "is longer than absolute", ""},
		{"bad address", "listen: nowhere\n", 1, 9, `"nowhere" is not host:port`, ""},
		{"bad port", "listen: 127.0.0.1:99999\n", 1, 9, `"99999" is not a port`, ""},
		{"open to the world", "listen: 0.0.0.0:7070\n", 1, 9, "refusing to listen on 0.0.0.0:7070 without TLS", "--behind-proxy"},
		{"half of TLS", "tls:\n  cert: a.pem\n", 2, 9, "belong together", "name both"},
		{"bad level", "log:\n  level: loud\n", 2, 10, `"loud" is not debug, info, warn or error`, ""},
		{"bad format", "log:\n  format: xml\n", 2, 11, `"xml" is not auto, text or json`, ""},
		{"bad host", "hosts: ['http://a.example']\n", 1, 8, `"http://a.example" is not a host name`, "name alone"},
		{"drain out of range", "drain: 2h\n", 1, 8, "2h is not between 0s and 10m", ""},
		{"cache out of range", "cache_size: -1\n", 1, 13, "-1 is not between 0", ""},
		{"kept too long", "keep_ended: 401d\n", 1, 13, "401d is not between 0s and 400d", ""},
		{"bad node", "node: 'a b'\n", 1, 7, "want 1 to 64 bytes without spaces", ""},
		{"index out of range", "console:\n  index: -1\n", 2, 10, "-1 is not between 0", ""},
		{"audit kept too short", "audit:\n  keep: 1h\n", 2, 9, "1h is under a day", ""},
		{"bad trace peer", "tracing:\n  peers: [the-proxy]\n", 2, 10, `"the-proxy" is neither an address nor a network`, "10.0.0.0/24"},
		{"bad webhook network", "webhooks:\n  allow: ['10.1.0.0/99']\n", 2, 10, `"10.1.0.0/99" is none of these`, "10.1.0.0/16"},
		{"empty data", "data: ''\n", 1, 7, "has no name", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.text, nil)
			var faults Faults
			if !errors.As(err, &faults) || len(faults) != 1 {
				t.Fatalf("got %v, want one fault", err)
			}
			f := faults[0]
			if f.Line != tt.line || f.Column != tt.col || !strings.Contains(f.Error(), tt.want) || !strings.Contains(f.Hint, tt.hint) {
				t.Errorf("got %d:%d %q, hint %q\nwant %d:%d %q, hint %q", f.Line, f.Column, f, f.Hint, tt.line, tt.col, tt.want, tt.hint)
			}
			if tt.name == "a secret" {
				if strings.Contains(f.Error()+f.Excerpt+f.Hint, "hunter2") {
					t.Errorf("the secret is shown: %+v", f)
				}
			} else if !strings.Contains(f.Excerpt, "^") {
				t.Errorf("no excerpt: %q", f.Excerpt)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "lissten: x\ndrain: banana\nlog:\n  levle: info\npolicies:\n  browser: {idle: 3}\n",
		[]string{"AFTERLOGIN_CACHE_SIZE=many", "AFTERLOGIN_POLICY_BROWSER_IDEL=3m", "AFTERLOGIN_SHUTDOWN_TIMEOUT=soon", "AFTERLOGIN_BEHIND_PROXY=perhaps"})
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 8 {
		t.Fatalf("got %d faults, want 8:\n%v", len(faults), err)
	}
	for _, want := range []string{
		"env AFTERLOGIN_CACHE_SIZE: cache_size: want a whole number",
		"env AFTERLOGIN_BEHIND_PROXY: behind_proxy: want true or false",
		`env AFTERLOGIN_SHUTDOWN_TIMEOUT: shutdown_timeout: "soon" is not a duration`,
		`env AFTERLOGIN_POLICY_BROWSER_IDEL: unknown key "idel" in policies.browser`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

func TestExcerpt(t *testing.T) {
	_, err := load(t, "policies:\n  browser:\n    idle: 1h\n    renwal: 5m\n    grace: 30s\n", nil)
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	want := "    2 |   browser:\n    3 |     idle: 1h\n>   4 |     renwal: 5m\n            ^\n    5 |     grace: 30s"
	if got := faults[0].Excerpt; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	l, err := load(t, "", []string{
		"AFTERLOGIN_LISTEN=", // empty: not set
		"AFTERLOGIN_LISTN=127.0.0.1:1",
		"AFTERLOGIN_PORT_7070_TCP=tcp://10.0.0.1:7070", "AFTERLOGIN_SERVICE_HOST=10.0.0.1", // a container platform's
		"AFTERLOGIN_SERVER=http://127.0.0.1:7070",
		"AFTERLOGIN_HOSTS=a.example, b.example",
		"LISTEN=0.0.0.0:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Listen != "127.0.0.1:7070" || !slices.Equal(l.Config.Hosts, []string{"a.example", "b.example"}) {
		t.Errorf("got %+v", l.Config)
	}
	if want := []string{"AFTERLOGIN_LISTN is not a setting; did you mean AFTERLOGIN_LISTEN?"}; !slices.Equal(l.Warnings, want) {
		t.Errorf("warnings %q, want %q", l.Warnings, want)
	}
}

func TestLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "LOCALHOST:1": true,
		"[::ffff:127.0.0.1]:1": true,
		"shop.localhost:1":     false, // DNS may send it elsewhere
		":1":                   false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "example.com:1": false,
		"localhost.example.com:1": false, "127.0.0.1.example.com:1": false, "nonsense": false,
	} {
		if got := Loopback(addr); got != want {
			t.Errorf("Loopback(%q) = %v", addr, got)
		}
	}
	for host, want := range map[string]bool{
		"shop.localhost": true, "SHOP.localhost.": true, "localhost": true, "127.0.0.1": true,
		"localhost.example.com": false, "shoplocalhost": false, "10.0.0.1": false, "": false,
	} {
		if got := LoopbackName(host); got != want {
			t.Errorf("LoopbackName(%q) = %v", host, got)
		}
	}
	if _, err := load(t, "listen: x.localhost:1\n", nil); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("listening on a name below localhost: %v", err)
	}
	for _, ok := range []string{"listen: 0.0.0.0:1\nbehind_proxy: true\n", "listen: ':1'\ntls: {cert: a, key: b}\n"} {
		if _, err := load(t, ok, nil); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "500ms": 500 * time.Millisecond, "0s": 0, "0": 0, "1h30m": 90 * time.Minute,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v", text, got, err)
		}
		again, err := ParseDuration(Duration(got).String())
		if err != nil || again != got {
			t.Errorf("%q comes back from %q as %v, %v", text, Duration(got), again, err)
		}
	}
	for _, text := range []string{"", "banana", "30", "-1h", "+1h", "1d-2h", "d", "1.5d", "99999999999999d", "1w", "1h1d", strings.Repeat("1", 1000)} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, d)
		}
	}
	for d, want := range map[time.Duration]string{day: "1d", 36 * time.Hour: "1d12h", time.Hour: "1h", 90 * time.Second: "1m30s", 0: "0s"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// The example, with every comment sign removed, is the default configuration.
func TestExample(t *testing.T) {
	var lines []string
	for line := range strings.Lines(Example()) { // "# x" is a comment, "#x" and "#  x" are settings
		if strings.HasPrefix(line, "#") && !(len(line) > 2 && line[1] == ' ' && line[2] != ' ') {
			line = line[1:]
		}
		lines = append(lines, line)
	}
	if _, err := load(t, Example(), nil); err != nil {
		t.Errorf("the example as it is: %v", err)
	}
	text := strings.Join(lines, "")
	l, err := load(t, text, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !reflect.DeepEqual(l.Config, Default()) {
		t.Errorf("the example is not the default\ngot  %+v\nwant %+v", l.Config, Default())
	}
	for _, s := range Settings() {
		if s.Key != "" && l.Source(s.Key) == "default" {
			t.Errorf("%s does not stand in the example", s.Key)
		}
	}
}

func TestNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	os.WriteFile(big, []byte(strings.Repeat("#", maxFile+1)), 0o600)
	if _, err := Load(big, nil, nil); err == nil || !strings.Contains(err.Error(), "is over 65536 bytes") {
		t.Errorf("got %v", err)
	}
}

// FuzzFile checks that no file makes the parser panic or hang, and that every fault has a text and a place.
func FuzzFile(f *testing.F) {
	for _, s := range []string{Example(), "listen: 127.0.0.1:1\n", "policies: {browser: {idle: 1h}}", "a: &a [*a]", "? x\n: y\n", "--- |\n x\n", "%YAML 1.2\n---\n", "{[}]", "\xff\xfe", "- - -", "<<: *x", "a: !!binary x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		l := &Loaded{Config: Default(), file: "fuzz.yaml", source: []byte(text), places: make(map[string]place)}
		l.parse()
		for _, e := range l.faults {
			if e.Error() == "" || e.Line < 1 {
				t.Errorf("a fault without a text or a place: %+v", e)
			}
		}
		if len(l.faults) == 0 {
			l.check()
		}
	})
}

func FuzzDuration(f *testing.F) {
	f.Add("30d")
	f.Add("1d12h30m")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Errorf("%q is %v", text, d)
		}
		if again, err := ParseDuration(Duration(d).String()); err != nil || again != d {
			t.Errorf("%q: %v comes back as %v, %v", text, d, again, err)
		}
	})
}

// However a secret that does not belong there is quoted, no message repeats the file.
func TestASecretInTheFileIsNotShown(t *testing.T) {
	for _, text := range []string{
		`{"master_key": "TOPSECRET", "listne": "x"}`,
		"\"master_key\": TOPSECRET\nlistne: x\n",
		"master_key : TOPSECRET\nlistne: x\n",
	} {
		l := &Loaded{source: []byte(text)}
		if got := l.excerpt(1, 2); got != "" {
			t.Errorf("%q is shown: %s", text, got)
		}
	}
}

// What the settings name is looked at, too, and every mistake in it is reported at its setting.
func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	junk, long := filepath.Join(dir, "junk"), filepath.Join(dir, "long")
	os.WriteFile(junk, []byte("hunter2"), 0o600)
	os.WriteFile(long, make([]byte, maxSecret+1), 0o600)
	good := strings.Repeat("A", 43) + "="
	key := filepath.Join(dir, "key")
	os.WriteFile(key, []byte(good+"\n"), 0o600)
	none := filepath.Join(dir, "none")
	for _, tt := range []struct {
		args, environ []string
		want          []string // a part of each fault
	}{
		{nil, nil, nil},
		{[]string{"--master-key-file", key}, nil, nil},
		{nil, []string{"AFTERLOGIN_MASTER_KEY=" + good}, nil},
		{nil, []string{"AFTERLOGIN_MASTER_KEY=hunter2"}, []string{"env AFTERLOGIN_MASTER_KEY: AFTERLOGIN_MASTER_KEY: keyring: a master key is 32 random bytes"}},
		{[]string{"--master-key-file", none}, nil, []string{"flag --master-key-file: master_key_file: master key: open " + none}},
		{[]string{"--master-key-file", junk}, nil, []string{"flag --master-key-file: master_key_file: keyring: a master key is"}},
		{[]string{"--master-key-file", long}, nil, []string{"is over"}},
		{[]string{"--tls-cert", none, "--tls-key", junk}, nil, []string{"flag --tls-cert: tls.cert: TLS certificate: open " + none}},
		{[]string{"--tls-cert", junk, "--tls-key", none}, nil, []string{"flag --tls-key: tls.key: TLS key: open " + none}},
		{[]string{"--tls-cert", junk, "--tls-key", junk, "--master-key-file", none}, nil, []string{"flag --tls-cert: tls.cert: TLS certificate: tls: failed to find", "master key: open"}},
	} {
		l, err := load(t, "", tt.environ, tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		var got Faults
		if err := l.CheckFiles(); err != nil && !errors.As(err, &got) {
			t.Errorf("%v: %v is not Faults", tt.args, err)
		}
		ok := len(got) == len(tt.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i].Error(), tt.want[i])
		}
		if !ok || strings.Contains(got.Error(), "hunter2") {
			t.Errorf("%v %v: got %q, want %q", tt.args, tt.environ, got.Error(), tt.want)
		}
	}
}

func TestPasswordClass(t *testing.T) {
	for text, good := range map[string]bool{
		"silver": true, "https://refeds.org/profile/sfa": true, "": true, strings.Repeat("x", maxClass): true,
		"two words": false, `a"b`: false, "ä": false, strings.Repeat("x", maxClass+1): false,
	} {
		_, err := load(t, "", nil, "--password-acr="+text)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "is not a class") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
