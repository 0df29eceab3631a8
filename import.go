package afterlogin

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// Lengths of the text of an imported API key. Anything shorter than 16 characters can be guessed.
const (
	minImported = 16
	maxImported = 512
)

// couldBeImported reports whether the text may be an API key that was made elsewhere.
func couldBeImported(text string) bool {
	if len(text) < minImported || len(text) > maxImported {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// presentedImport makes of the text what parse makes of a token. There is no MAC: the stored hash alone decides.
func presentedImport(text string) presented {
	sum := sha256.Sum256([]byte(text))
	return presented{
		Token:    opaque.Token{Kind: byte(KindAPIKey), ID: importedID(sum), Generation: 1},
		verifier: sum, trust: opaque.Doubtful,
	}
}

// importedID returns the id of an imported key's record. It can be found from the key alone, so it has no bucket and is
// in no partition of its subject's; it reveals nothing of the hash, from which a weak key could be guessed.
func importedID(sum [32]byte) store.ID {
	h := sha256.Sum256(append([]byte("afterlogin/imported/1\x00"), sum[:]...))
	return store.NewRootID(store.NoBucket, [14]byte(h[:14]), 0, "")
}

// ImportKey makes an API key of one that was made elsewhere, of which only the SHA-256 of its text is known. Its holder
// goes on using it; Config.ImportedKeys must be set for it to be accepted. The request is as for Issue, of kind
// KindAPIKey. The key must have at least 128 bits of randomness: its plain hash is all that is between a leak of the
// store's keys and the key.
//
// Importing a hash again is ErrBadRequest, in whichever tenant, and also after the key was revoked or has ended: its
// record stays, so that a key once taken back is never good again.
func (a *Authority) ImportKey(ctx context.Context, r IssueRequest, sum [32]byte) (*Session, error) {
	if !a.imported {
		return nil, badRequest("imported keys are not accepted: set Config.ImportedKeys first")
	}
	if r.Kind == 0 {
		r.Kind = KindAPIKey
	}
	if r.Kind != KindAPIKey || !r.From.IsZero() || len(r.Data) > 0 {
		return nil, badRequest("only API keys can be imported, without data and without an earlier token")
	}
	r.sum = &sum
	got, err := a.Issue(ctx, r)
	return got.Session, err
}

// ParseKeyHash decodes the SHA-256 of a key's text, as 64 hexadecimal digits or as base64 with or without padding.
func ParseKeyHash(text string) (sum [32]byte, err error) {
	b, err := decodeHash(text)
	if err != nil || len(b) != len(sum) {
		return sum, badRequest("hash: want the SHA-256 of the key, 64 hexadecimal digits")
	}
	return [32]byte(b), nil
}

// decodeHash decodes a hash in hexadecimal or in one of the forms of base64.
func decodeHash(text string) ([]byte, error) {
	if len(text) == 64 {
		return hex.DecodeString(text)
	}
	var err error
	for _, e := range hashEncodings {
		var b []byte
		if b, err = e.DecodeString(text); err == nil {
			return b, nil
		}
	}
	return nil, err
}

var hashEncodings = []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding}
