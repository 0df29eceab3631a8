package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"strings"
)

//go:embed static
var static embed.FS

// staticPath begins the paths of what is the same for everybody: below it stands a hash of the content, and the name.
const staticPath = "/static/"

// An asset is a file that pages refer to.
type asset struct {
	path    string // below the base
	kind    string
	content []byte
}

var assetKinds = map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

// readAssets returns the assets by their name.
func readAssets() (map[string]asset, error) {
	files, err := static.ReadDir("static")
	if err != nil {
		return nil, err
	}
	out := make(map[string]asset)
	for _, f := range files {
		_, ext, _ := strings.Cut(strings.TrimPrefix(f.Name(), "htmx."), ".")
		if strings.HasSuffix(f.Name(), ".js") {
			ext = "js"
		}
		kind, ok := assetKinds[ext]
		if !ok {
			continue // a licence
		}
		b, err := static.ReadFile("static/" + f.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		out[f.Name()] = asset{staticPath + hex.EncodeToString(sum[:8]) + "/" + f.Name(), kind, b}
	}
	return out, nil
}

// serveAsset answers with the asset whose path ends so. One of another version is not there: the page that asks for it is
// an old one.
func (c *Console) serveAsset(w http.ResponseWriter, r *http.Request, path string) {
	_, name, _ := strings.Cut(path, "/")
	a, ok := c.assets[name]
	switch {
	case !ok || a.path != staticPath+path:
		c.message(w, r, http.StatusNotFound, "There is no such page", "Check the address.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		c.message(w, r, http.StatusMethodNotAllowed, "This does not work", "The page takes GET only.")
	default:
		h := w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Write(a.content)
	}
}
