package grade

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func pick(alphabet string, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(alphabet[mrand.N(len(alphabet))])
	}
	return b.String()
}

// collect makes tokens as if one had been given out every 20 ms.
func collect(n int, token func(i int, at time.Time) string) (tokens []string, when []span) {
	at := time.Now()
	for i := range n {
		tokens = append(tokens, token(i, at))
		when = append(when, span{at.Add(-5 * time.Millisecond), at.Add(5 * time.Millisecond)})
		at = at.Add(20 * time.Millisecond)
	}
	return tokens, when
}

// TestGoodTokens checks that chance is taken for chance, in every usual form, again and again.
func TestGoodTokens(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]struct {
		bits  float64
		token func() string
	}{
		"hex 128":        {128, func() string { return hex.EncodeToString(random(16)) }},
		"hex 256":        {256, func() string { return hex.EncodeToString(random(32)) }},
		"upper-case hex": {128, func() string { return strings.ToUpper(hex.EncodeToString(random(16))) }},
		"base64url 128":  {128, func() string { return base64.RawURLEncoding.EncodeToString(random(16)) }},
		"base64 192":     {192, func() string { return base64.StdEncoding.EncodeToString(random(24)) }},
		"base64 160":     {160, func() string { return base64.StdEncoding.EncodeToString(random(20)) }},
		"base32 160":     {160, func() string { return base32.StdEncoding.EncodeToString(random(20)) }},
		"base62, 22":     {22 * 5.954, func() string { return pick(base62, 22) }},
		"base36, 26":     {26 * 5.17, func() string { return pick(digits+lower, 26) }},
		"decimal, 40":    {40 * 3.3219, func() string { return pick(digits, 40) }},
		"letters, 24":    {24 * 5.7, func() string { return pick(letters, 24) }},
		"UUID v4":        {122, func() string { return uuid4() }},
		"two UUIDs":      {244, func() string { return uuid4() + "." + uuid4() }},
		"with a prefix":  {192, func() string { return "sess_" + base64.RawURLEncoding.EncodeToString(random(24)) }},
		"with a signature": {384, func() string {
			return "s:" + pick(base62+"-_", 32) + "." + base64.RawURLEncoding.EncodeToString(random(24))
		}},
		"Express": {192 + 256, func() string {
			return "s%3A" + base64.RawURLEncoding.EncodeToString(random(24)) + "." + url.QueryEscape(base64.RawStdEncoding.EncodeToString(random(32)))
		}},
		"PHP, 26": {26 * 5, func() string { return pick("0123456789abcdefghijklmnopqrstuv", 26) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{12, 40, 200} {
				for range 5 {
					tokens, when := collect(n, func(int, time.Time) string { return good.token() })
					a := analyse(tokens, when)
					if a.Bits < good.bits*0.985-1 || a.Bits > good.bits*1.05+8 || len(a.Counters)+len(a.Times)+a.Repeats > 0 {
						t.Fatalf("%d tokens: %+v, want %.1f bits", n, a, good.bits)
					}
					if list := knowns("mia", "localhost"); userData(tokens, list) != nil {
						t.Fatalf("%d tokens: user data %q", n, userData(tokens, list))
					}
				}
			}
		})
	}
}

