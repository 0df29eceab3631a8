package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/keyring"
)

// maxSecret is the greatest size of a file with a secret, in bytes; of a chain of certificates, too.
const maxSecret = 1 << 20

// CheckFiles reads what the settings name, the TLS pair, the master key and the address of the store, and reports what is wrong with it as Faults.
// Load does not, since settings can be shown by whoever may not read the secrets. It makes nothing, and does not look
// into the data directory.
func (l *Loaded) CheckFiles() error {
	l.faults = nil
	c := &l.Config
	if _, err := c.TLS(); err != nil {
		key := "tls.cert"
		if errors.Is(err, errTLSKey) {
			key = "tls.key"
		}
		l.faultHint(key, "tls.cert and tls.key name PEM files that belong together", "%v", err)
	}
	if _, err := c.Master(); err != nil {
		key := "master_key_file"
		if c.MasterKey != "" {
			key = Prefix + "MASTER_KEY"
		}
		l.fault(key, "%v", err)
	}
	if _, err := c.StoreAddress(); err != nil {
		l.fault("store_file", "%v", err)
	}
	if _, err := c.SignInProviders(); err != nil {
		l.fault("sign_in.providers", "%v", err)
	}
	var client *clientError
	if _, err := c.OAuthClients(); errors.As(err, &client) {
		var field *clients.FieldError
		if errors.As(err, &field) {
			l.clientFault(client.client, field)
		} else {
			l.fault("oauth.clients."+strconv.Itoa(client.client), "%v", err)
		}
	}
	if len(l.faults) > 0 {
		return l.faults
	}
	return nil
}

var errTLSKey = errors.New("TLS key")

// TLS reads the certificate and its key. It returns nil for a server without TLS.
func (c *Config) TLS() (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	chain, err := readSmall(c.TLSCert)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	key, err := readSmall(c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTLSKey, err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// Master returns the master key that is set or whose file is named, nil if there is neither: then it is in the data
// directory.
func (c *Config) Master() ([]byte, error) {
	switch {
	case c.MasterKey != "":
		key, err := keyring.ParseMaster(c.MasterKey)
		if err != nil {
			return nil, fmt.Errorf("%sMASTER_KEY: %w", Prefix, err)
		}
		return key, nil
	case c.MasterKeyFile != "":
		// What mounts secrets into a container often makes them readable to all in it: that is the operator's choice.
		b, err := readSmall(c.MasterKeyFile)
		if err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
		key, err := keyring.ParseMaster(string(b))
		if err != nil {
			return nil, fmt.Errorf("%w (%s)", err, c.MasterKeyFile)
		}
		return key, nil
	}
	return nil, nil
}

// StoreAddress returns the address of the store, "" for the embedded one: the one that is set, or that in the file that is
// named. It may have a password in it.
func (c *Config) StoreAddress() (string, error) {
	if c.StoreFile == "" {
		return c.Store, nil
	}
	b, err := readSmall(c.StoreFile)
	if err != nil {
		return "", fmt.Errorf("address of the store: %w", err)
	}
	address := strings.TrimSpace(string(b))
	if err := backend.Check(address); err != nil { // an empty file must not mean the embedded store
		return "", fmt.Errorf("%w (%s); the forms are %s", err, c.StoreFile, backend.Forms)
	}
	return address, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is over %d bytes", path, maxSecret)
	}
	return b, err
}
