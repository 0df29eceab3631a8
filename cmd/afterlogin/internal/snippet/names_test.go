package snippet_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
	"github.com/afterlogin/afterlogin/internal/servers"
)

// longHost is longer than what nginx's tables have room for by themselves.
const longHost = "a-shop-with-quite-a-long-name.and-a-second-part-as-long.shop.localhost"

// Every proxy starts for a host of any length, and is asked for it.
func TestLongHost(t *testing.T) {
	for _, kind := range proxies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, tls := range []bool{false, true} {
				h := start(t, kind, setup{rules: public, name: longHost, tls: tls})
				cookie, _ := h.signIn("mia")
				h.arrives(h.do("GET", "/cart", "", "Cookie: "+cookie), "mia", "session")
				h.app.take()
				h.refused(h.do("GET", "/cart", ""), 401)
			}
		})
	}
}

// Hosts that are the same as a word, and ports, are told apart in everything that is written.
func TestNames(t *testing.T) {
	pairs := [][2]snippet.Options{
		{{Host: "shop.localhost:8080"}, {Host: "shop.localhost:8081"}},
		{{Host: "a-b.localhost:8080"}, {Host: "a.b.localhost:8080"}},
		{{Host: "a.b-c.localhost:8080"}, {Host: "a-b.c.localhost:8080"}},
		{{Host: "1." + longHost + ":8080"}, {Host: "2." + longHost + ":8080"}},
		{{Host: longHost + ":8080"}, {Host: longHost + ":8081"}},
	}
	for _, p := range snippet.Proxies() {
		for _, pair := range pairs {
			var files [2][]snippet.File
			for i, o := range pair {
				var err error
				if files[i], err = snippet.Render(p.Name, o); err != nil {
					t.Fatal(err)
				}
			}
			for i, f := range p.Files {
				if a, b := files[0][i].Name, files[1][i].Name; strings.Contains(f, "SITE") && a == b {
					t.Errorf("%s: %v are both written to %s", p.Name, pair, a)
				} else if len(a) > 100 {
					t.Errorf("%s: the name %s is too long", p.Name, a)
				}
			}
		}
	}

	// nginx loads all of them side by side, and each answers for its own host. So do sites of long names on one address.
	dir, app := tempDir(t), newApp(t)
	pages := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
	hosts := map[string]string{} // and where they are listened for
	p, err := servers.StartNginx(dir, func(addr string) string {
		var all strings.Builder
		for i, pair := range pairs {
			for j, o := range pair {
				name, _, _ := strings.Cut(o.Host, ":")
				o.App, o.Afterlogin, o.Host, o.Listen = app.addr, pages, fmt.Sprintf("%s:%d", name, 8080+i%2+j), addr
				if i == 0 || i == 4 { // which differ in the port alone
					o.Listen = free(t)
				}
				hosts[o.Host] = o.Listen
				files, err := snippet.Render("nginx", o)
				if err != nil {
					t.Fatal(err)
				}
				all.WriteString(files[0].Content)
			}
		}
		return all.String()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	for host, addr := range hosts {
		r, _ := http.NewRequest("GET", "http://"+addr+"/.afterlogin/login", nil)
		r.Host = host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != host {
			t.Errorf("%s is answered for %s: %d", host, b, resp.StatusCode)
		}
	}
	if len(hosts) != 2*len(pairs) {
		t.Errorf("%d hosts", len(hosts))
	}
	b, _ := os.ReadFile(filepath.Join(dir, "output"))
	for line := range strings.Lines(string(b)) { // ten sites are more variables than nginx takes without a word
		if strings.Contains(line, "[warn]") && !strings.Contains(line, "variables_hash") {
			t.Errorf("nginx says %s", line)
		}
	}
}

func free(t *testing.T) string {
	t.Helper()
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
