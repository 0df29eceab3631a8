package opaque_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// vectors is testdata/vectors/token.json: what another implementation of docs/token-format.md must agree with.
type vectors struct {
	Comment      string            `json:"comment"`
	Installation string            `json:"installation"`
	MACKeys      map[string]string `json:"mac_keys"`
	RotationKeys map[string]string `json:"rotation_keys"`
	Tokens       []tokenVector     `json:"tokens"`
	Successors   []successorVector `json:"successors"`
	Access       []accessVector    `json:"access_tokens"`
	Malformed    []badVector       `json:"malformed"`
	Forged       []badVector       `json:"forged"`
}

type tokenVector struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	KeyID      uint8  `json:"key_id"`
	Record     string `json:"record_id"`
	Generation uint32 `json:"generation"`
	Secret     string `json:"secret"`
	Token      string `json:"token"`
	Verifier   string `json:"verifier"`
}

type successorVector struct {
	Record     string `json:"record_id"`
	Parent     uint32 `json:"parent"`
	Generation uint32 `json:"generation"`
	Key        uint8  `json:"rotation_key_id"`
	Nonce      string `json:"nonce"`
	From       string `json:"parent_secret"`
	Secret     string `json:"secret"`
}

type accessVector struct {
	Record     string `json:"record_id"` // the access token's
	Generation uint32 `json:"grant_generation"`
	Key        uint8  `json:"rotation_key_id"`
	Nonce      string `json:"nonce"`
	From       string `json:"refresh_secret"`
	Secret     string `json:"secret"`
}

type badVector struct {
	Why  string `json:"why"`
	Text string `json:"text"`
}

// vectorMaster opens testdata/vectors/keys.json. It guards nothing.
var vectorMaster = []byte("afterlogin test vectors, no secre")[:32]

func vectorDir() string { return filepath.Join("..", "..", "testdata", "vectors") }

