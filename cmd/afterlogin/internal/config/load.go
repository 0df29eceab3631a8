package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/pflag"

	"github.com/afterlogin/afterlogin"
)

// maxFile is the greatest size of a configuration file, in bytes.
const maxFile = 64 << 10

// A Loaded is settings and where they came from.
type Loaded struct {
	Config Config
	// Warnings are what may be a mistake, such as a variable with an unknown name.
	Warnings []string

	file   string
	source []byte
	places map[string]place // of everything that is not default, by key
	faults Faults
}

// place is where a value came from.
type place struct {
	from      string // "env AFTERLOGIN_LISTEN", "flag --listen", "afterlogin.yaml:3"
	line, col int    // in the file, 0 for the others
}

// Source says where the value of a key came from: "default", "env NAME", "flag --name" or "file:line".
func (l *Loaded) Source(key string) string {
	if p, ok := l.places[key]; ok {
		return p.from
	}
	return "default"
}

// Flags are the settings on a command line.
type Flags struct {
	values Config
	set    *pflag.FlagSet
}

// Bind adds a flag for every setting that has one to the set.
func Bind(set *pflag.FlagSet) *Flags {
	f := &Flags{values: Default(), set: set}
	for _, s := range settings {
		if s.Flag == "" {
			continue
		}
		switch p := s.pointer(&f.values).(type) {
		case *string:
			set.StringVar(p, s.Flag, *p, s.Doc)
		case *bool:
			set.BoolVar(p, s.Flag, *p, s.Doc)
		case *int:
			set.IntVar(p, s.Flag, *p, s.Doc)
		case *Duration:
			set.TextVar(p, s.Flag, *p, s.Doc)
		case *[]string:
			set.StringSliceVar(p, s.Flag, *p, s.Doc)
		}
	}
	return f
}

// Load reads the settings: from the file, which may be "" for none, over the defaults; from the environment, in the form
// of os.Environ, over that; from the flags, which may be nil, over that. If anything is wrong the error is Faults, and
// what was loaded is returned with it.
func Load(file string, environ []string, flags *Flags) (*Loaded, error) {
	l := &Loaded{Config: Default(), file: file, places: make(map[string]place)}
	if file != "" {
		if err := l.readFile(); err != nil {
			return l, err
		}
	}
	l.readEnv(environ)
	l.readFlags(flags)
	if len(l.faults) == 0 { // rules about values that did not parse only repeat the complaint
		l.check()
	}
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b *Fault) int { return a.Line - b.Line })
		return l, l.faults
	}
	return l, nil
}

func (l *Loaded) readFile() error {
	f, err := os.Open(l.file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	if l.source, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(l.source) > maxFile {
		return fmt.Errorf("configuration: %s is over %d bytes", l.file, maxFile)
	}
	l.parse()
	return nil
}

func (l *Loaded) readEnv(environ []string) {
	vars := make(map[string]string)
	for _, e := range environ {
		// An empty variable is one that is not set: shells and compose files make them by accident.
		if k, v, _ := strings.Cut(e, "="); strings.HasPrefix(k, Prefix) && v != "" {
			vars[k] = v
		}
	}
	err := env.ParseWithOptions(&l.Config, env.Options{Environment: vars, Prefix: Prefix})
	for _, s := range settings {
		if _, ok := vars[s.Env]; ok {
			l.places[s.Name()] = place{from: "env " + s.Env}
		}
	}
	for i, h := range l.Config.Hosts {
		l.Config.Hosts[i] = strings.TrimSpace(h)
	}
	var all env.AggregateError
	if errors.As(err, &all) {
		for _, err := range all.Errors {
			l.envFault(err)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		if name, field, ok := policyVariable(k); ok {
			l.setPolicy(name, field, vars[k], place{from: "env " + k})
		} else if name, field, ok := rehearsalVariable(k); ok {
			l.setRehearsed(name, field, vars[k], place{from: "env " + k})
		} else if near := l.nearVariable(k); near != "" {
			l.Warnings = append(l.Warnings, fmt.Sprintf("%s is not a setting; did you mean %s?", k, near))
		}
	}
}

// envFault turns an error of the env package, which names the Go field, into one that names the variable.
func (l *Loaded) envFault(err error) {
	var p env.ParseError
	if errors.As(err, &p) {
		for _, s := range settings {
			if reflect.TypeFor[Config]().Field(s.field).Name != p.Name {
				continue
			}
			msg := p.Err.Error()
			switch s.pointer(&l.Config).(type) {
			case *bool:
				msg = "want true or false"
			case *int:
				msg = "want a whole number"
			}
			l.fault(s.Name(), "%s", msg)
			return
		}
	}
	l.add(&Fault{Message: err.Error()})
}

// PolicyVariable is the form of the variables that change a policy.
const PolicyVariable = Prefix + "POLICY_<NAME>_<FIELD>"

// policyVariable splits AFTERLOGIN_POLICY_API_KEY_ABSOLUTE into api-key and absolute.
func policyVariable(k string) (name, field string, ok bool) {
	rest, ok := strings.CutPrefix(k, Prefix+"POLICY_")
	i := strings.LastIndexByte(rest, '_')
	if !ok || i <= 0 {
		return "", "", false
	}
	return strings.ReplaceAll(strings.ToLower(rest[:i]), "_", "-"), strings.ToLower(rest[i+1:]), true
}

// others are variables of ours that are not settings of the server.
var others = []string{Prefix + "CONFIG", Prefix + "SERVER", Prefix + "KEY", Prefix + "KEY_FILE"}

// nearVariable returns the variable that an unknown one probably was meant to be. Other unknown ones are none of our
// business: a container platform makes some up for a service of our name.
func (l *Loaded) nearVariable(k string) string {
	var names []string // without the prefix, which would make everything alike
	for _, o := range others {
		names = append(names, strings.TrimPrefix(o, Prefix))
	}
	for _, s := range settings {
		names = append(names, strings.TrimPrefix(s.Env, Prefix))
	}
	k = strings.TrimPrefix(k, Prefix)
	if slices.Contains(names, k) {
		return ""
	}
	if near := Nearest(k, names); near != "" {
		return Prefix + near
	}
	return ""
}

// setPolicy sets one duration of a policy. A policy with a new name starts as a copy of the one for browsers.
func (l *Loaded) setPolicy(name, field, text string, at place) {
	key := "policies." + name + "." + field
	l.places[key] = at
	if !validPolicyName(name) {
		l.faultHint(key, "use a to z, 0 to 9 and -, at most 64", "%q is not a name for a policy", clip(name))
		return
	}
	p, ok := l.Config.Policies[name]
	if !ok {
		p = l.Config.Policies[afterlogin.PolicyBrowser]
	}
	d, err := ParseDuration(text)
	if err != nil {
		l.fault(key, "%v", err)
		return
	}
	for _, f := range policyFields {
		if f.key == field {
			*f.field(&p) = time.Duration(d)
			l.Config.Policies[name] = p
			return
		}
	}
	l.unknown(key, field, policyKeys(), "policies."+name)
}

func policyKeys() (keys []string) {
	for _, f := range policyFields {
		keys = append(keys, f.key)
	}
	return keys
}

func validPolicyName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func (l *Loaded) readFlags(f *Flags) {
	if f == nil {
		return
	}
	for _, s := range settings {
		if s.Flag == "" || !f.set.Changed(s.Flag) {
			continue
		}
		reflect.ValueOf(&l.Config).Elem().Field(s.field).Set(reflect.ValueOf(&f.values).Elem().Field(s.field))
		l.places[s.Name()] = place{from: "flag --" + s.Flag}
	}
}
