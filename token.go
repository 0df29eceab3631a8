package afterlogin

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what a token prints as, whatever prints it.
const redacted = "[token]"

// A Token is the secret text that stands for a session. However it is printed, logged or marshalled, it shows as
// "[token]"; Reveal is the one way to the text. The zero Token is no token and is refused as malformed.
//
// Tokens are not compared with ==, which would not be constant in time; ask the Authority.
type Token struct {
	_ [0]func() // not comparable
	// A pointer, since fmt and slog print the strings in unexported fields without asking the type.
	text *string
}

// TokenFrom wraps a token's text as it came from a cookie or a header. It checks nothing; Validate does.
func TokenFrom(text string) Token { return Token{text: &text} }

// Reveal returns the text of the token: the secret itself. It belongs into a Set-Cookie header, or into the one answer
// that hands out the token, and nowhere else.
func (t Token) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// IsZero reports whether there is no text at all.
func (t Token) IsZero() bool { return t.text == nil || *t.text == "" }

// String returns "[token]".
func (t Token) String() string { return redacted }

// GoString returns "[token]".
func (t Token) GoString() string { return redacted }

// Format prints "[token]" for every verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue returns "[token]".
func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[token]", for JSON and everything else that marshals text.
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }
