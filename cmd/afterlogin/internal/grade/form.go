package grade

import (
	"bytes"
	"mime"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Bounds of what is taken from one page.
const (
	maxForms  = 100
	maxFields = 200
	maxLinks  = 2000
	maxText   = 300 // bytes of a form's or a link's own text
)

// A page is what is found in HTML. It is read token by token, in time and memory that the size of the page bounds: no
// tree, so no depth.
type page struct {
	forms []form
	links []link
	urls  []string // every address in the page: links, forms, pictures, scripts, refreshes
	prose []byte   // everything else: text, scripts, and attributes that are no addresses
}

type form struct {
	action, method, id string
	fields             []field
	text               string
}

type field struct{ name, kind, value, hint string }

type link struct{ href, text string }

// urlAttributes hold addresses (HTML, section "Attributes"), and those of htmx and friends.
var urlAttributes = map[string]bool{
	"href": true, "src": true, "action": true, "formaction": true, "data": true, "cite": true, "poster": true, "srcset": true,
	"background": true, "ping": true, "manifest": true, "hx-get": true, "hx-post": true, "data-href": true, "data-url": true,
}

// readPage finds the forms, links and addresses of HTML. Base is where the page was; what cannot be read is left out.
func readPage(body []byte) *page {
	p := &page{}
	z := html.NewTokenizer(bytes.NewReader(body))
	z.SetMaxBuf(maxBody)
	var open *form   // the form that the tokens are in
	var anchor *link // likewise
	var option *field
	for {
		switch z.Next() {
		case html.ErrorToken:
			p.closeForm(open)
			p.closeLink(anchor)
			return p
		case html.TextToken:
			text := z.Text()
			p.prose = append(append(p.prose, text...), ' ')
			words := strings.Join(strings.Fields(string(text[:min(len(text), maxText)])), " ")
			if open != nil && len(open.text) < maxText && words != "" {
				open.text += " " + words
			}
			if anchor != nil && len(anchor.text) < maxText && words != "" {
				anchor.text += " " + words
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch atom.Lookup(name) {
			case atom.Form:
				p.closeForm(open)
				open = nil
			case atom.A:
				p.closeLink(anchor)
				anchor = nil
			case atom.Select:
				option = nil
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			tag := atom.Lookup(name)
			at := p.attributes(z, more)
			switch tag {
			case atom.Form:
				p.closeForm(open)
				open = &form{action: at["action"], method: strings.ToUpper(at["method"]), id: at["id"] + " " + at["class"] + " " + at["name"]}
			case atom.A:
				p.closeLink(anchor)
				anchor = &link{href: at["href"], text: at["title"] + at["aria-label"]}
			case atom.Input, atom.Button, atom.Textarea, atom.Select:
				if open != nil && len(open.fields) < maxFields {
					f := inputField(tag, at)
					if f.kind == "submit" {
						open.text += " " + clip(f.value, maxText)
					}
					open.fields = append(open.fields, f)
					if option = nil; tag == atom.Select {
						option = &open.fields[len(open.fields)-1]
					}
				}
			case atom.Option:
				_, chosen := at["selected"]
				if option != nil && (chosen || option.hint == "") {
					option.value, option.hint = at["value"], "chosen"
				}
			case atom.Meta:
				if strings.EqualFold(at["http-equiv"], "refresh") {
					if i := strings.Index(strings.ToLower(at["content"]), "url="); i >= 0 && len(p.urls) < maxLinks {
						p.urls = append(p.urls, strings.Trim(at["content"][i+4:], `'" `))
					}
				}
			}
		}
	}
}

// attributes reads the attributes of a tag, the first of each name.
func (p *page) attributes(z *html.Tokenizer, more bool) map[string]string {
	at := make(map[string]string)
	for more && len(at) < maxFields {
		var k, v []byte
		k, v, more = z.TagAttr()
		key := string(k)
		if urlAttributes[key] {
			if len(p.urls) < maxLinks {
				p.urls = append(p.urls, string(v))
			}
		} else {
			p.prose = append(append(p.prose, v...), ' ')
		}
		if _, twice := at[key]; !twice {
			at[key] = string(v)
		}
	}
	return at
}

func inputField(tag atom.Atom, at map[string]string) field {
	f := field{name: at["name"], kind: strings.ToLower(at["type"]), value: at["value"],
		hint: strings.ToLower(at["autocomplete"] + " " + at["id"] + " " + at["name"] + " " + at["placeholder"])}
	_, checked := at["checked"]
	switch {
	case tag == atom.Textarea:
		f.kind = "text"
	case tag == atom.Select:
		f.kind, f.hint = "select", ""
	case tag == atom.Button && (f.kind == "" || f.kind == "submit"):
		f.kind = "submit"
	case tag == atom.Button:
		f.kind = "button"
	case f.kind == "":
		f.kind = "text"
	case f.kind == "checkbox" || f.kind == "radio":
		if f.value == "" {
			f.value = "on"
		}
		if !checked {
			f.kind = "off"
		}
	}
	return f
}

func (p *page) closeForm(f *form) {
	if f != nil && len(p.forms) < maxForms {
		if f.method != "POST" {
			f.method = "GET"
		}
		p.forms = append(p.forms, *f)
	}
}

func (p *page) closeLink(l *link) {
	if l != nil && l.href != "" && len(p.links) < maxLinks {
		p.links = append(p.links, *l)
	}
}

// html returns the page of an answer; nil if it is none.
func (a *answer) html() *page {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || kind != "text/html" && kind != "application/xhtml+xml" {
		return nil
	}
	return readPage(a.body)
}

var (
	signInWords  = regexp.MustCompile(`(?i)log[-_ ]?in|sign[-_ ]?in|log[-_ ]?on|anmeld|connexion|auth`)
	signOutWords = regexp.MustCompile(`(?i)log[-_ ]?out|sign[-_ ]?out|log[-_ ]?off|abmeld|d[eé]connexion`)
	registerWord = regexp.MustCompile(`(?i)regist|sign[-_ ]?up|create|reset|forgot`)
	userWords    = regexp.MustCompile(`(?i)user|mail|login|name|account|ident`)
)

// signIn returns the form of the page that looks most like a sign-in, and the names of its two fields; nil: none. Names
// that are given win over those that are guessed.
func (p *page) signIn(userField, passwordField string) (best *form, user, password string) {
	most := 0
	for i := range p.forms {
		f := &p.forms[i]
		u, pw, passwords := f.credentials(userField, passwordField)
		if pw == "" || u == "" {
			continue
		}
		score := 10
		if passwords == 1 {
			score += 5
		}
		if signInWords.MatchString(f.action + " " + f.id + " " + f.text) {
			score += 3
		}
		if registerWord.MatchString(f.action + " " + f.id) {
			score -= 4
		}
		if score > most {
			most, best, user, password = score, f, u, pw
		}
	}
	return best, user, password
}

// credentials finds the fields for the name and the password, and counts those for passwords.
func (f *form) credentials(userField, passwordField string) (user, password string, passwords int) {
	guess := ""
	for _, in := range f.fields {
		switch {
		case in.name == "":
		case userField != "" && in.name == userField:
			user = in.name
		case in.kind == "password" || passwordField != "" && in.name == passwordField:
			passwords++
			if password == "" && (passwordField == "" || in.name == passwordField) {
				password = in.name
			}
		case userField == "" && (in.kind == "text" || in.kind == "email" || in.kind == "tel"):
			if strings.Contains(in.hint, "username") || in.kind == "email" || user == "" && userWords.MatchString(in.hint) {
				user = in.name
			}
			if password == "" {
				guess = in.name // the last one before the password
			}
		}
	}
	if user == "" && userField == "" {
		user = guess
	}
	return user, password, passwords
}

// values are what a browser sends when the form is sent by its first button.
func (f *form) values() url.Values {
	v, submitted := url.Values{}, false
	for _, in := range f.fields {
		switch in.kind {
		case "submit":
			if submitted {
				continue
			}
			submitted = true
		case "off", "button", "reset", "image", "file":
			continue
		}
		if in.name != "" {
			v.Add(in.name, in.value)
		}
	}
	return v
}

// signOut returns the form, or else the link, that signs out; both nil: there is none.
func (p *page) signOut() (*form, *link) {
	for i := range p.forms {
		f := &p.forms[i]
		if f.method == "POST" && signOutWords.MatchString(f.action+" "+f.id+" "+f.text) && !f.asksPassword() {
			return f, nil
		}
	}
	for i := range p.links {
		if l := &p.links[i]; signOutWords.MatchString(l.href + " " + l.text) {
			return nil, l
		}
	}
	for i := range p.forms {
		if f := &p.forms[i]; signOutWords.MatchString(f.action+" "+f.id+" "+f.text) && !f.asksPassword() {
			return f, nil
		}
	}
	return nil, nil
}

func (f *form) asksPassword() bool {
	for _, in := range f.fields {
		if in.kind == "password" {
			return true
		}
	}
	return false
}

// asksPassword reports whether a form of the page wants a password.
func (p *page) asksPassword() bool {
	for i := range p.forms {
		if p.forms[i].asksPassword() {
			return true
		}
	}
	return false
}
