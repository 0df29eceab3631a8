package grade

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxCounted is how many small numbers are hashed to find them again in a token.
const maxCounted = 50000

// A known is something about the user or the visit that has no place in a token.
type known struct{ what, text string }

// knowns are the name, its local part if it is an e-mail address, and the visitor's address on this machine.
func knowns(user string, host string) []known {
	list := []known{{"the user's name", user}}
	if local, _, ok := strings.Cut(user, "@"); ok {
		list = append(list, known{"the name in the e-mail address", local})
	}
	for _, text := range []string{strings.ToLower(user), strings.ToUpper(user)} {
		if text != user {
			list = append(list, known{"the user's name", text})
		}
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if ip.IsLoopback() {
			list = append(list, known{"the visitor's address", ip.String()})
		}
	} else {
		list = append(list, known{"the visitor's address", "127.0.0.1"})
	}
	return list
}

// hashes are the fast ones that people put names and numbers through.
var hashes = []struct {
	name string
	size int
	sum  func([]byte) []byte
}{
	{"MD5", md5.Size, func(b []byte) []byte { h := md5.Sum(b); return h[:] }},
	{"SHA-1", sha1.Size, func(b []byte) []byte { h := sha1.Sum(b); return h[:] }},
	{"SHA-256", sha256.Size, func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
}

// readings are the ways in which a token can be read: as it is, and decoded.
func readings(token string) [][]byte {
	token = token[:min(len(token), maxToken)]
	all := [][]byte{[]byte(token)}
	if t, err := url.QueryUnescape(token); err == nil && t != token {
		all = append(all, []byte(t))
	}
	for _, part := range append(strings.FieldsFunc(token, func(r rune) bool { return strings.ContainsRune(".:|~$%", r) }), token) {
		if b, err := hex.DecodeString(part); err == nil {
			all = append(all, b)
		}
		part = strings.TrimRight(part, "=")
		for _, encoding := range []*base64.Encoding{base64.RawURLEncoding, base64.RawStdEncoding} {
			if b, err := encoding.DecodeString(part); err == nil {
				all = append(all, b)
				// Once more: text within that is encoded again.
				if c, err := encoding.DecodeString(strings.TrimRight(string(b), "=")); err == nil && len(b) >= 8 {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// userData looks for what is known about the user in the tokens. Something counts if it is in every one of them: short
// names are in random text now and then.
func userData(tokens []string, list []known) (found []string) {
	sample := tokens[:min(len(tokens), 50)]
	all := make([][][]byte, len(sample))
	for i, t := range sample {
		all[i] = readings(t)
	}
	in := func(needle []byte) bool {
		for _, texts := range all {
			hit := false
			for _, text := range texts {
				if hit = bytes.Contains(text, needle); hit {
					break
				}
			}
			if !hit {
				return false
			}
		}
		return true
	}
	for _, k := range list {
		if len(k.text) >= 3 && in([]byte(k.text)) {
			found = append(found, k.what)
		}
		for _, h := range hashes {
			sum := h.sum([]byte(k.text))
			text := hex.EncodeToString(sum)
			if in(sum) || in([]byte(text)) || in([]byte(strings.ToUpper(text))) {
				found = append(found, h.name+" of "+k.what)
			}
		}
	}
	return compact(found)
}

func compact(list []string) (out []string) {
	seen := make(map[string]bool)
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// guessable looks for tokens that are a hash of something that can be guessed: a small number, a time, or one of them
// beside the user's name. It returns what, or nothing.
func guessable(tokens []string, when []span, list []known) string {
	if len(tokens) < 2 {
		return ""
	}
	// The first and the last: what explains both explains the rest.
	first, last := sums(tokens[0]), sums(tokens[len(tokens)-1])
	if len(first) == 0 || len(last) == 0 {
		return ""
	}
	names := []string{""}
	for _, k := range list[:min(len(list), 3)] {
		for _, sep := range []string{"", ":", "-", "_", "|", "."} {
			names = append(names, k.text+sep)
		}
	}
	explain := func(want map[string]string, at span) string {
		for i, name := range names {
			what := "a small number"
			if name != "" {
				what = "the user's name and a small number"
			}
			most := maxCounted
			if i > 0 {
				most /= 10
			}
			for n := range most {
				if h := hit(want, name, strconv.Itoa(n)); h != "" {
					return h + " of " + what
				}
			}
			what = strings.Replace(what, "a small number", "the time", 1)
			for s := at.from.Unix() - 3; s <= at.to.Unix()+3; s++ {
				if h := hit(want, name, strconv.FormatInt(s, 10)); h != "" {
					return h + " of " + what
				}
			}
			for ms := at.from.UnixMilli() - 1000; ms <= at.to.UnixMilli()+1000; ms++ {
				if h := hit(want, name, strconv.FormatInt(ms, 10)); h != "" {
					return h + " of " + what
				}
			}
		}
		return ""
	}
	a := explain(first, when[0])
	if a == "" || explain(last, when[len(when)-1]) != a {
		return ""
	}
	return fmt.Sprintf("the token is the %s", a)
}

// sums are the parts of the token that could be a hash, decoded, with the hash's name.
func sums(token string) map[string]string {
	found := make(map[string]string)
	for _, text := range readings(token) {
		for _, h := range hashes {
			if n := len(h.sum(nil)); len(text) == n {
				found[string(text)] = h.name
			}
		}
	}
	return found
}

// sized reports whether one of the wanted hashes has the size.
func sized(want map[string]string, size int) bool {
	for sum := range want {
		if len(sum) == size {
			return true
		}
	}
	return false
}

func hit(want map[string]string, name, number string) string {
	for _, text := range []string{name + number, number + name} {
		for _, h := range hashes {
			if !sized(want, h.size) {
				continue
			}
			if want[string(h.sum([]byte(text)))] == h.name {
				return h.name
			}
		}
		if name == "" {
			break
		}
	}
	return ""
}