func uuid4() string {
	b := random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// TestBadTokens checks that what is not chance is not taken for it.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	lcg := uint32(12345)
	word := random(4)
	for name, bad := range map[string]struct {
		most  float64 // bits
		what  string  // counter or time, or nothing
		token func(i int, at time.Time) string
	}{
		"decimal counter": {0, "counter", func(i int, _ time.Time) string { return strconv.Itoa(995 + i) }},
		"hex counter":     {0, "counter", func(i int, _ time.Time) string { return fmt.Sprintf("%032x", 1<<40+3*i) }},
		"counter, base64": {0, "counter", func(i int, _ time.Time) string {
			return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(i+300)))
		}},
		"counter, little": {1, "counter", func(i int, _ time.Time) string {
			return hex.EncodeToString(binary.LittleEndian.AppendUint32(word[:2:2], uint32(i)))
		}},
		"counter beside chance": {33, "counter", func(i int, _ time.Time) string { return fmt.Sprintf("%08x%x", i, random(4)) }},
		"seconds":               {0, "time", func(_ int, at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }},
		"milliseconds, hex":     {0, "time", func(_ int, at time.Time) string { return fmt.Sprintf("%016x", at.UnixMilli()) }},
		"microseconds":          {0, "time", func(_ int, at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }},
		"text with time": {33, "time", func(_ int, at time.Time) string {
			return base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("mia:%d:%x", at.Unix(), random(4))))
		}},
		"ObjectID": {33, "time", func(i int, at time.Time) string { return fmt.Sprintf("%08x%x%06x", at.Unix(), word, i) }},
		"xid": {1, "time", func(i int, at time.Time) string {
			b := binary.BigEndian.AppendUint32(nil, uint32(at.Unix()))
			b = append(append(b, word...), 7, 0, byte(i>>8), byte(i))
			return hex32.EncodeToString(b)
		}},
		"KSUID, 64 bits": {66, "time", func(_ int, at time.Time) string {
			b := append(binary.BigEndian.AppendUint32(nil, uint32(at.Unix()-1400000000)), append(make([]byte, 8), random(8)...)...)
			n, s := new(big.Int).SetBytes(b), ""
			for range 27 {
				r := new(big.Int)
				n.DivMod(n, big.NewInt(62), r)
				s = string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[r.Int64()]) + s
			}
			return s
		}},
		"snowflake": {1, "time", func(i int, at time.Time) string {
			return strconv.FormatInt((at.UnixMilli()-1288834974657)<<22|5<<12|int64(i%3), 10)
		}},
		"UUIDv7": {75, "time", func(_ int, at time.Time) string {
			b := random(16)
			binary.BigEndian.PutUint64(b, uint64(at.UnixMilli())<<16|0x7000|uint64(b[7]))
			b[8] = b[8]&0x3f | 0x80
			return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		}},
		"repeated word": {33, "", func(int, time.Time) string { return strings.Repeat(hex.EncodeToString(random(4)), 4) }},
		"with a checksum": {65, "", func(int, time.Time) string {
			b := random(8)
			return hex.EncodeToString(b) + hex.EncodeToString([]byte{b[0] ^ b[3], b[1] ^ b[7], b[2] ^ b[4], b[5] ^ b[6] ^ 0x55})
		}},
		"biased": {110, "", func(int, time.Time) string {
			b, c := random(16), random(16)
			for i := range b {
				b[i] |= c[i]
			}
			return hex.EncodeToString(b)
		}},
		"few characters":   {34, "", func(int, time.Time) string { return pick("ab", 32) }},
		"uneven letters":   {56, "", func(int, time.Time) string { return pick("aaaaaaaaaaaaab", 64) + pick("xy", 8) }},
		"linear generator": {33, "", func(int, time.Time) string { lcg = lcg*1664525 + 1013904223; return fmt.Sprintf("%08x", lcg) }},
		"few tokens":       {14, "", func(int, time.Time) string { s := md5.Sum([]byte{byte(mrand.N(200))}); return hex.EncodeToString(s[:]) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokens, when := collect(200, bad.token)
			a := analyse(tokens, when)
			if a.Bits > bad.most {
				t.Errorf("%.1f bits, want at most %.0f: %+v", a.Bits, bad.most, a)
			}
			if (bad.what == "time") != (len(a.Times) > 0) || bad.what == "counter" && len(a.Counters) == 0 || bad.what == "" && len(a.Counters) > 0 {
				t.Errorf("want %q: %+v", bad.what, a)
			}
		})
	}
}

// TestFewTokens checks that what two or three tokens have in common by chance is not held against them.
func TestFewTokens(t *testing.T) {
	t.Parallel()
	for n := 2; n <= fewest; n++ {
		for range 10 {
			for name, token := range map[string]func() string{
				"hex":     func() string { return hex.EncodeToString(random(16)) },
				"base64":  func() string { return base64.RawURLEncoding.EncodeToString(random(32)) },
				"base62":  func() string { return pick(base62, 22) },
				"decimal": func() string { return pick(digits, 40) },
			} {
				tokens, when := collect(n, func(int, time.Time) string { return token() })
				if a := analyse(tokens, when); a.Bits < 127 || len(a.Counters)+len(a.Times) > 0 {
					t.Fatalf("%s, %d tokens: %+v", name, n, a)
				}
			}
		}
	}
}

