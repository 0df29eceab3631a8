// Package site has what the examinations of sites, grade and doctor, have in common: text that is fit to be printed,
// whatever a site made it of, and reasons of failed requests that have nothing of the site's in them.
package site

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Clip cuts the text off after n bytes.
func Clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// Printable has a question mark in place of everything but printable ASCII.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// Lines is for text of several lines, of this program's own words among others: it has a question mark in place of what
// terminals obey, but for tabs, and of characters that change the order of the others.
func Lines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
		case r < ' ', r >= 0x7f && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x2069, r == 0xfeff, r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// Wrap appends a paragraph in lines of at most 100 characters: after first, and indented from then on.
func Wrap(b *strings.Builder, first string, indent int, text string) {
	const width = 100
	n := utf8.RuneCountInString(first)
	b.WriteString(first)
	for i, w := range strings.Fields(text) {
		length := utf8.RuneCountInString(w)
		if i > 0 && n+1+length > width {
			b.WriteString("\n" + strings.Repeat(" ", indent))
			n = indent
		} else if i > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += length
	}
	b.WriteByte('\n')
}

// Secrets are texts that must not be printed, each with what is printed in their place. The zero value is ready.
type Secrets struct {
	shown map[string]string
	size  int
}

// maxSecrets bounds what is kept, in bytes: more than any examination gives out.
const maxSecrets = 64 << 20

// Add adds a secret, also as it stands in paths and queries. Secrets of less than 6 bytes are left out, which are in other
// text by chance.
func (s *Secrets) Add(secret, shown string) {
	if s.shown == nil {
		s.shown = make(map[string]string)
	}
	spellings := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), (&url.URL{Path: secret}).EscapedPath()}
	if plain, err := url.QueryUnescape(secret); err == nil {
		spellings = append(spellings, plain)
	}
	for _, spelt := range spellings {
		if _, known := s.shown[spelt]; !known && len(spelt) >= 6 && s.size+len(spelt) <= maxSecrets {
			s.shown[spelt] = shown
			s.size += len(spelt)
		}
	}
}

// Clean returns the texts without the secrets.
func (s *Secrets) Clean(texts ...string) []string {
	list := make([]string, 0, len(s.shown))
	for secret := range s.shown {
		list = append(list, secret)
	}
	// The longest first: what is within another must not break it up.
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	clean := slices.Clone(texts)
	for _, secret := range list {
		for i := range clean {
			if strings.Contains(clean[i], secret) {
				clean[i] = strings.ReplaceAll(clean[i], secret, s.shown[secret])
			}
		}
	}
	return clean
}
