package grade

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSetCookie is the longest Set-Cookie line that is read; browsers read 4,096 bytes of name and value.
const maxSetCookie = 16 << 10

// A setCookie is one Set-Cookie line as a browser reads it (RFC 6265, section 5.2): what comes twice counts as it came
// last, and what is not known does not count.
type setCookie struct {
	Name, Value      string
	Domain, Path     string // as written; empty: absent
	SameSite         string // lower case; empty: absent
	Secure, HTTPOnly bool
	HasMaxAge        bool
	MaxAge           time.Duration // at most 100 years; zero and less: delete
	Expires          time.Time     // zero: absent
}

// parseSetCookie reads a Set-Cookie line. It reports false for what a browser would ignore.
func parseSetCookie(line string) (setCookie, bool) {
	if len(line) > maxSetCookie || strings.ContainsAny(line, "\x00\r\n") {
		return setCookie{}, false
	}
	pair, rest, _ := strings.Cut(line, ";")
	name, value, ok := strings.Cut(pair, "=")
	c := setCookie{Name: strings.Trim(name, " \t"), Value: strings.Trim(value, " \t")}
	if !ok || c.Name == "" {
		return setCookie{}, false
	}
	for rest != "" {
		var attribute string
		attribute, rest, _ = strings.Cut(rest, ";")
		key, v, _ := strings.Cut(attribute, "=")
		v = strings.Trim(v, " \t")
		switch strings.ToLower(strings.Trim(key, " \t")) {
		case "secure":
			c.Secure = true
		case "httponly":
			c.HTTPOnly = true
		case "samesite":
			c.SameSite = strings.ToLower(v)
		case "domain":
			c.Domain = strings.TrimPrefix(strings.ToLower(v), ".")
		case "path":
			c.Path = v
		case "max-age":
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				const most = 100 * 365 * 86400
				c.HasMaxAge, c.MaxAge = true, time.Duration(max(min(n, most), -1))*time.Second
			}
		case "expires":
			if t, err := http.ParseTime(strings.ReplaceAll(v, "-", " ")); err == nil {
				c.Expires = t
			} else if t, err := time.Parse("Monday, 02-Jan-06 15:04:05 MST", v); err == nil {
				c.Expires = t
			}
		}
	}
	return c, true
}

// gone reports whether the line deletes the cookie.
func (c *setCookie) gone(now time.Time) bool {
	if c.HasMaxAge {
		return c.MaxAge <= 0
	}
	return !c.Expires.IsZero() && !c.Expires.After(now)
}

// lifetime is how long a browser keeps the cookie; zero: until it is closed.
func (c *setCookie) lifetime(now time.Time) time.Duration {
	switch {
	case c.HasMaxAge:
		return c.MaxAge
	case !c.Expires.IsZero():
		return c.Expires.Sub(now)
	}
	return 0
}

// maxJar bounds the cookies of one visitor.
const maxJar = 100

// A jar holds a visitor's cookies. It sends Secure cookies over plain HTTP to loopback hosts, as Chromium and Firefox do,
// and keeps Domain cookies for the allowed hosts only, since nothing else is asked anyway.
type jar struct{ cookies []kept }

type kept struct {
	setCookie
	host string
}

func (k *kept) same(o *kept) bool {
	return k.Name == o.Name && k.host == o.host && k.Domain == o.Domain && k.path() == o.path()
}

func (k *kept) path() string {
	if strings.HasPrefix(k.Path, "/") {
		return k.Path
	}
	return "/" // the default path of RFC 6265 is narrower; what it is good for here is the same
}

func (k *kept) goesTo(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	if host != k.host && (k.Domain == "" || host != k.Domain && !strings.HasSuffix(host, "."+k.Domain)) {
		return false
	}
	path, dir := u.EscapedPath(), k.path()
	if path == "" {
		path = "/"
	}
	if path != dir && (!strings.HasPrefix(path, dir) || !strings.HasSuffix(dir, "/") && path[len(dir)] != '/') {
		return false
	}
	return !k.Secure || u.Scheme == "https" || loopbackName(host)
}

// take does with the cookies of an answer what a browser does.
func (j *jar) take(u *url.URL, set []setCookie, now time.Time) {
	for _, c := range set {
		k := kept{setCookie: c, host: strings.ToLower(u.Hostname())}
		if c.Domain != "" && k.host != c.Domain && !strings.HasSuffix(k.host, "."+c.Domain) {
			continue
		}
		i := slices.IndexFunc(j.cookies, func(o kept) bool { return o.same(&k) })
		switch {
		case c.gone(now) && i >= 0:
			j.cookies = slices.Delete(j.cookies, i, i+1)
		case c.gone(now):
		case i >= 0:
			j.cookies[i] = k
		case len(j.cookies) < maxJar:
			j.cookies = append(j.cookies, k)
		}
	}
}

// header is the Cookie header for the address; empty: none.
func (j *jar) header(u *url.URL) string {
	var pairs []string
	for i := range j.cookies {
		if k := &j.cookies[i]; k.goesTo(u) {
			pairs = append(pairs, k.Name+"="+k.Value)
		}
	}
	return strings.Join(pairs, "; ")
}

// value returns the value of the cookie of the name that goes to the address, and whether there is one.
func (j *jar) value(u *url.URL, name string) (string, bool) {
	for i := range j.cookies {
		if k := &j.cookies[i]; k.Name == name && k.goesTo(u) {
			return k.Value, true
		}
	}
	return "", false
}

// names are those of the cookies that go to the address.
func (j *jar) names(u *url.URL) (names []string) {
	for i := range j.cookies {
		if k := &j.cookies[i]; k.goesTo(u) && !slices.Contains(names, k.Name) {
			names = append(names, k.Name)
		}
	}
	return names
}

func (j *jar) clone() jar { return jar{slices.Clone(j.cookies)} }

// put sets a cookie for the address, in place of those of its name.
func (j *jar) put(u *url.URL, name, value string) {
	found := false
	for i := range j.cookies {
		if k := &j.cookies[i]; k.Name == name && k.goesTo(u) {
			k.Value, found = value, true
		}
	}
	if !found {
		j.cookies = append(j.cookies, kept{setCookie{Name: name, Value: value}, strings.ToLower(u.Hostname())})
	}
}

// drop removes the cookies of the name.
func (j *jar) drop(name string) {
	j.cookies = slices.DeleteFunc(j.cookies, func(k kept) bool { return k.Name == name })
}
