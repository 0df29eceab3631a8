package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep the values of a body may be nested. The envelope takes three levels; the rest is for session
// data.
const maxDepth = 16

// strictUnmarshal decodes one JSON value and nothing behind it. Beyond encoding/json it refuses what different readers
// would read differently: a field that stands there twice, text that is not Unicode, half a surrogate pair; and what
// nests too deep. The error names the place and repeats no value.
func strictUnmarshal(data []byte, v any) error {
	if err := checkJSON(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return fmt.Errorf("%s: got a JSON %s, which does not fit", wrong.Field, wrong.Value)
		}
		return errors.New("not a value of the form that this call wants")
	}
	return nil
}

// checkJSON checks the whole of data against the rules of strictUnmarshal.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if at := halfSurrogate(data); at >= 0 {
		return fmt.Errorf("half of a surrogate pair at %s", place(data, at))
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		var syntax *json.SyntaxError
		switch {
		case !errors.As(err, &syntax):
			return errors.New("not JSON")
		case syntax.Offset >= int64(len(data)):
			return errors.New("not JSON: it ends too early")
		}
		return fmt.Errorf("not JSON: %v at %s", syntax, place(data, int(syntax.Offset)-1))
	}
	w := walker{d: json.NewDecoder(bytes.NewReader(data))}
	w.d.UseNumber()
	return w.value(0)
}

// walker goes through a JSON text that is known to be one.
type walker struct {
	d    *json.Decoder
	path []string
}

func (w *walker) value(depth int) error {
	t, err := w.d.Token()
	if err != nil {
		return errors.New("not JSON")
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= maxDepth {
		return fmt.Errorf("nested over %d levels deep", maxDepth)
	}
	var names map[string]bool
	if open == '{' {
		names = make(map[string]bool)
	}
	for w.d.More() {
		if names != nil {
			t, err := w.d.Token()
			name, ok := t.(string)
			if err != nil || !ok {
				return errors.New("not JSON")
			}
			if names[name] {
				return fmt.Errorf("the field %q stands twice in %s", clip(name), w.where())
			}
			names[name] = true
			w.path = append(w.path, name)
		}
		if err := w.value(depth + 1); err != nil {
			return err
		}
		if names != nil {
			w.path = w.path[:len(w.path)-1]
		}
	}
	if _, err := w.d.Token(); err != nil {
		return errors.New("not JSON")
	}
	return nil
}

func (w *walker) where() string {
	if len(w.path) == 0 {
		return "the body"
	}
	return "body." + clip(strings.Join(w.path, "."))
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// place turns an offset into line and column.
func place(data []byte, at int) string {
	at = max(0, min(at, len(data)))
	line := bytes.Count(data[:at], []byte("\n")) + 1
	column := at - bytes.LastIndexByte(data[:at], '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
}

// halfSurrogate returns the offset of a \u escape that is half of a pair without the other, or -1. encoding/json reads
// every such half as the same replacement character, so that two different subjects would become one.
func halfSurrogate(data []byte) int {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		u, ok := escape(data[i:])
		switch {
		case !ok:
			i++ // another escape, or none: the decoder will say
		case u >= 0xDC00 && u <= 0xDFFF:
			return i
		case u >= 0xD800 && u <= 0xDBFF:
			if low, ok := escape(data[min(i+6, len(data)):]); !ok || low < 0xDC00 || low > 0xDFFF {
				return i
			}
			i += 11
		default:
			i += 5
		}
	}
	return -1
}

// escape reads \uXXXX at the start of b.
func escape(b []byte) (u uint32, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		u <<= 4
		switch {
		case c >= '0' && c <= '9':
			u |= uint32(c - '0')
		case c >= 'a' && c <= 'f':
			u |= uint32(c-'a') + 10
		case c >= 'A' && c <= 'F':
			u |= uint32(c-'A') + 10
		default:
			return 0, false
		}
	}
	return u, true
}
