package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// object is a JSON object with its members as they stand there. encoding/json takes "SUB" for "sub" and lets the last of
// two members win; another reader of the same token would see another one then (RFC 8725, 2.4).
type object map[string]json.RawMessage

// maxMembers is how many members an object may have.
const maxMembers = 256

var errNotObject = errors.New("not a JSON object")

// parseObject reads one object and nothing behind it. Names must differ in more than case.
func parseObject(text []byte) (object, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	out, seen := make(object), make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errNotObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errNotObject
		}
		if fold := strings.ToLower(name); seen[fold] {
			return nil, errors.New("a member stands there twice, or differs in case only")
		} else if seen[fold] = true; len(seen) > maxMembers {
			return nil, errors.New("too many members")
		}
		out[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errNotObject
	}
	if rest := bytes.TrimLeft(text[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, errors.New("something follows the object")
	}
	return out, nil
}

// has reports whether the member is there, null or not.
func (o object) has(name string) bool { _, ok := o[name]; return ok }

// text returns a string, "" if the member is not there.
func (o object) text(name string) (string, error) {
	v, ok := o[name]
	if !ok {
		return "", nil
	}
	var s *string
	if err := json.Unmarshal(v, &s); err != nil || s == nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return *s, nil
}

// texts returns a list of strings, nil if the member is not there. With single, one string is a list of one.
func (o object) texts(name string, single bool) ([]string, error) {
	v, ok := o[name]
	if !ok {
		return nil, nil
	}
	if single && v[0] == '"' {
		s, err := o.text(name)
		return []string{s}, err
	}
	var list []*string
	if err := json.Unmarshal(v, &list); err != nil || list == nil {
		return nil, fmt.Errorf("%s is not a list of strings", name)
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s == nil {
			return nil, fmt.Errorf("%s is not a list of strings", name)
		}
		out = append(out, *s)
	}
	return out, nil
}

// flag returns a boolean, false if the member is not there.
func (o object) flag(name string) (bool, error) {
	v, ok := o[name]
	if !ok {
		return false, nil
	}
	var b *bool
	if err := json.Unmarshal(v, &b); err != nil || b == nil {
		return false, fmt.Errorf("%s is neither true nor false", name)
	}
	return *b, nil
}

// date returns a NumericDate (RFC 7519, 2), and the zero time if the member is not there.
func (o object) date(name string) (time.Time, error) {
	v, ok := o[name]
	if !ok {
		return time.Time{}, nil
	}
	var f *float64
	if err := json.Unmarshal(v, &f); err != nil || f == nil || *f < 1 || *f > 1<<37 || math.IsNaN(*f) {
		return time.Time{}, fmt.Errorf("%s is not a time", name)
	}
	whole, part := math.Modf(*f)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), nil
}
