package jwt

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays of a JSON text may nest, the outermost counted.
const maxDepth = 8

// maxMembers is how many members an object may have.
const maxMembers = 128

// encoding/json takes "EXP" for "exp", lets the last of two members win, and mends broken UTF-8. Another reader of the
// same text sees another token then, and that is an attack (RFC 8725, 2.4 and 3.10). So the text is walked here.

const (
	flawSyntax    flaw = "not JSON"
	flawUTF8      flaw = "not UTF-8"
	flawDepth     flaw = "nested too deep"
	flawDuplicate flaw = "a member stands there twice, or differs in case only"
	flawMembers   flaw = "too many members"
	flawTrailing  flaw = "something follows the object"
	flawObject    flaw = "not an object"
)

// members calls f with the name and the raw value of each member of the JSON object that is text, in their order. All of
// it has been checked before f sees it: one object and nothing after it, UTF-8, at most maxDepth deep, no object with two
// members of one name, where names that differ in case only are the same. The value is part of text.
func members(text []byte, f func(name string, value []byte) error) error {
	if !utf8.Valid(text) {
		return flawUTF8
	}
	s := scanner{b: text}
	s.space()
	if s.next() != '{' {
		return flawObject
	}
	if err := s.object(f); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.b) {
		return flawTrailing
	}
	return nil
}

// elements calls f with each raw value of the array, which members has checked before.
func elements(array []byte, f func(value []byte) error) error {
	s := scanner{b: array}
	if s.next() != '[' {
		return flawSyntax
	}
	return s.array(f)
}

// oneValue reports whether text is one strict JSON value, and not the end of one and the beginning of another.
func oneValue(text []byte) bool {
	s := scanner{b: text, depth: 1}
	s.space()
	if !utf8.Valid(text) || s.value() != nil {
		return false
	}
	s.space()
	return s.i == len(text)
}

type scanner struct {
	b     []byte
	i     int
	depth int
}

// next returns the byte at the place, 0 at the end. No JSON text has a 0 outside of a string.
func (s *scanner) next() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// object walks an object; the place is at its brace. With a nil f it only checks.
func (s *scanner) object(f func(name string, value []byte) error) error {
	if s.depth++; s.depth > maxDepth {
		return flawDepth
	}
	s.i++
	var room [24]string
	names := room[:0]
	for s.space(); s.next() != '}'; {
		if len(names) > 0 {
			if s.next() != ',' {
				return flawSyntax
			}
			s.i++
			s.space()
		}
		start := s.i
		if err := s.text(); err != nil {
			return err
		}
		name := unquote(s.b[start:s.i])
		for _, n := range names {
			if len(n) == len(name) && n == name || strings.EqualFold(n, name) {
				return flawDuplicate
			}
		}
		if len(names) == maxMembers {
			return flawMembers
		}
		names = append(names, name)
		s.space()
		if s.next() != ':' {
			return flawSyntax
		}
		s.i++
		s.space()
		start = s.i
		if err := s.value(); err != nil {
			return err
		}
		if f != nil {
			if err := f(name, s.b[start:s.i]); err != nil {
				return err
			}
		}
		s.space()
	}
	s.i++
	s.depth--
	return nil
}

// array walks an array; the place is at its bracket. With a nil f it only checks.
func (s *scanner) array(f func(value []byte) error) error {
	if s.depth++; s.depth > maxDepth {
		return flawDepth
	}
	s.i++
	first := true
	for s.space(); s.next() != ']'; first = false {
		if !first {
			if s.next() != ',' {
				return flawSyntax
			}
			s.i++
			s.space()
		}
		start := s.i
		if err := s.value(); err != nil {
			return err
		}
		if f != nil {
			if err := f(s.b[start:s.i]); err != nil {
				return err
			}
		}
		s.space()
	}
	s.i++
	s.depth--
	return nil
}

func (s *scanner) value() error {
	switch c := s.next(); c {
	case '{':
		return s.object(nil)
	case '[':
		return s.array(nil)
	case '"':
		return s.text()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return flawSyntax
	}
	s.i += len(word)
	return nil
}

func (s *scanner) number() error {
	if s.next() == '-' {
		s.i++
	}
	if s.next() == '0' {
		s.i++
	} else if !s.digits() {
		return flawSyntax
	}
	if s.next() == '.' {
		s.i++
		if !s.digits() {
			return flawSyntax
		}
	}
	if c := s.next(); c == 'e' || c == 'E' {
		s.i++
		if c := s.next(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return flawSyntax
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for '0' <= s.next() && s.next() <= '9' {
		s.i++
	}
	return s.i > start
}

// text walks a string; the place is at its first quotation mark.
func (s *scanner) text() error {
	if s.next() != '"' {
		return flawSyntax
	}
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c < 0x20:
			return flawSyntax
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		}
	}
	return flawSyntax
}

// escape walks an escape; the place is at its backslash, and afterwards at its last byte.
func (s *scanner) escape() error {
	s.i++
	switch s.next() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
	default:
		return flawSyntax
	}
	u := hex4(s.b[s.i+1:])
	if u < 0 {
		return flawSyntax
	}
	s.i += 4
	if !utf16.IsSurrogate(u) {
		return nil
	}
	if len(s.b)-s.i < 7 || s.b[s.i+1] != '\\' || s.b[s.i+2] != 'u' {
		return flawUTF8 // half of a character
	}
	if utf16.DecodeRune(u, hex4(s.b[s.i+3:])) == utf8.RuneError {
		return flawUTF8
	}
	s.i += 6
	return nil
}

// hex4 returns the value of the four hexadecimal digits that b begins with, -1 if it does not.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var v rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			v = v<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return v
}

// unquote returns what a JSON string, which the scanner has walked, says.
func unquote(quoted []byte) string {
	inner := quoted[1 : len(quoted)-1]
	plain := true
	for _, c := range inner {
		plain = plain && c != '\\'
	}
	if plain {
		return string(inner)
	}
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			out = append(out, inner[i])
			continue
		}
		i++
		switch c := inner[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			u := hex4(inner[i+1:])
			i += 4
			if utf16.IsSurrogate(u) {
				u = utf16.DecodeRune(u, hex4(inner[i+3:]))
				i += 6
			}
			out = utf8.AppendRune(out, u)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// text returns what the raw value says if it is a string.
func text(value []byte) (string, bool) {
	if value[0] != '"' {
		return "", false
	}
	return unquote(value), true
}

// texts returns the strings of the raw value if it is an array of at most max strings.
func texts(value []byte, max int) ([]string, bool) {
	if value[0] != '[' {
		return nil, false
	}
	var out []string
	err := elements(value, func(v []byte) error {
		t, ok := text(v)
		if !ok || len(out) == max {
			return flawSyntax
		}
		out = append(out, t)
		return nil
	})
	return out, err == nil
}
