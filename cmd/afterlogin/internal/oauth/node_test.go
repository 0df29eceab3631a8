//go:build browser

package oauth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// OAuth clients for JavaScript that nobody here wrote, as they are. They are behind a build tag since they need Node.js and
// npm packages; where those are asked for, that they are missing is a failure.
func TestJavaScriptClients(t *testing.T) {
	const install = "run scripts/test.sh, which installs what is needed (apt-get install nodejs npm; npm ci in test/oauth)"
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "test", "oauth"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openid-client", "oauth4webapi"} {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err != nil {
			t.Fatalf("the npm package %s is missing: %s", name, install)
		}
	}
	f := newFixture(t, memstore.New()).usual()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwt.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwt.NewKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	f.client("signer", clients.Settings{Auth: clients.KeyJWT, Keys: jwks, GrantTypes: []string{clients.ClientCredentials}})
	var private map[string]any
	b, err := public.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &private); err != nil {
		t.Fatal(err)
	}
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	private["d"], private["key_ops"] = base64.RawURLEncoding.EncodeToString(d), []string{"sign"}
	delete(private, "use")
	if b, err = json.Marshal(private); err != nil {
		t.Fatal(err)
	}
	mia := f.signIn("mia").Token.Reveal()
	for _, script := range []string{"openid-client.mjs", "oauth4webapi.mjs"} {
		t.Run(script, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, node, script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "ISSUER="+f.url, "COOKIE="+httpauth.PlainCookieName+"="+mia, "SESSION="+mia,
				"WEB_SECRET="+f.secret["web"], "JOB_SECRET="+f.secret["job"], "BFF_SECRET="+f.secret["bff"], "SIGNER_KEY="+string(b))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			t.Log(out.String())
		})
	}
}
