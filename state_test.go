package afterlogin

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

func sampleState() *state {
	s := &state{
		generation: 9, verifier: [32]byte{1}, renewed: 5, replaced: 1, stamp: epochs{3, 4}, op: opID{5},
		policy: "browser", name: "laptop", authAt: 6, methods: []string{"pwd", "otp"}, scopes: []string{"a"},
		device: Client{Addr: netip.MustParseAddr("2001:db8::1"), UserAgent: "x/1"},
	}
	for i := range ringSize {
		s.ring = append(s.ring, link{generation: uint32(6 + i), parent: uint32(5 + i), nonce: [32]byte{9}, key: 1, at: 7, client: clientHash{8}})
	}
	return s
}

// Whatever decodes encodes to the same bytes, and nothing else decodes: one encoding, and no panic.
func FuzzDecodeState(f *testing.F) {
	b, err := sampleState().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	held := sampleState()
	held.frozen, held.frozenFor = 7, "incident"
	if b, err = held.encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{stateLayout})
	f.Add(bytes.Repeat([]byte{0xFF}, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil || len(b) > maxState {
			return
		}
		again, err := s.encode()
		if err != nil && len(b) > maxState-frozenSize {
			return // the room for a hold is kept free in a new one
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("what was decoded and encoded does not decode: %v", err)
		}
	})
}

func FuzzDecodeSubject(f *testing.F) {
	s := subjectState{epochs: epochs{1, 2}, bumps: 3, except: store.NewRootID(5, [14]byte{1}, 0, "x"), stamp: epochs{7, 8}}
	f.Add(s.encode())
	s.remember(ReasonPasswordChanged)
	f.Add(s.encode())
	f.Add([]byte{stateLayout, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSubject(b)
		if err == nil {
			s.ending(KindSession, store.ID{}, epochs{}, time.Now()) // the past may say anything, and must not panic
		}
		if err == nil && b[0] == subjectLayout && !bytes.Equal(s.encode(), b) {
			t.Fatal("two encodings")
		}
	})
}

func FuzzDecodeData(f *testing.F) {
	d := &data{values: make(map[string]value), closed: 3}
	for k, v := range map[string]string{"cart": "[1,2]", "note": `"x"`} {
		if err := d.set(k, []byte(v)); err != nil {
			f.Fatal(err)
		}
	}
	b, err := d.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{stateLayout, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeData(b); err == nil {
			if _, err := d.encode(); err != nil && len(b) < 60_000 {
				t.Fatal(err)
			}
		}
	})
}

func FuzzSessionID(f *testing.F) {
	f.Add(string(newSessionID(KindSession, store.NewRootID(5, [14]byte{1}, 0, "x"))))
	f.Add("ses_AAAA\nAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := SessionID(s).parse()
		if err == nil && newSessionID(KindSession, id) != SessionID(s) && newSessionID(KindAPIKey, id) != SessionID(s) {
			t.Fatal("two texts for one id")
		}
	})
}

func TestStateDoesNotGrow(t *testing.T) {
	a, err := sampleState().encode()
	if err != nil {
		t.Fatal(err)
	}
	s := sampleState()
	s.generation = 1<<32 - 1
	b, err := s.encode()
	if err != nil || len(a) != len(b) {
		t.Errorf("%d bytes in generation 9, %d in the last: %v", len(a), len(b), err)
	}
	if len(a) > 600 {
		t.Errorf("a state of %d bytes", len(a))
	}
}

func TestClientHash(t *testing.T) {
	chrome := "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
	at := func(addr, ua string) clientHash { return Client{netip.MustParseAddr(addr), ua}.hash() }
	base := at("198.51.100.7", chrome)
	for _, tt := range []struct {
		name, addr, ua string
		same           bool
	}{
		{"another address of the network", "198.51.100.200", chrome, true},
		{"the same, mapped into IPv6", "::ffff:198.51.100.7", chrome, true},
		{"a newer version", "198.51.100.7", strings.Replace(chrome, "156", "157", 1), true},
		{"another network", "198.51.101.7", chrome, false},
		{"Edge, which says Chrome too", "198.51.100.7", chrome + " Edg/156.0.0.0", false},
		{"curl", "198.51.100.7", "curl/8.9.0", false},
		{"nothing", "198.51.100.7", "", false},
	} {
		if got := at(tt.addr, tt.ua) == base; got != tt.same {
			t.Errorf("%s: same client %v, want %v", tt.name, got, tt.same)
		}
	}
	if at("2001:db8:1:2::3", "x") != at("2001:db8:1:ffff::9", "x") || at("2001:db8:1::3", "x") == at("2001:db8:2::3", "x") {
		t.Error("IPv6 networks are not told apart by /48")
	}
	if (Client{}).hash() != (Client{}).hash() {
		t.Error("nothing known does not equal nothing known")
	}
}
