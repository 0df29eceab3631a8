package oauth

import (
	"strings"
	"unicode/utf8"
)

// form is the parameters of a request: few, and looked at once, so that a list does.
type form []parameter

type parameter struct{ name, value string }

// parseForm reads application/x-www-form-urlencoded. Unlike net/url it refuses what two readers could read differently: a
// parameter that stands there twice (RFC 6749, 3.2), a bad escape, a semicolon for an ampersand, bytes that are no UTF-8.
// Parameters without a value are left out: they count as omitted.
func parseForm(text string) (form, *Error) {
	if text == "" {
		return nil, nil
	}
	f := make(form, 0, 4)
	n := 0
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		if n++; n > maxParameters {
			return nil, fail(InvalidRequest, "more than 64 parameters")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, ok := unescape(name)
		value, ok2 := unescape(value)
		if !ok || !ok2 {
			return nil, fail(InvalidRequest, "a parameter is not encoded as application/x-www-form-urlencoded in UTF-8")
		}
		if !mayRepeat(name) {
			for i := range f {
				if f[i].name == name {
					return nil, fail(InvalidRequest, "a parameter stands there twice")
				}
			}
		}
		f = append(f, parameter{name, value})
	}
	return f, nil
}

// mayRepeat reports whether the parameter is a list (RFC 8707, 2; RFC 8693, 2.1).
func mayRepeat(name string) bool { return name == "resource" || name == "audience" }

// get returns the value of the parameter, "" if it is not there.
func (f form) get(name string) string {
	for i := range f {
		if f[i].name == name {
			return f[i].value
		}
	}
	return ""
}

// all returns every value of the parameter but empty ones.
func (f form) all(name string) (values []string) {
	for i := range f {
		if f[i].name == name && f[i].value != "" {
			values = append(values, f[i].value)
		}
	}
	return values
}

// unescape decodes one name or value. It returns false for a bad escape, for what is not UTF-8, and for control characters:
// no parameter has any, and logs and headers should not get them.
func unescape(s string) (string, bool) {
	plain := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == '%' || c == '+':
			plain = false
		case c <= ' ' || c >= 0x7f || c == ';':
			return "", false
		}
	}
	if plain {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%':
			if i+2 >= len(s) {
				return "", false
			}
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c = byte(high<<4 | low)
			i += 2
		}
		if c < ' ' || c == 0x7f {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), utf8.Valid(b)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
