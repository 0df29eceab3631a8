// Package breached knows the 30,000 most used passwords of published breaches: what somebody who guesses tries first.
//
// The list is part of the program (common.txt.gz; common.LICENSE says where it is from). It is unpacked at the first call,
// and takes about 400 KB from then on.
package breached

import (
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
)

//go:embed common.txt.gz
var packed []byte

// maxText is the greatest size of the unpacked list, in bytes.
const maxText = 1 << 20

// list is the unpacked list: its text, a password on each line, and where the lines begin, in the order of their text.
type list struct {
	text  string
	lines []uint32
}

var load = sync.OnceValue(func() *list {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		panic("breached: the embedded list does not unpack: " + err.Error()) // it does not depend on input
	}
	b, err := io.ReadAll(io.LimitReader(z, maxText))
	if err != nil || len(b) == 0 || len(b) == maxText || b[len(b)-1] != '\n' {
		panic("breached: the embedded list is not whole")
	}
	l := &list{text: string(b), lines: make([]uint32, 0, bytes.Count(b, []byte{'\n'}))}
	for at := 0; at < len(l.text); at += len(l.line(uint32(at))) + 1 {
		l.lines = append(l.lines, uint32(at))
	}
	slices.SortFunc(l.lines, func(a, b uint32) int { return cmp.Compare(l.line(a), l.line(b)) })
	return l
})

// line returns the password that begins there.
func (l *list) line(at uint32) string {
	s, _, _ := strings.Cut(l.text[at:], "\n")
	return s
}

// Known reports whether the password, in whatever case, is one of the list. The empty text is not.
func Known(password string) bool {
	if len(password) > 256 { // far longer than any of them: no work
		return false
	}
	l, folded := load(), strings.ToLower(password)
	_, found := slices.BinarySearchFunc(l.lines, folded, func(at uint32, want string) int { return cmp.Compare(l.line(at), want) })
	return found
}

// All yields the passwords, the most used first, in lower case and ASCII.
func All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := range strings.Lines(load().text) {
			if !yield(s[:len(s)-1]) {
				return
			}
		}
	}
}
