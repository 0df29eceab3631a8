package pgstore

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

// An eventPlace is an event's place in the stream, in the order of xid and n. made, in microseconds since 1970, is there to tell
// it from an event that got the same numbers on a server that took over without knowing of it.
type eventPlace struct {
	xid  uint64
	n    int32
	made int64
}

// cursorSize is the size of a cursor behind the name of the data: a dash, and three numbers in hexadecimal.
const cursorSize = 1 + 16 + 8 + 16

// cursor returns the event's cursor in the data that life names. There is one spelling only.
func (p eventPlace) cursor(life string) store.Cursor {
	return store.Cursor(fmt.Sprintf("%s-%016x%08x%016x", life, p.xid, uint32(p.n), uint64(p.made)))
}

// parseCursor returns the place that a cursor names, if it is one of this data's.
func parseCursor(life string, c store.Cursor) (p eventPlace, ok bool) {
	rest, ok := strings.CutPrefix(string(c), life+"-")
	if !ok || len(c) != len(life)+cursorSize {
		return p, false
	}
	xid, err1 := strconv.ParseUint(rest[:16], 16, 64)
	n, err2 := strconv.ParseUint(rest[16:24], 16, 31)
	made, err3 := strconv.ParseUint(rest[24:], 16, 63)
	if err1 != nil || err2 != nil || err3 != nil {
		return p, false
	}
	p = eventPlace{xid, int32(n), int64(made)}
	return p, p.cursor(life) == c
}

// scanCursor returns the place in a scan behind a record.
func scanCursor(life string, id store.ID) store.Cursor {
	return store.Cursor(life + "-" + id.String())
}

func parseScanCursor(life string, c store.Cursor) (store.ID, bool) {
	rest, ok := strings.CutPrefix(string(c), life+"-")
	if !ok || len(rest) > 2*64 {
		return store.ID{}, false
	}
	b, err := hex.DecodeString(rest)
	if err != nil {
		return store.ID{}, false
	}
	id, err := store.ParseID(b)
	return id, err == nil && scanCursor(life, id) == c
}

// A snapshot says which transactions are visible: those below min, and those below max that are not in running.
type snapshot struct {
	min, max uint64
	running  []uint64
}

// parseSnapshot reads PostgreSQL's text of one, "min:max:running,…".
func parseSnapshot(text string) (s snapshot, err error) {
	fields := strings.SplitN(text, ":", 3)
	if len(fields) != 3 {
		return s, fmt.Errorf("%.40q is no snapshot", text)
	}
	number := func(text string) (n uint64) {
		if err == nil {
			n, err = strconv.ParseUint(text, 10, 64)
		}
		return n
	}
	s.min, s.max = number(fields[0]), number(fields[1])
	if fields[2] != "" {
		for x := range strings.SplitSeq(fields[2], ",") {
			s.running = append(s.running, number(x))
		}
	}
	return s, err
}

func (s *snapshot) sees(xid uint64) bool {
	return xid < s.max && !slices.Contains(s.running, xid)
}
