package demo

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A browser plays somebody who visits the shop over HTTP: the story's people, and the thief. It does with the shop's one
// cookie what a browser does, and lets the story look at it.
type browser struct {
	client    *http.Client
	base      string // the shop's address, with a slash at the end
	userAgent string
	cookie    string // its value, the secret itself; empty: none
	csrf      string // from the last page that had a form
	note      func(cookie string)
}

// What the story's people use.
const (
	laptopAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	phoneAgent  = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Mobile Safari/537.36"
	thiefAgent  = "thief/1.0"
)

// An answer is what the shop answered, as far as the story looks at it.
type answer struct {
	Status  int               `json:"status"`
	Reason  afterlogin.Reason `json:"reason,omitempty"`  // why the cookie was refused, from the page's foot
	Message string            `json:"message,omitempty"` // what the page tells the person about it
	path    string            // of the page, after redirects
	body    string
	set     string // the cookie that the answer set, the secret itself
	line    string // the whole Set-Cookie line that set it
	header  http.Header
}

var (
	csrfField   = regexp.MustCompile(`name="csrf_token" value="([^"]+)"`)
	reasonField = regexp.MustCompile(`<code data-reason>([a-z_]+)</code>`)
	alertBox    = regexp.MustCompile(`(?s)<section class="notice alert" role="alert">\s*<h2>.*?</h2>(.*?)(?:<div|</section>)`)
	tags        = regexp.MustCompile(`<[^>]*>`)
)

// get opens a page, following redirects.
func (b *browser) get(ctx context.Context, path string) (answer, error) {
	return b.follow(ctx, http.MethodGet, path, nil)
}

// post sends a form, with the CSRF token of the last page, and follows the redirect that comes back.
func (b *browser) post(ctx context.Context, path string, form url.Values) (answer, error) {
	sent := url.Values{httpauth.CSRFField: {b.csrf}}
	for k, v := range form {
		sent[k] = v
	}
	return b.follow(ctx, http.MethodPost, path, sent)
}

func (b *browser) follow(ctx context.Context, method, path string, form url.Values) (answer, error) {
	var first answer
	for hop := range 5 {
		a, err := b.request(ctx, method, path, form)
		if err != nil {
			return a, err
		}
		if hop == 0 {
			first = a
		} else if a.set == "" { // the cookie that was set on the way is the visit's
			a.set, a.line = first.set, first.line
		}
		if a.Status != http.StatusSeeOther {
			return a, nil
		}
		method, path, form = http.MethodGet, a.header.Get("Location"), nil
		first = a
	}
	return first, fmt.Errorf("%s: too many redirects", path)
}

// request sends one request and takes the cookie that comes back.
func (b *browser) request(ctx context.Context, method, path string, form url.Values) (answer, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(b.base, "/")+path, body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: not a path of the shop", method, pathOnly(path))
	}
	r.Header.Set("User-Agent", b.userAgent)
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != "" {
		r.AddCookie(&http.Cookie{Name: httpauth.PlainCookieName, Value: b.cookie})
	}
	a, err := read(b.client, r)
	if err != nil {
		return a, err
	}
	for _, line := range a.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil || c.Name != httpauth.PlainCookieName {
			continue
		}
		a.line, a.set = line, c.Value
		if b.cookie = c.Value; c.MaxAge < 0 {
			b.cookie = ""
		}
		if b.note != nil && c.Value != "" {
			b.note(c.Value)
		}
	}
	if m := csrfField.FindStringSubmatch(a.body); m != nil {
		b.csrf = m[1]
	}
	return a, nil
}

// read sends the request and reads the page that comes back.
func read(client *http.Client, r *http.Request) (answer, error) {
	resp, err := client.Do(r)
	if err != nil {
		if e, ok := err.(*url.Error); ok {
			err = e.Err // without the address, in which somebody may have put a token
		}
		return answer{}, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	a := answer{Status: resp.StatusCode, path: r.URL.Path, body: string(body), header: resp.Header}
	if m := reasonField.FindStringSubmatch(a.body); m != nil {
		a.Reason = afterlogin.Reason(m[1])
	}
	if m := alertBox.FindStringSubmatch(a.body); m != nil {
		a.Message = strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(m[1], " "))), " ")
	}
	return a, nil
}

// visit opens the cart with somebody's cookie.
func visit(ctx context.Context, client *http.Client, base, userAgent, cookie string) (answer, error) {
	b := &browser{client: client, base: base, userAgent: userAgent, cookie: cookie}
	return b.get(ctx, "/cart")
}

func pathOnly(s string) string {
	s, _, _ = strings.Cut(s, "?")
	return s
}

var requestField = regexp.MustCompile(`name="request" value="([^"]*)"`)

// allow opens the address that an app sends its person to, signs in if that is asked for, says yes, and brings the app
// its answer.
func (b *browser) allow(ctx context.Context, address, user string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("the app's address is none")
	}
	a, err := b.get(ctx, u.RequestURI())
	if err == nil && a.path == "/sign-in" {
		a, err = b.post(ctx, "/sign-in", url.Values{"user": {user}, "password": {"demo"}, "return_to": {u.RequestURI()}})
	}
	if err != nil {
		return err
	}
	asked := requestField.FindStringSubmatch(a.body)
	if a.Status != http.StatusOK || asked == nil {
		return fmt.Errorf("%s asks nothing: the shop answered %d", a.path, a.Status)
	}
	a, err = b.request(ctx, http.MethodPost, a.path, url.Values{
		httpauth.CSRFField: {b.csrf}, "request": {html.UnescapeString(asked[1])}, "decision": {"allow"},
	})
	if err != nil {
		return err
	}
	if a.Status != http.StatusSeeOther {
		return fmt.Errorf("%s: the shop answered %d", a.path, a.Status)
	}
	back, err := http.NewRequestWithContext(ctx, http.MethodGet, a.header.Get("Location"), nil)
	if err != nil {
		return errors.New("the shop sends the browser to no address")
	}
	_, err = read(b.client, back) // without the shop's cookie: this is another host
	return err
}