func vectorRing(t testing.TB) *keyring.Ring {
	t.Helper()
	path := filepath.Join(vectorDir(), "keys.json")
	if _, err := os.Stat(path); err != nil && !*update {
		t.Fatal(err) // Open would make a new one
	}
	r, err := keyring.Open(path, vectorMaster)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	ring := vectorRing(t)
	codec := opaque.NewCodec(ring)
	path := filepath.Join(vectorDir(), "token.json")
	if *update {
		writeVectors(t, ring, codec, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	inst := ring.Installation()
	if hex.EncodeToString(inst[:]) != v.Installation {
		t.Errorf("installation: keys.json has %x, token.json %s", inst, v.Installation)
	}
	for _, w := range v.Tokens {
		tok, err := opaque.Parse(w.Token)
		if err != nil {
			t.Errorf("%s: Parse: %v", w.Name, err)
			continue
		}
		id, err := store.ParseID(unhex(t, w.Record))
		if err != nil {
			t.Fatal(err)
		}
		if string(tok.Kind) != w.Kind || tok.KeyID != w.KeyID || tok.ID != id || tok.Generation != w.Generation || hex.EncodeToString(tok.Secret[:]) != w.Secret {
			t.Errorf("%s: parsed %+v, want %+v", w.Name, tok, w)
		}
		if got := trust(codec, &tok); got != opaque.Genuine {
			t.Errorf("%s: Verify = %v, want Genuine", w.Name, got)
		}
		if got := codec.Format(tok); got != w.Token {
			t.Errorf("%s: Format gives another text", w.Name)
		}
		if got := opaque.Verifier(id, tok.Generation, &tok.Secret); hex.EncodeToString(got[:]) != w.Verifier {
			t.Errorf("%s: verifier %x, want %s", w.Name, got, w.Verifier)
		}
	}
	for i, w := range v.Successors {
		id, _ := store.ParseID(unhex(t, w.Record))
		key, _ := ring.Key(keyring.Rotation, w.Key)
		got := opaque.Successor(key, id, w.Parent, w.Generation,
			(*[opaque.NonceSize]byte)(unhex(t, w.Nonce)), (*[opaque.SecretSize]byte)(unhex(t, w.From)))
		if hex.EncodeToString(got[:]) != w.Secret {
			t.Errorf("successor %d: %x, want %s", i, got, w.Secret)
		}
	}
	if len(v.Access) == 0 {
		t.Error("no vectors of access tokens")
	}
	for i, w := range v.Access {
		id, _ := store.ParseID(unhex(t, w.Record))
		key, _ := ring.Key(keyring.Rotation, w.Key)
		got := opaque.Access(key, id, w.Generation, (*[opaque.NonceSize]byte)(unhex(t, w.Nonce)), (*[opaque.SecretSize]byte)(unhex(t, w.From)))
		if hex.EncodeToString(got[:]) != w.Secret {
			t.Errorf("access token %d: %x, want %s", i, got, w.Secret)
		}
	}
	for _, w := range v.Malformed {
		if _, err := opaque.Parse(w.Text); err == nil {
			t.Errorf("malformed (%s): accepted", w.Why)
		}
	}
	for _, w := range v.Forged {
		tok, err := opaque.Parse(w.Text)
		if err != nil {
			t.Errorf("forged (%s): malformed, want well-formed and refused by the MAC", w.Why)
		} else if trust(codec, &tok) != opaque.Forged {
			t.Errorf("forged (%s): accepted", w.Why)
		}
	}
}

func writeVectors(t *testing.T, ring *keyring.Ring, codec *opaque.Codec, path string) {
	t.Helper()
	fill := func(n int, from byte) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	inst := ring.Installation()
	mac, rot := ring.Active(keyring.MAC), ring.Active(keyring.Rotation)
	v := vectors{
		Comment:      "Test vectors for docs/token-format.md. Binary values are in hexadecimal. The keys guard nothing.",
		Installation: hex.EncodeToString(inst[:]),
		MACKeys:      map[string]string{"1": hex.EncodeToString(mac.Secret())},
		RotationKeys: map[string]string{"1": hex.EncodeToString(rot.Secret())},
	}
	root := store.NewRootID(498_000, [14]byte(fill(14, 0x10)), 0, "")
	forever := store.NewRootID(store.NoBucket, [14]byte(fill(14, 0x20)), 0, "machine")
	child := store.NewChildID(root, 497_990, [6]byte(fill(6, 0x30)))
	add := func(name string, kind byte, id store.ID, gen uint32, secret []byte) string {
		tok := opaque.Token{Kind: kind, KeyID: mac.ID, ID: id, Generation: gen, Secret: [opaque.SecretSize]byte(secret)}
		text := codec.Format(tok)
		ver := opaque.Verifier(id, gen, &tok.Secret)
		v.Tokens = append(v.Tokens, tokenVector{name, string(kind), mac.ID, hex.EncodeToString(id.Append(nil)), gen,
			hex.EncodeToString(secret), text, hex.EncodeToString(ver[:])})
		return text
	}
	first := add("a session, first generation", 's', root, 1, fill(24, 0x40))
	add("a session, generation 4,294,967,295", 's', root, 1<<32-1, fill(24, 0xE8))
	add("an API key without an end", 'k', forever, 1, fill(24, 0x60))
	add("a refresh token of an offline grant", 'r', root, 7, fill(24, 0x70))
	add("a refresh token of an online grant", 'r', child, 7, fill(24, 0x80))
	access := add("an access token", 'a', child, 1, fill(24, 0x90))
	add("an authorization code", 'c', child, 1, fill(24, 0xA0))
	add("a ticket", 't', child, 1, make([]byte, 24))
	add("a session that was handed over to another host", 's', child, 3, fill(24, 0xC0))

	secret := fill(24, 0x40)
	for _, s := range []struct{ p, c uint32 }{{1, 2}, {2, 3}, {1, 3}} {
		nonce := fill(32, byte(s.c))
		got := opaque.Successor(rot, root, s.p, s.c, (*[32]byte)(nonce), (*[24]byte)(secret))
		v.Successors = append(v.Successors, successorVector{hex.EncodeToString(root.Append(nil)), s.p, s.c, rot.ID,
			hex.EncodeToString(nonce), hex.EncodeToString(secret), hex.EncodeToString(got[:])})
		secret = got[:]
	}
	for _, g := range []uint32{2, 7} {
		nonce, from := fill(32, byte(g)), fill(24, 0xB0)
		got := opaque.Access(rot, child, g, (*[32]byte)(nonce), (*[24]byte)(from))
		v.Access = append(v.Access, accessVector{hex.EncodeToString(child.Append(nil)), g, rot.ID,
			hex.EncodeToString(nonce), hex.EncodeToString(from), hex.EncodeToString(got[:])})
	}
	bad := func(why, text string) { v.Malformed = append(v.Malformed, badVector{why, text}) }
	bad("empty", "")
	bad("one character short", first[:87])
	bad("one character long", first+"A")
	bad("padded", first+"=")
	bad("a line break inside, which lenient decoders skip", first[:40]+"\n"+first[41:])
	bad("standard base64 alphabet", first[:40]+"+"+first[41:])
	bad("another brand", "xx"+first[2:])
	bad("an upper-case prefix", "AL"+first[2:])
	bad("an unknown kind", "alz"+first[3:])
	bad("an API key as long as a child", "alk"+access[3:])
	bad("an access token as short as a root", "ala"+first[3:])
	bad("no underscore", first[:3]+"-"+first[4:])
	bad("an unknown layout", first[:4]+"Ag"+first[6:])
	bad("white space around", " "+first[:87])
	bad("JSON null", "null")
	zero := opaque.Token{Kind: 's', ID: root}
	bad("generation zero", codec.Format(zero))
	forge := func(why, text string) { v.Forged = append(v.Forged, badVector{why, text}) }
	flip := func(i int) string {
		b := []byte(first)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return string(b)
	}
	forge("a digit of the root changed", flip(14))
	forge("a digit of the secret changed", flip(50))
	forge("a digit of the MAC changed", flip(80))
	forge("the kind changed to one of the same length", "alk"+first[3:])
	forge("a key id that there is not", first[:4]+"AQ"+"I"+first[7:])
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
