package gateway

import (
	"net/http"
	"unicode/utf8"
)

// Why a target is refused. What two programs can read in two ways must not be decided on by one and served by the other.
var (
	errLong  = &fault{status: http.StatusBadRequest, code: "target_too_long", text: "The address is longer than 8 KiB."}
	errForm  = &fault{status: http.StatusBadRequest, code: "bad_target", text: "The address must be a path that begins with one slash."}
	errBytes = &fault{status: http.StatusBadRequest, code: "bad_target",
		text: "The address holds blanks, control characters, backslashes or a fragment. Escape what belongs to it."}
	errEscape = &fault{status: http.StatusBadRequest, code: "bad_escape", text: "The path holds a % that begins no escape."}
	errHidden = &fault{status: http.StatusBadRequest, code: "ambiguous_path",
		text: "The path holds an escaped slash, backslash, percent sign or control character, which programs read in different ways."}
	errSegment = &fault{status: http.StatusBadRequest, code: "ambiguous_path",
		text: "The path holds an empty segment, or one of dots, which programs read in different ways."}
	errParameter = &fault{status: http.StatusBadRequest, code: "ambiguous_path",
		text: "The path holds a semicolon, an escaped question mark or number sign, or is not UTF-8, which programs read in different ways."}
)

// canonicalPath returns the path decoded once, or why it is not clear what it is. An accepted one decodes to itself, has
// no empty segments and none of dots.
//
// strict is for applications with rules. Without rules every path is answered alike, so nothing is won by one that the
// application reads differently, as long as nobody in between does: then parameters of segments (/a;x=1), %3F, %23 and
// legacy encodings are let through.
func canonicalPath(raw string, strict bool) (string, *fault) {
	if raw == "" || raw[0] != '/' {
		return "", errForm
	}
	path, escaped := raw, false
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f || c == '\\' || c == '#':
			return "", errBytes
		case c == ';' && strict:
			return "", errParameter
		case c == '%':
			escaped = true
		}
	}
	if escaped {
		var f *fault
		if path, f = decode(raw, strict); f != nil {
			return "", f
		}
	}
	if strict && !utf8.ValidString(path) {
		return "", errParameter
	}
	for start, i := 1, 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		switch segment := path[start:i]; {
		case segment == "" && i < len(path), segment == ".", segment == "..":
			return "", errSegment
		}
		start = i + 1
	}
	return path, nil
}

// decode decodes every escape once.
func decode(raw string, strict bool) (string, *fault) {
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) {
				return "", errEscape
			}
			high, low := hexDigit(raw[i+1]), hexDigit(raw[i+2])
			if high < 0 || low < 0 {
				return "", errEscape
			}
			c, i = byte(high<<4|low), i+2
			switch {
			case c == '/' || c == '\\' || c == '%' || c < ' ' || c == 0x7f:
				return "", errHidden
			case strict && (c == ';' || c == '?' || c == '#'):
				return "", errParameter
			}
		}
		b = append(b, c)
	}
	return string(b), nil
}

func hexDigit(c byte) int {
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

// plainQuery reports whether a query has nothing that ends a line or begins a fragment. Otherwise it is the
// application's.
func plainQuery(query string) bool {
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}
