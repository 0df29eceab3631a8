package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxFile is the greatest size of a key file, in bytes: 4 purposes with 255 keys of about 250 bytes, and 64 signing keys of
// at most 4 KiB.
const maxFile = 512 << 10

// fileLayout is the layout of the key file that this package writes. Layout 1 had no signing keys, and layout 2 no next
// keys; they are read, too, and become layout 3 when the ring is next written.
const fileLayout = 3

// file is the key file. Only the secrets are sealed; their names and states are covered by the seal.
type file struct {
	Layout       int       `json:"layout"`
	Installation string    `json:"installation"` // 16 bytes, hexadecimal
	Keys         []fileKey `json:"keys"`
	// Signing are the signing keys, from layout 2 on.
	Signing []fileSigningKey `json:"signing,omitempty"`
}

type fileKey struct {
	Purpose Purpose   `json:"purpose"`
	ID      uint8     `json:"id"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	From    time.Time `json:"from,omitzero"` // of a next key, from layout 3 on
	Sealed  []byte    `json:"sealed"`        // AES-256-GCM under the master key: nonce 12, ciphertext 32, tag 16
}

// ErrWrongMaster is returned by Open and OpenShared when the master key does not open the keys, or they were changed.
var ErrWrongMaster = errors.New("keyring: the master key does not open the keys")

// Open reads the ring from the file, or makes the file with fresh keys if there is none. The file is readable by its
// owner only (0600); its secrets are sealed with the master key, 32 bytes. It returns ErrWrongMaster if they cannot be
// opened. One process at a time may change a ring's file.
func Open(path string, master []byte) (*Ring, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("keyring: master key of %d bytes, want %d", len(master), KeySize)
	}
	b, err := readLimited(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		r := New()
		r.path = path
		r.master = (*[KeySize]byte)(bytes.Clone(master))
		text, err := r.text(r.contents())
		if err == nil {
			err = createFile(path, text)
		}
		if errors.Is(err, fs.ErrExist) { // another process was first
			return Open(path, master)
		}
		return r, err
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	r, err := parse(b, master)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	r.path = path
	return r, nil
}

func parse(b, master []byte) (*Ring, error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("keyring: bad key file: %w", err)
	}
	if f.Layout < 1 || f.Layout > fileLayout {
		return nil, fmt.Errorf("keyring: key file of layout %d, this version reads 1 to %d", f.Layout, fileLayout)
	}
	if f.Layout == 1 && len(f.Signing) > 0 {
		return nil, errors.New("keyring: bad key file: signing keys in layout 1")
	}
	if f.Layout < 3 && slices.ContainsFunc(f.Keys, func(k fileKey) bool { return k.State == Next || !k.From.IsZero() }) {
		return nil, fmt.Errorf("keyring: bad key file: a next key in layout %d", f.Layout)
	}
	r, all := &Ring{}, make(keys)
	r.master = (*[KeySize]byte)(bytes.Clone(master))
	if n, err := hex.Decode(r.installation[:], []byte(f.Installation)[:min(len(f.Installation), 32)]); err != nil || n != 16 || len(f.Installation) != 32 {
		return nil, errors.New("keyring: bad key file: installation is not 16 bytes in hexadecimal")
	}
	for _, k := range f.Keys {
		if !slices.Contains(purposes, k.Purpose) || k.State.rank() < 0 || k.ID == 0 {
			return nil, fmt.Errorf("keyring: bad key file: %s key %d has an unknown purpose, state or id", k.Purpose, k.ID)
		}
		secret, err := r.open(k)
		if err != nil {
			return nil, err
		}
		all[k.Purpose] = append(all[k.Purpose], Key{ID: k.ID, State: k.State, Created: k.Created, From: k.From, secret: secret})
	}
	for _, p := range purposes {
		if err := checkKeys(p, all[p]); err != nil {
			return nil, err
		}
	}
	signing, err := r.parseSigning(f.Signing)
	if err != nil {
		return nil, err
	}
	r.keys.Store(&all)
	r.signing.Store(&signing)
	return r, nil
}

func checkKeys(p Purpose, list []Key) error {
	active := 0
	for i, k := range list {
		if k.State == Active {
			active++
		}
		if i > 0 && list[i-1].ID >= k.ID {
			return fmt.Errorf("keyring: bad key file: the ids of the %s keys do not rise", p)
		}
		if next := k.State == Next; next == k.From.IsZero() || next && i != len(list)-1 {
			return fmt.Errorf("keyring: bad key file: %s key %d is next without being the last, or without a time, or has one without being next", p, k.ID)
		}
	}
	if active != 1 {
		return fmt.Errorf("keyring: bad key file: %d active %s keys, want 1", active, p)
	}
	return nil
}

// write replaces the file.
func (r *Ring) write(c contents) error {
	text, err := r.text(c)
	if err != nil {
		return err
	}
	return replaceFile(r.path, text)
}

// text returns what the file holds.
func (r *Ring) text(c contents) ([]byte, error) {
	f := file{Layout: fileLayout, Installation: hex.EncodeToString(r.installation[:])}
	for _, p := range purposes {
		for _, k := range c.keys[p] {
			fk := fileKey{Purpose: p, ID: k.ID, State: k.State, Created: k.Created, From: k.From}
			fk.Sealed = r.seal(fk, k.secret)
			f.Keys = append(f.Keys, fk)
		}
	}
	var err error
	if f.Signing, err = r.fileSigning(c.signing); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return append(b, '\n'), nil
}

// replaceFile makes the file anew beside the old one and moves it into place, so that a crash leaves the one or the other.
func replaceFile(path string, b []byte) error { return placeFile(path, b, os.Rename) }

// createFile makes the file, whole or not at all. It fails with fs.ErrExist if there is one: of two processes that start
// at once, the second must not replace keys that the first already uses.
func createFile(path string, b []byte) error { return placeFile(path, b, os.Link) }

func placeFile(path string, b []byte, place func(from, to string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails if it was moved into place
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = place(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("keyring: write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (r *Ring) aead() cipher.AEAD {
	block, err := aes.NewCipher(r.master[:])
	if err != nil {
		panic(err) // the size is right
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

// aad is what the seal of a key covers besides its secret.
func (r *Ring) aad(k fileKey) []byte {
	b := append([]byte("afterlogin/keyring/1\x00"), r.installation[:]...)
	b = append(b, k.Purpose...)
	b = append(b, 0, k.ID)
	b = append(b, k.State...)
	b = binary.BigEndian.AppendUint64(append(b, 0), uint64(k.Created.Unix()))
	if k.From.IsZero() {
		return b
	}
	return binary.BigEndian.AppendUint64(b, uint64(k.From.UnixMilli()))
}

func (r *Ring) seal(k fileKey, secret *[KeySize]byte) []byte {
	nonce := make([]byte, 12, 12+KeySize+16)
	rand.Read(nonce)
	return r.aead().Seal(nonce, nonce, secret[:], r.aad(k))
}

func (r *Ring) open(k fileKey) (*[KeySize]byte, error) {
	if len(k.Sealed) != 12+KeySize+16 {
		return nil, fmt.Errorf("keyring: bad key file: sealed %s key %d of %d bytes", k.Purpose, k.ID, len(k.Sealed))
	}
	b, err := r.aead().Open(nil, k.Sealed[:12], k.Sealed[12:], r.aad(k))
	if err != nil {
		return nil, ErrWrongMaster
	}
	return (*[KeySize]byte)(b), nil
}

// Master reads a master key from a file that holds 32 bytes in base64, or makes the file, readable by its owner only,
// with a fresh key if there is none. It refuses a file that others can read.
func Master(path string) ([]byte, error) {
	b, err := readLimited(path, 1<<10)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, KeySize)
		rand.Read(key)
		err := createFile(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
		if errors.Is(err, fs.ErrExist) {
			return Master(path)
		}
		return key, err
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: master key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("keyring: master key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("keyring: master key %s can be read by others (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	key, err := ParseMaster(string(b))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return key, nil
}

// ParseMaster decodes a master key, 32 bytes in base64, as it stands in a file or an environment variable. The error
// does not repeat the text.
func ParseMaster(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("keyring: a master key is %d random bytes in base64; make one with: head -c %d /dev/urandom | base64", KeySize, KeySize)
	}
	return key, nil
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}
