package opaque_test

import (
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

func sample(codec *opaque.Codec) string {
	return codec.Format(opaque.Token{
		Kind: 's', ID: store.NewRootID(500_000, [14]byte{1, 2, 3}, 0, "mia"), Generation: 9, Secret: [opaque.SecretSize]byte{7},
	})
}

// trust is what Verify says of a token, where there is no store that could be unavailable.
func trust(codec *opaque.Codec, t *opaque.Token) opaque.Trust {
	got, err := codec.Verify(t)
	if err != nil {
		panic(err)
	}
	return got
}

// Every single changed, missing or added character makes another token or none: nothing is accepted twice.
func TestEveryBitCounts(t *testing.T) {
	codec := opaque.NewCodec(keyring.New())
	good := sample(codec)
	accepted := func(s string) bool {
		tok, err := opaque.Parse(s)
		return err == nil && trust(codec, &tok) != opaque.Forged
	}
	if !accepted(good) {
		t.Fatal("the token itself is refused")
	}
	for i := range good {
		if accepted(good[:i]) {
			t.Errorf("the first %d characters are accepted", i)
		}
		if accepted(good[:i] + good[i+1:]) {
			t.Errorf("accepted without character %d", i)
		}
		for c := range 256 {
			if byte(c) != good[i] && accepted(good[:i]+string([]byte{byte(c)})+good[i+1:]) {
				t.Errorf("accepted with byte %#x at %d", c, i)
			}
		}
	}
	for _, s := range []string{good + good, good + "\n", "\n" + good, good + strings.Repeat("A", 1<<20)} {
		if accepted(s) {
			t.Errorf("a longer text of %d bytes is accepted", len(s))
		}
	}
}

func TestTrust(t *testing.T) {
	ring := keyring.New()
	codec := opaque.NewCodec(ring)
	tok, err := opaque.Parse(sample(codec))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Rotate(keyring.MAC); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		state keyring.State
		want  opaque.Trust
	}{
		{keyring.Accepted, opaque.Genuine},
		{keyring.Distrusted, opaque.Doubtful},
		{keyring.Dead, opaque.Forged},
	} {
		if err := ring.SetState(keyring.MAC, 1, step.state); err != nil {
			t.Fatal(err)
		}
		if got := trust(codec, &tok); got != step.want {
			t.Errorf("with a key that is %s: Verify = %v, want %v", step.state, got, step.want)
		}
	}
	other := opaque.NewCodec(keyring.New())
	if trust(other, &tok) != opaque.Forged {
		t.Error("another installation accepts the token")
	}
}

func FuzzParse(f *testing.F) {
	codec := opaque.NewCodec(keyring.New())
	good := sample(codec)
	f.Add(good)
	f.Add("als_" + strings.Repeat("A", 84))
	f.Add("ala_" + strings.Repeat("_", 96))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := opaque.Parse(s)
		if err != nil {
			return
		}
		if trust(codec, &tok) != opaque.Forged {
			if got := codec.Format(tok); got != s && tok.KeyID == 1 {
				t.Fatal("two texts for one token")
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	codec := opaque.NewCodec(keyring.New())
	text := sample(codec)
	b.ReportAllocs()
	for b.Loop() {
		tok, err := opaque.Parse(text)
		if err != nil || trust(codec, &tok) != opaque.Genuine {
			b.Fatal("refused")
		}
	}
}
