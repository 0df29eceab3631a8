// Package inurl finds tokens in the text of a URL, where none may stand: addresses are logged, kept in histories and sent
// on to other sites. It knows the form of tokens (docs/token-format.md) and nothing of what they are good for; whoever
// finds one ends it. Package httpauth has a finder of its own, since it stands on exported calls alone. Start with [Find].
package inurl

import "strings"

// Lengths of tokens, in characters.
const (
	Root  = 88
	Child = 100
)

// most is how many candidates of one text are returned.
const most = 8

// Find returns what in the text has the form of a token of one of the kinds, each a letter: wherever it stands, also
// beside other characters that tokens are made of, and encoded once or twice, since a parameter may hold an address of
// its own. Where a longer and a shorter token begin at one place, both are returned, the longer one first.
func Find(text, kinds string) (found []string) {
	if len(text) < Root {
		return nil
	}
	text = decode(decode(text))
	for i := 0; i+Root <= len(text) && len(found) < most; i++ {
		if !begins(text[i:], kinds) {
			continue
		}
		n := 0
		for n < Child && i+n < len(text) && base64url(text[i+n]) {
			n++
		}
		if n == Child {
			found = append(found, text[i:i+Child])
		}
		if n >= Root {
			found = append(found, text[i:i+Root])
		}
	}
	return found
}

func begins(s, kinds string) bool {
	return s[0] == 'a' && s[1] == 'l' && s[3] == '_' && strings.IndexByte(kinds, s[2]) >= 0
}

// decode undoes %XX and leaves everything else as it is: unlike with url.QueryUnescape, one bad escape does not hide what
// stands beside it.
func decode(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if high, low := hex(s[i+1]), hex(s[i+2]); high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hex(c byte) int {
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

func base64url(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
