package rehearsal

import (
	"encoding/binary"
	"hash/maphash"
)

// seed is this process's own: who chooses a subject cannot choose its hash.
var seed = maphash.MakeSeed()

// hash names a thing of a kind by 64 bits.
func hash(kind, name string, tenant uint32, occasion uint64) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(kind)
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], tenant)
	binary.BigEndian.PutUint64(b[4:], occasion)
	h.Write(b[:])
	h.WriteString(name)
	return h.Sum64()
}

// whose is the lower half of a hash: that of the person, so that everything of one person is in the sample, or nothing.
const whose = 1<<32 - 1

// of returns the thing as one of the person's.
func of(person, thing uint64) uint64 { return person&whose | thing&^whose }

// distinct counts different things, with how often each came.
type distinct map[uint64]uint32

// sample holds sets that are thinned together. When they hold more than most, all go on with half of the people: those
// whose hash ends with one more zero bit, and so on; what is counted is then multiplied.
type sample struct {
	most  int
	held  int
	level uint
	sets  []distinct
}

func (s *sample) set() distinct {
	d := make(distinct)
	s.sets = append(s.sets, d)
	return d
}

// has reports whether the person is in the sample.
func (s *sample) has(person uint64) bool { return person&(1<<s.level-1) == 0 }

// note notes that a thing of somebody in the sample came, and reports whether it is new. Another time counts only if again
// is set.
func (s *sample) note(d distinct, h uint64, again bool) bool {
	n, known := d[h]
	if !known || again {
		d[h] = n + 1
	}
	if !known {
		s.held++
	}
	return !known
}

// thin makes room. It is called when nothing is half noted.
func (s *sample) thin() {
	for s.held > s.most {
		s.level++
		s.held = 0
		for _, d := range s.sets {
			for h := range d {
				if !s.has(h) {
					delete(d, h)
				}
			}
			s.held += len(d)
		}
	}
}

// count returns how many different things there are.
func (s *sample) count(d distinct) int { return len(d) << s.level }

// twice returns how many of them came more than once.
func (s *sample) twice(d distinct) (n int) {
	for _, times := range d {
		if times > 1 {
			n++
		}
	}
	return n << s.level
}
