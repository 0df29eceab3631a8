package users

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/breached"
)

// Sizes of passwords.
const (
	// DefaultMinLength is how many characters a new password has at least, unless Options say otherwise: what NIST SP
	// 800-63B-4, section 3.1.1.2, asks for where the password is the only factor, which here it is.
	DefaultMinLength = 15
	// MaxPassword is the greatest length of a password, in bytes.
	MaxPassword = 1024
)

// CheckPassword returns a *FieldError unless the password is one that the user may have. There are no rules about kinds of
// characters. Every character counts as it is: nothing is trimmed, folded or normalized.
func (u *Users) CheckPassword(name, password string) error {
	bad := func(format string, args ...any) error { return &FieldError{"password", fmt.Sprintf(format, args...)} }
	switch {
	case len(password) > MaxPassword:
		return bad("it is over %d bytes long", MaxPassword)
	case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
		return bad("it has characters that nobody can type into a form: line breaks, or what is not UTF-8")
	case utf8.RuneCountInString(password) < u.minLength:
		return bad("it needs at least %d characters; a few words that nobody else would put together are easy to remember", u.minLength)
	case weak(password):
		return bad("it is one of those that are tried first: it stands in lists of stolen passwords, or follows a simple pattern. Choose another")
	case strings.Contains(strings.ToLower(password), name) && len(name) >= 3, strings.EqualFold(password, name):
		return bad("it has the user's name in it, which is guessed first. Choose another")
	}
	if local, _, ok := strings.Cut(name, "@"); ok && len(local) >= 4 && strings.Contains(strings.ToLower(password), local) {
		return bad("it has the user's name in it, which is guessed first. Choose another")
	}
	return nil
}

// weak reports whether the password is a known one, or what somebody makes of a known one to get past a rule of length:
// with figures and signs around it, or written down several times; or a few characters over and over.
func weak(password string) bool {
	s := strings.ToLower(password)
	if breached.Known(s) {
		return true
	}
	bare := strings.TrimFunc(s, func(c rune) bool { return !unicode.IsLetter(c) })
	if bare == "" { // figures and signs alone
		bare = s
	}
	if breached.Known(bare) {
		return true
	}
	for _, text := range []string{s, bare} {
		if p := period(text); p < len(text) && (p < 8 || breached.Known(text[:p])) {
			return true
		}
	}
	return run(s)
}

// period returns the length of the shortest text that s is a repetition of, the last time perhaps in part; len(s) if it
// is none.
func period(s string) int {
	fail := make([]int, len(s)+1) // of Knuth, Morris and Pratt
	for i, k := 1, 0; i < len(s); i++ {
		for k > 0 && s[i] != s[k] {
			k = fail[k]
		}
		if s[i] == s[k] {
			k++
		}
		fail[i+1] = k
	}
	p := len(s) - fail[len(s)]
	if p*2 > len(s) {
		return len(s)
	}
	return p
}

// run reports whether s is one run through an alphabet or a row of keys.
func run(s string) bool {
	for _, row := range []string{
		"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", "012345678901234567890123456789012345678901234567890123456789",
		"1234567890qwertyuiopasdfghjklzxcvbnm", "qwertyuiopasdfghjklzxcvbnm1234567890", "qwertzuiopasdfghjklyxcvbnm1234567890",
	} {
		if strings.Contains(row, s) || strings.Contains(reversed(row), s) {
			return true
		}
	}
	return false
}

func reversed(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}
