package roster

import "slices"

// Codes of words that stand for no word.
const (
	noWord  = 0      // the empty text, or no list
	unknown = 0xFFFF // there was no room for it: whoever needs it has to ask the store
)

// maxWordBytes bounds the texts of one column, since strangers choose some of them.
const maxWordBytes = 8 << 20

// words gives the texts of a column short codes. Most columns have a few different texts however many rows there are.
// What has no room any more is unknown, which costs time and never truth.
type words struct {
	codes map[string]uint16
	texts []string // by code
	bytes int
}

func newWords() words { return words{codes: map[string]uint16{"": noWord}, texts: []string{""}} }

// code returns the text's code, and makes one for a text that is new. fresh reports that it did.
func (w *words) code(text string) (c uint16, fresh bool) {
	if c, ok := w.codes[text]; ok {
		return c, false
	}
	if len(w.texts) >= unknown || w.bytes+len(text) > maxWordBytes {
		return unknown, false
	}
	c = uint16(len(w.texts))
	w.codes[text] = c
	w.texts = append(w.texts, text)
	w.bytes += len(text)
	return c, true
}

// size is about how many bytes the texts take.
func (w *words) size() int { return w.bytes + 64*len(w.texts) }

// lists are words that stand for a list of texts.
type lists struct {
	words
	items [][]string // by code
}

func newLists() lists { return lists{words: newWords(), items: [][]string{nil}} }

func (l *lists) code(items []string) uint16 {
	if len(items) == 0 {
		return noWord
	}
	key := make([]byte, 0, 64)
	for _, s := range items {
		key = append(append(key, s...), 0)
	}
	c, fresh := l.words.code(string(key))
	if fresh {
		l.items = append(l.items, slices.Clone(items))
	}
	return c
}
