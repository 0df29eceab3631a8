package jwt

import (
	"encoding/base64"
	"unicode/utf8"
)

// encoding is base64url without padding (RFC 7515, 2), in the one way that there is: unused bits are zero.
var encoding = base64.RawURLEncoding.Strict()

// decode64 decodes canonical base64url. Strict alone still skips line ends, and a token that may be written in two ways
// passes a deny-list once too often.
func decode64(text string) ([]byte, bool) {
	for i := range len(text) {
		if text[i] == '\n' || text[i] == '\r' {
			return nil, false
		}
	}
	b, err := encoding.DecodeString(text)
	return b, err == nil
}

// appendText appends s as a JSON string. It reports false if s is not UTF-8.
func appendText(b []byte, s string) ([]byte, bool) {
	const digits = "0123456789abcdef"
	if !utf8.ValidString(s) {
		return b, false
	}
	b = append(b, '"')
	plain := true
	for i := range len(s) {
		plain = plain && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(b, s...), '"'), true
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"'), true
}

// object writes a JSON object, member by member.
type object struct {
	b   []byte
	bad string // the name of the first member whose text is not UTF-8
}

func (o *object) name(name string) {
	if len(o.b) == 0 || o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	var ok bool
	if o.b, ok = appendText(o.b, name); !ok && o.bad == "" {
		o.bad = "a name"
	}
	o.b = append(o.b, ':')
}

func (o *object) element(name, s string) {
	var ok bool
	if o.b, ok = appendText(o.b, s); !ok && o.bad == "" {
		o.bad = name
	}
}

func (o *object) text(name, s string) {
	if s != "" {
		o.name(name)
		o.element(name, s)
	}
}

func (o *object) texts(name string, list []string) {
	if len(list) == 0 {
		return
	}
	o.name(name)
	o.b = append(o.b, '[')
	for i, s := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.element(name, s)
	}
	o.b = append(o.b, ']')
}
