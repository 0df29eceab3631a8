package config

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// A list is one of the file's whose entries are sections: clients, applications, their rules, providers.
type list struct {
	keys  []string // what may stand in an entry
	most  int
	first string // the key that an entry begins with, for a hint
	more  string // what to do about too many
	add   func(l *Loaded, prefix string)
	entry func(l *Loaded, path, name, prefix string, value ast.Node)
}

// lists are those that there are, by their path, with * for the place in a list above. It is a function's value, since
// they read each other.
var lists map[string]*list

func init() {
	lists = map[string]*list{
		"oauth.clients": {
			keys: clientKeys, most: maxClients, first: "id", more: "add more with afterlogin clients add",
			add:   func(l *Loaded, _ string) { l.Config.Clients = append(l.Config.Clients, Client{}) },
			entry: (*Loaded).clientEntry,
		},
		"gateway.apps": {
			keys: appKeys, most: maxApps, first: "origin", more: "run a second installation",
			add:   func(l *Loaded, _ string) { l.Config.Apps = append(l.Config.Apps, App{}) },
			entry: (*Loaded).appEntry,
		},
		"gateway.apps.*.rules": {
			keys: ruleKeys, most: maxRules, first: "path", more: "let a path that ends in / stand for all below it",
			add: func(l *Loaded, prefix string) {
				a := l.app(prefix)
				a.Rules = append(a.Rules, Rule{})
			},
			entry: (*Loaded).ruleEntry,
		},
		"sign_in.providers": {
			keys: providerKeys, most: maxProviders, first: "id", more: "put a broker in front of them",
			add:   func(l *Loaded, _ string) { l.Config.Providers = append(l.Config.Providers, Provider{}) },
			entry: (*Loaded).providerEntry,
		},
	}
}

// listAt returns the list that stands at the path, nil if there is none.
func listAt(path string) *list {
	parts := strings.Split(path, ".")
	for i, p := range parts {
		if _, err := strconv.Atoi(p); err == nil {
			parts[i] = "*"
		}
	}
	return lists[strings.Join(parts, ".")]
}

// listOf returns the list that the entry at the path is in, nil if it is in none.
func listOf(path string) *list {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return nil
	}
	if _, err := strconv.Atoi(path[i+1:]); err != nil {
		return nil
	}
	return listAt(path[:i])
}

// indexOf returns the place in its list of the entry at the path.
func indexOf(path string) int {
	i, _ := strconv.Atoi(path[strings.LastIndexByte(path, '.')+1:])
	return i
}

// list reads a list of sections.
func (l *Loaded) list(path string, of *list, value ast.Node) {
	values, ok := value.(*ast.SequenceNode)
	if !ok {
		l.faultNode(value, "write a list: each entry begins with - "+of.first+": …", "%s: want a list, got %s", path, kindOf(value))
		return
	}
	if len(values.Values) > of.most {
		l.faultNode(value, of.more, "%s: more than %d", path, of.most)
		return
	}
	for i, n := range values.Values {
		prefix := path + "." + strconv.Itoa(i)
		l.places[prefix] = l.placeOf(n)
		of.add(l, prefix)
		l.section(n, prefix)
	}
}

// text reads a text.
func (l *Loaded) text(path string, value ast.Node, into *string) {
	n, ok := value.(*ast.StringNode)
	if !ok {
		l.fault(path, "want a text, got %s", kindOf(value))
		return
	}
	*into = n.Value
}

// flag reads a yes or no.
func (l *Loaded) flag(path string, value ast.Node, into *bool) {
	n, ok := value.(*ast.BoolNode)
	if !ok {
		l.fault(path, "want true or false, got %s", kindOf(value))
		return
	}
	*into = n.Value
}

// duration reads a duration.
func (l *Loaded) duration(path string, value ast.Node) (d Duration, ok bool) {
	text, ok := scalar(value)
	if !ok {
		l.fault(path, "want a duration, got %s", kindOf(value))
		return 0, false
	}
	if err := d.UnmarshalText([]byte(text)); err != nil {
		l.fault(path, "%v", err)
		return 0, false
	}
	return d, true
}

// texts reads a list of texts.
func (l *Loaded) texts(path string, value ast.Node) (out []string, ok bool) {
	list, ok := value.(*ast.SequenceNode)
	if !ok {
		l.fault(path, "want a list, got %s", kindOf(value))
		return nil, false
	}
	for _, v := range list.Values {
		n, ok := v.(*ast.StringNode)
		if !ok {
			l.places[path] = l.placeOf(v)
			l.fault(path, "want a list of texts, got %s in it", kindOf(v))
			return nil, false
		}
		out = append(out, n.Value)
	}
	return out, true
}