// TestUneven checks that a bias is seen which all bits have a little of, and that chance has none, with any seed.
func TestUneven(t *testing.T) {
	t.Parallel()
	biased := func(r *mrand.Rand, p float64, bytes int) string {
		b := make([]byte, bytes)
		for i := range 8 * bytes {
			if r.Float64() < p {
				b[i/8] |= 1 << (i % 8)
			}
		}
		return hex.EncodeToString(b)
	}
	for seed := range uint64(12) {
		r := mrand.New(mrand.NewPCG(seed, 5))
		for _, n := range []int{fewest, 50, 200} {
			for _, bytes := range []int{2, 16, 32} {
				tokens, when := collect(n, func(int, time.Time) string { return biased(r, 0.5, bytes) })
				if a := analyse(tokens, when); a.Uneven || bytes > 2 && a.Bits < float64(8*bytes)-1 {
					t.Fatalf("seed %d, %d fair tokens of %d bytes: %+v", seed, n, bytes, a)
				}
			}
		}
		tokens, when := collect(200, func(int, time.Time) string { return biased(r, 0.6, 16) })
		a := analyse(tokens, when)
		if !a.Uneven || a.Bits > 100 || a.Bits < 85 { // 128 * -log2(0.6) is 94
			t.Fatalf("seed %d, biased: %+v", seed, a)
		}
		e := &examination{report: &Report{}}
		if e.entropy(a, "hexadecimal", false); strings.Join(findings(e.report), ",") != "token-entropy medium" {
			t.Fatalf("seed %d: %s", seed, seen(e.report))
		}
	}
	for degrees, chi := range map[int]float64{1: 36, 10: 80, 128: 245} { // far out, each
		if got := chiDeviations(chi, degrees); got < 4.5 || got > 7 {
			t.Errorf("%g with %d degrees: %.1f deviations", chi, degrees, got)
		}
	}
	if sum, uneven := frequencies([]int{100, 101, 190}, 200); !uneven || sum > 2.2 || sum < 2.05 {
		t.Errorf("one of three stands out: %.2f, %v", sum, uneven)
	}
}

func TestUserData(t *testing.T) {
	t.Parallel()
	list := knowns("Mia@shop.example", "localhost")
	sum := md5.Sum([]byte("mia@shop.example"))
	for name, tt := range map[string]struct {
		want  string
		token func() string
	}{
		"nothing": {"", func() string { return hex.EncodeToString(random(20)) }},
		"plain":   {"the user's name", func() string { return "mia@shop.example-" + hex.EncodeToString(random(8)) }},
		"base64": {"the user's name", func() string {
			return base64.StdEncoding.EncodeToString([]byte(`{"u":"Mia@shop.example","r":"` + pick(letters, 9) + `"}`))
		}},
		"hex":          {"the user's name", func() string { return hex.EncodeToString([]byte("MIA@SHOP.EXAMPLE|" + pick(letters, 9))) }},
		"escaped":      {"the user's name", func() string { return "mia%40shop.example." + pick(letters, 20) }},
		"MD5":          {"MD5 of the user's name", func() string { return pick(letters, 9) + "." + hex.EncodeToString(sum[:]) }},
		"raw MD5":      {"MD5 of the user's name", func() string { return base64.RawURLEncoding.EncodeToString(append(sum[:], random(6)...)) }},
		"address":      {"the visitor's address", func() string { return base64.StdEncoding.EncodeToString([]byte("127.0.0.1|" + pick(letters, 12))) }},
		"now and then": {"", func() string { return []string{"mia@shop.example", "tom"}[mrand.N(2)] + pick(letters, 20) }},
	} {
		tokens, _ := collect(50, func(int, time.Time) string { return tt.token() })
		got := strings.Join(userData(tokens, list), ", ")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// FuzzAnalyse checks that no text makes the reading of tokens fail, or count more chance than there are bits.
func FuzzAnalyse(f *testing.F) {
	f.Add("a", "b", "c")
	f.Add("00", "01", "02")
	f.Add("bWlhOjE=", "bWlhOjI=", "bWlhOjM=")
	f.Add("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW", "01ARZ3NDEKTSV4RRFFQ69G5FAX")
	f.Add("c232ab00-9414-11ec-b3c8-9f6bdeced846", "c232ab00-9414-11ec-b3c8-9f6bdeced847", "c232ab01-9414-11ec-b3c8-9f6bdeced846")
	f.Add("a.b:c", "", "=")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		tokens := []string{a, b, c}
		for i := range 12 {
			tokens = append(tokens, a+strconv.Itoa(i), b)
		}
		at := time.Now()
		when := make([]span, len(tokens))
		for i := range when {
			when[i] = span{at, at}
		}
		got := analyse(tokens, when)
		if got.Bits < 0 || got.Bits > float64(8*got.Longest)+1 {
			t.Errorf("%q %q %q: %+v", a, b, c, got)
		}
		userData(tokens, knowns(a, b))
		readings(a)
		stranger(a)
		mask(a)
		parseJWT(a)
	})
}
