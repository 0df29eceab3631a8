package users

import "strings"

// maxName is the greatest length of a name, in bytes.
const maxName = 64

// CheckName returns a *FieldError unless the name is one that a user can have: 1 to 64 of a-z, 0-9, ".", "_", "@" and
// "-". There is no colon, so that no name is the subject of somebody who signed in with a provider, and nothing but
// ASCII, so that no two names look alike.
func CheckName(name string) error {
	if !validName(name) {
		return &FieldError{"name", "want 1 to 64 of a to z, 0 to 9 and . _ @ -, in lower case"}
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("._@-", c) >= 0) {
			return false
		}
	}
	return true
}

// FoldName returns the name that was typed as a user's name is written: in lower case, without the blanks around it that
// a phone's keyboard leaves. It folds ASCII only: what is not ASCII stays, and is no name.
func FoldName(typed string) string {
	typed = strings.Trim(typed, " \t")
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + ('a' - 'A')
		}
		return c
	}, typed)
}
