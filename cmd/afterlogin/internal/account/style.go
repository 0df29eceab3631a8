package account

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"unicode/utf8"
)

// MaxStylesheet is the greatest stylesheet of an operator, in bytes.
const MaxStylesheet = 64 << 10

// ReadStylesheet reads a stylesheet from a file and checks it.
func ReadStylesheet(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxStylesheet+1))
	if err != nil {
		return nil, err
	}
	if err := CheckStylesheet(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// CheckStylesheet fails for what is no CSS text: it is no full grammar, but catches a file that is something else, and one
// that was cut short. What the page's policy would not let a browser load anyway (@import) is an error here, where somebody
// sees it.
func CheckStylesheet(b []byte) error {
	switch {
	case len(b) > MaxStylesheet:
		return fmt.Errorf("the stylesheet is larger than %d KiB", MaxStylesheet>>10)
	case !utf8.Valid(b):
		return errors.New("the stylesheet is not UTF-8 text")
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	depth, blocks, line := 0, 0, 1
	at := func(format string, args ...any) error {
		return fmt.Errorf("the stylesheet, line %d: %s", line, fmt.Sprintf(format, args...))
	}
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\n':
			line++
		case c < ' ' && c != '\t' && c != '\r' && c != '\f':
			return at("a control character")
		case c == '\\':
			i++
		case c == '/' && i+1 < len(b) && b[i+1] == '*':
			end := bytes.Index(b[i+2:], []byte("*/"))
			if end < 0 {
				return at("a comment does not end")
			}
			line += bytes.Count(b[i:i+2+end], []byte("\n"))
			i += 2 + end + 1
		case c == '"' || c == '\'':
			j := i + 1
			for ; j < len(b) && b[j] != c && b[j] != '\n'; j++ {
				if b[j] == '\\' {
					j++
				}
			}
			if j >= len(b) || b[j] != c {
				return at("a text in quotes does not end")
			}
			i = j
		case c == '<':
			return at("< does not stand in CSS: is this HTML?")
		case c == '@' && len(b) >= i+7 && bytes.EqualFold(b[i:i+7], []byte("@import")):
			return at("@import is not possible: the page loads this one file; copy the other into it")
		case c == '{':
			depth, blocks = depth+1, blocks+1
		case c == '}':
			if depth--; depth < 0 {
				return at("} without {")
			}
		}
	}
	switch {
	case depth > 0:
		return at("%d { without }: the file may be cut short", depth)
	case blocks == 0:
		return errors.New("the stylesheet has no rule in it")
	}
	return nil
}

// stylesheet answers with the operator's stylesheet. Its path changes with it, so it may be kept.
func (a *Account) stylesheet(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Length", strconv.Itoa(len(a.o.Stylesheet)))
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Write(a.o.Stylesheet)
}
