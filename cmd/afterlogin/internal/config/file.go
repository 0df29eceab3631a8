package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parse reads the YAML in l.source into l.Config. It walks the tree itself, key by key: a decoder stops at the first
// thing that is wrong, loses the place of a bad duration, and knows no near names.
func (l *Loaded) parse() {
	// A deep nesting costs the parser stack and time that grows with the square; a configuration has three levels.
	if line, ok := tooDeep(l.source); ok {
		l.faultAt(line, 1, "", "nested deeper than any setting")
		return
	}
	// Duplicate keys are reported below, with everything else.
	f, err := parser.ParseBytes(l.source, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, col, msg := 1, 1, err.Error()
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			msg = syntax.Message
			if syntax.Token != nil {
				line, col = syntax.Token.Position.Line, syntax.Token.Position.Column
			}
		}
		l.faultAt(line, col, "", "not YAML: %s", msg)
		return
	}
	docs := 0
	for _, d := range f.Docs {
		if d.Body == nil {
			continue
		}
		if docs++; docs > 1 {
			l.faultNode(d.Body, "put everything into one document", "there is a second document")
			return
		}
		l.section(d.Body, "")
	}
}

// tooDeep reports the first line whose brackets or indentation go deeper than a configuration can.
func tooDeep(source []byte) (line int, ok bool) {
	const most = 32
	brackets := 0
	for i, text := range strings.Split(string(source), "\n") {
		if len(text)-len(strings.TrimLeft(text, " \t-?")) > 8*most {
			return i + 1, true
		}
		for _, c := range text {
			switch c {
			case '[', '{':
				brackets++
			case ']', '}':
				brackets--
			}
			if brackets > most {
				return i + 1, true
			}
		}
	}
	return 0, false
}

func (l *Loaded) faultNode(n ast.Node, hint, format string, args ...any) {
	p := position(n)
	l.faultAt(p.Line, p.Column, hint, format, args...)
}

func position(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return position(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return position(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position
	}
	return &token.Position{Line: 1, Column: 1}
}

// section reads a mapping whose keys stand below the prefix: "" at the top, "tls", "policies.browser".
func (l *Loaded) section(n ast.Node, prefix string) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	case *ast.NullNode, *ast.CommentGroupNode:
		return
	default:
		l.faultNode(n, "write key: value", "%swant keys and values, got %s", in(prefix), kindOf(n))
		return
	}
	seen := make(map[string]int)
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			l.faultNode(v.Key, "", "a key must be a plain word")
			continue
		}
		at := position(key)
		if first, again := seen[key.Value]; again {
			l.faultAt(at.Line, at.Column, "keep one of them", "%q stands here again; it is in line %d already", clip(key.Value), first)
			continue
		}
		seen[key.Value] = at.Line
		l.entry(join(prefix, key.Value), key.Value, prefix, key, v.Value)
	}
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

func in(prefix string) string {
	if prefix == "" {
		return ""
	}
	return prefix + ": "
}

// entry reads one key and its value.
func (l *Loaded) entry(path, name, prefix string, key *ast.StringNode, value ast.Node) {
	at := position(key)
	switch value.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		l.faultNode(value, "write the value itself", "anchors, aliases and tags are not taken here")
		return
	case *ast.NullNode:
		if l.knows(path, prefix) {
			return // a key with nothing behind it keeps its default
		}
	}
	l.places[path] = place{from: fmt.Sprintf("%s:%d", l.file, at.Line), line: at.Line, col: at.Column}
	switch {
	case path == "master_key":
		l.fault(path, "a secret does not belong into this file: set %sMASTER_KEY, or master_key_file", Prefix)
	case listAt(path) != nil:
		l.list(path, listAt(path), value)
	case listOf(prefix) != nil:
		l.places[path] = l.placeOf(value)
		listOf(prefix).entry(l, path, name, prefix, value)
	case path == "policies" || path == "oauth" || path == rehearsalSection || isSection(path):
		delete(l.places, path)
		l.section(value, path)
	case prefix == "policies" || prefix == rehearsalSection:
		if !validPolicyName(name) {
			l.faultHint(path, "use a to z, 0 to 9 and -, at most 64", "%q is not a name for a policy", clip(name))
			return
		}
		delete(l.places, path)
		l.section(value, path)
	case strings.HasPrefix(prefix, "policies.") || strings.HasPrefix(prefix, rehearsalSection+"."):
		text, ok := scalar(value)
		if !ok {
			l.places[path] = l.placeOf(value)
			l.fault(path, "want a duration, got %s", kindOf(value))
			return
		}
		if of, ok := strings.CutPrefix(prefix, rehearsalSection+"."); ok {
			l.setRehearsed(of, name, text, l.rehearsedPlace(key, name, value))
			return
		}
		if slices.Contains(policyKeys(), name) {
			l.setPolicy(strings.TrimPrefix(prefix, "policies."), name, text, l.placeOf(value))
			return
		}
		l.unknown(path, name, policyKeys(), prefix)
	default:
		for _, s := range settings {
			if s.Key == path {
				l.places[path] = l.placeOf(value)
				l.set(s, value)
				return
			}
		}
		l.unknown(path, name, keysBelow(prefix), prefix)
		delete(l.places, path)
	}
}

func (l *Loaded) placeOf(n ast.Node) place {
	p := position(n)
	return place{from: fmt.Sprintf("%s:%d", l.file, p.Line), line: p.Line, col: p.Column}
}

// knows reports whether the path is a setting, a section or a policy's field.
func (l *Loaded) knows(path, prefix string) bool {
	if prefix == "policies" || path == "policies" || prefix == rehearsalSection || path == rehearsalSection || path == "oauth" || listAt(path) != nil || isSection(path) {
		return true
	}
	if of := listOf(prefix); of != nil {
		return slices.Contains(of.keys, strings.TrimPrefix(path, prefix+"."))
	}
	if strings.HasPrefix(prefix, rehearsalSection+".") {
		return slices.Contains(rehearsedKeys, strings.TrimPrefix(path, prefix+"."))
	}
	if strings.HasPrefix(prefix, "policies.") {
		return slices.Contains(policyKeys(), strings.TrimPrefix(path, prefix+"."))
	}
	for _, s := range settings {
		if s.Key == path {
			return true
		}
	}
	return false
}

func isSection(name string) bool {
	for _, s := range settings {
		if strings.HasPrefix(s.Key, name+".") {
			return true
		}
	}
	return false
}

// keysBelow returns the keys that may stand in the section.
func keysBelow(prefix string) (keys []string) {
	for _, s := range settings {
		if s.Key == "" {
			continue
		}
		rest := s.Key
		if prefix != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(s.Key, prefix+"."); !ok {
				continue
			}
		}
		first, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(keys, first) {
			keys = append(keys, first)
		}
	}
	if prefix == "" {
		keys = append(keys, "oauth", "policies")
	}
	if prefix == "rehearsal" {
		keys = append(keys, "policies")
	}
	for path := range lists {
		if name, ok := strings.CutPrefix(path, prefix+"."); ok && !strings.Contains(name, ".") {
			keys = append(keys, name)
		}
	}
	return keys
}

// set reads the value of a setting.
func (l *Loaded) set(s Setting, value ast.Node) {
	wrong := func(want string) {
		l.fault(s.Key, "want %s, got %s", want, kindOf(value))
	}
	switch p := s.pointer(&l.Config).(type) {
	case *string:
		if n, ok := value.(*ast.StringNode); ok {
			*p = n.Value
			return
		}
		wrong("a text")
	case *bool:
		if n, ok := value.(*ast.BoolNode); ok {
			*p = n.Value
			return
		}
		wrong("true or false")
	case *int:
		if n, ok := value.(*ast.IntegerNode); ok {
			if i, err := strconv.Atoi(n.GetToken().Value); err == nil {
				*p = i
				return
			}
		}
		wrong("a whole number")
	case *Duration:
		text, ok := scalar(value)
		if !ok {
			wrong("a duration")
			return
		}
		if err := p.UnmarshalText([]byte(text)); err != nil {
			l.fault(s.Key, "%v", err)
		}
	case *[]string:
		list, ok := value.(*ast.SequenceNode)
		if !ok {
			wrong("a list")
			return
		}
		var out []string
		for _, v := range list.Values {
			n, ok := v.(*ast.StringNode)
			if !ok {
				l.places[s.Key] = l.placeOf(v)
				l.fault(s.Key, "want a list of texts, got %s in it", kindOf(v))
				return
			}
			out = append(out, n.Value)
		}
		*p = out
	}
}

// scalar returns the text of a plain value, as it stands in the file.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// kindOf names a node for people.
func kindOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return fmt.Sprintf("the text %q", clip(n.Value))
	case *ast.IntegerNode, *ast.FloatNode:
		return "the number " + clip(n.GetToken().Value)
	case *ast.BoolNode:
		return fmt.Sprint(n.Value)
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.LiteralNode:
		return "a text of several lines"
	}
	return "something else"
}
