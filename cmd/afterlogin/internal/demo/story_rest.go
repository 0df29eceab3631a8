package demo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// nothingAtRest looks for every token, and for the secret in it, in every file of the store.
func (s *story) nothingAtRest(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	err := filepath.WalkDir(s.demo.Data(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the store cleans up while we look
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size += len(b)
		for _, token := range s.tokens {
			if strings.HasPrefix(token, "eyJ") { // a JWT
				if bytes.Contains(b, []byte(token)) {
					return fmt.Errorf("%s holds a JWT", filepath.Base(path))
				}
				continue
			}
			_, text, _ := strings.Cut(token, "_")
			body, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil || len(body) < 24+16 {
				return errors.New("a cookie that was set is not a token")
			}
			secret := body[len(body)-24-16 : len(body)-16] // docs/token-format.md: it stands before the MAC
			if bytes.Contains(b, []byte(token)) || bytes.Contains(b, secret) {
				return fmt.Errorf("%s holds a token", filepath.Base(path))
			}
		}
		return nil
	})
	if err == nil && (size == 0 || len(s.tokens) < 5) {
		err = errors.New("there is nothing to look at")
	}
	return fmt.Sprintf("%d tokens, %d bytes", len(s.tokens), size), err
}
