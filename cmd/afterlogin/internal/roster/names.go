package roster

import (
	"encoding/binary"
	"hash/maphash"
)

// names keeps the subjects: each once, beside each other in blocks of memory, since there may be as many as sessions. A
// subject is named by the place of its entry, which is: its first row 4, whether it is dead 1, its length 2, its text.
type names struct {
	blocks [][]byte
	slots  []uint32 // open addressing, of a power of two; place+1, 0: free
	used   int      // of slots, the dead included
	live   int
	dead   int // bytes of entries that nobody needs
	seed   maphash.Seed
}

const (
	blockBits = 20
	blockSize = 1 << blockBits
	nameHead  = 4 + 1 + 2
	noRow     = ^uint32(0)
	noName    = ^uint32(0)
)

func newNames() names { return names{slots: make([]uint32, 1<<8), seed: maphash.MakeSeed()} }

func (n *names) entry(place uint32) []byte { return n.blocks[place>>blockBits][place&(blockSize-1):] }

// text returns the subject's text. It is shared: nobody may change it.
func (n *names) text(place uint32) []byte {
	e := n.entry(place)
	size := int(binary.LittleEndian.Uint16(e[5:]))
	return e[nameHead : nameHead+size]
}

func (n *names) first(place uint32) uint32 { return binary.LittleEndian.Uint32(n.entry(place)) }
func (n *names) setFirst(place uint32, row uint32) {
	binary.LittleEndian.PutUint32(n.entry(place), row)
}

// find returns the subject's place, or noName.
func (n *names) find(subject string) uint32 {
	for i := n.slot(subject); ; i = (i + 1) & (len(n.slots) - 1) {
		s := n.slots[i]
		if s == 0 {
			return noName
		}
		if string(n.text(s-1)) == subject && n.entry(s - 1)[4] == 0 {
			return s - 1
		}
	}
}

func (n *names) slot(subject string) int {
	return int(maphash.String(n.seed, subject)) & (len(n.slots) - 1)
}

// add returns the subject's place, and makes one if it has none.
func (n *names) add(subject string) uint32 {
	if p := n.find(subject); p != noName {
		return p
	}
	if (n.used+1)*4 > len(n.slots)*3 {
		n.rehash()
	}
	size := nameHead + len(subject)
	last := len(n.blocks) - 1
	if last < 0 || len(n.blocks[last])+size > blockSize {
		n.blocks = append(n.blocks, make([]byte, 0, blockSize))
		last++
	}
	b := n.blocks[last]
	place := uint32(last<<blockBits | len(b))
	b = binary.LittleEndian.AppendUint32(b, noRow)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(subject)))
	n.blocks[last] = append(b, subject...)
	n.put(place, subject)
	n.live++
	return place
}

func (n *names) put(place uint32, subject string) {
	i := n.slot(subject)
	for n.slots[i] != 0 {
		i = (i + 1) & (len(n.slots) - 1)
	}
	n.slots[i] = place + 1
	n.used++
}

// drop forgets a subject without rows. Its place stays taken until compact.
func (n *names) drop(place uint32) {
	n.entry(place)[4] = 1
	n.dead += nameHead + len(n.text(place))
	n.live--
}

// rehash makes the slots anew, without the dead, and larger if it needs to be.
func (n *names) rehash() {
	size := len(n.slots)
	for (n.live+1)*2 > size {
		size *= 2
	}
	old := n.slots
	n.slots, n.used = make([]uint32, size), 0
	for _, s := range old {
		if s != 0 && n.entry(s - 1)[4] == 0 {
			n.put(s-1, string(n.text(s-1)))
		}
	}
}

// wasteful reports whether it is worth while to write the names anew.
func (n *names) wasteful() bool {
	return n.dead > blockSize && n.dead > len(n.blocks)*blockSize/2
}

func (n *names) size() int { return len(n.blocks)*blockSize + 4*len(n.slots) }
