package account

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/storetest"
)

const base = "/.afterlogin"

// The page shows a person's devices, apps and keys, this device first, with where and when, and no address.
func TestList(t *testing.T) {
	f := open(t, nil)
	f.be(lyon)
	phone := f.in("mia", safari, "&method=otp&method=pwd&remember")
	f.pass(3 * time.Hour)
	f.be(cologne)
	here := f.in("mia", firefox, "&method=pwd")
	f.be("10.1.2.3")
	bot := f.in("mia", "curl/8.9.1")
	f.in("tom", chromium)
	phoneSession, err := phone.session()
	if err != nil {
		t.Fatal(err)
	}
	offline, err := f.a.IssueGrant(t.Context(), phoneSession, afterlogin.GrantRequest{Client: "pocket", Name: "Pocket", Offline: true, Scopes: []string{"read", "offline_access"}})
	if err != nil {
		t.Fatal(err)
	}
	online, err := f.a.IssueGrant(t.Context(), phoneSession, afterlogin.GrantRequest{Client: "desk", Name: "Desk", Scopes: []string{"read"}})
	if err != nil { // it is part of the phone
		t.Fatal(err)
	}
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey, Name: "Backup at night", Scopes: []string{"backup"}})
	if err != nil {
		t.Fatal(err)
	}
	f.pass(7 * time.Minute)
	a := here.list()
	a.wants(t, "the page", 200, "<h1>Where you are signed in</h1>", "You are signed in as mia.", "Firefox on Windows", "This device", "Cologne, Germany",
		"Safari on iPhone", "Lyon, France", "with a one-time code and a password", "Stays signed in when the browser is closed",
		"curl 8.9", "A private network", "Pocket", "May: read", "Backup at night", "May: backup",
		"Change password", "This wasn’t me", "Sign out everywhere else", `href="https://db-ip.com"`, "Why is a device here twice?", `action="/.afterlogin/account/sessions"`)
	a.lacks(t, "the page", "Chrome", "tom", "10.1.2.3", "offline_access", "remembered", "Desk", string(online.Refresh.Session.ID))
	if first := strings.Index(a.body, "Firefox on Windows"); first > strings.Index(a.body, "Safari on iPhone") || first > strings.Index(a.body, "curl") {
		t.Error("this device does not stand first")
	}
	got, _ := here.json()
	if got.Subject != "mia" || len(got.Devices) != 3 || len(got.Apps) != 1 || len(got.APIKeys) != 1 || len(got.Ended) != 0 || got.More {
		t.Fatalf("%+v", got)
	}
	if d := got.Devices[0]; !d.Here || d.ID != here.id() || d.Name != "Firefox on Windows" || d.Place != "Cologne, Germany" || d.Remembered || len(d.Methods) != 1 {
		t.Errorf("this device: %+v", d)
	}
	for _, d := range got.Devices {
		if d.LastSeen.Unix()%300 != 0 {
			t.Errorf("%s: last seen %v", d.Name, d.LastSeen)
		}
		if d.Name == "Safari on iPhone" && (d.ID != phone.id() || !d.Remembered || d.Here || d.Place != "Lyon, France") {
			t.Errorf("the phone: %+v", d)
		}
		if d.Name == "curl 8.9" && (d.ID != bot.id() || d.Place != "a private network") {
			t.Errorf("the program: %+v", d)
		}
	}
	if app := got.Apps[0]; app.ID != string(offline.Refresh.Session.ID) || app.Name != "Pocket" || len(app.Scopes) != 1 {
		t.Errorf("%+v", app)
	}
	_, csrf := here.json()
	here.program("DELETE", sessionsPath+"/"+string(online.Refresh.Session.ID), "", csrf).wants(t, "what lives on a device", 404)
	if k := got.APIKeys[0]; k.ID != string(key.Session.ID) || k.Name != "Backup at night" || k.Expires == nil {
		t.Errorf("%+v", k)
	}
	if got.Source == nil || got.Source.URL != "https://db-ip.com" {
		t.Errorf("the source of places: %+v", got.Source)
	}
}

// Nobody sees or ends what is somebody else's: of another subject, or of the same one in another tenant.
func TestOnlyOwn(t *testing.T) {
	f := open(t, nil)
	mia, tom := f.in("mia", firefox), f.in("tom", safari)
	elsewhere, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Tenant: 7})
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom", Kind: afterlogin.KindAPIKey})
	if err != nil {
		t.Fatal(err)
	}
	anonymous, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage(`1`)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.a.AddClient(t.Context(), 0, "mia", json.RawMessage(`{}`)); err != nil { // whose name is that of a person
		t.Fatal(err)
	}
	mia2 := f.in("mia", chromium)
	page := mia.list()
	page.lacks(t, "mia's page", "Safari", tom.id(), string(key.Session.ID), string(elsewhere.Session.ID))
	csrf := page.csrf(t)
	for name, id := range map[string]string{
		"tom's": tom.id(), "tom's key": string(key.Session.ID), "in another tenant": string(elsewhere.Session.ID), "nobody's": string(anonymous.Session.ID),
		"junk": "ses_junk", "nothing": "ses_AAAAAAAAAAAAAAAAAAAAAAA", "an access token's": "tok_" + strings.Repeat("A", 35),
	} {
		form := url.Values{"csrf_token": {csrf}, "act": {"sign_out"}, "session": {id}}
		mia.do("POST", base+sessionsPath, form.Encode()).wants(t, "sign out "+name, 404, "There is no such sign-in")
		form.Set("act", "report")
		mia.do("POST", base+sessionsPath, form.Encode()).wants(t, "report "+name, 404, "There is no such sign-in")
		mia.get(base+reportPath+"?session="+url.QueryEscape(id)).wants(t, "ask about "+name, 404, "There is no such sign-in")
		a := mia.program("DELETE", sessionsPath+"/"+id, "", csrf)
		a.wants(t, "DELETE "+name, 404, "#no-such-session")
		if a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", name, a.header.Get("Content-Type"))
		}
	}
	if mia.over() != "" || mia2.over() != "" || tom.over() != "" {
		t.Errorf("mia: %q, tom: %q", mia.over(), tom.over())
	}
	for _, s := range []afterlogin.SessionID{key.Session.ID, elsewhere.Session.ID, anonymous.Session.ID} {
		if got, err := f.a.Session(t.Context(), s); err != nil || !got.Ended.IsZero() {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}

// One device is signed out, and an app, and a key; the page says so, and why it ended.
func TestSignOutOne(t *testing.T) {
	f := open(t, nil)
	here, phone := f.in("mia", firefox), f.in("mia", safari)
	s, err := here.session()
	if err != nil {
		t.Fatal(err)
	}
	grant, err := f.a.IssueGrant(t.Context(), s, afterlogin.GrantRequest{Client: "pocket", Name: "Pocket", Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey, Name: "Backup"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ id, done, says string }{
		{phone.id(), "device", "Signed out there."},
		{string(grant.Refresh.Session.ID), "app", "The app can do nothing in your name any more."},
		{string(key.Session.ID), "api_key", "The key is good for nothing any more."},
	} {
		a := here.do("POST", base+sessionsPath, here.list().form(t, "session", tt.id))
		if a.status != http.StatusSeeOther || a.to != base+sessionsPath+"?done="+tt.done {
			t.Fatalf("%s: %d to %s: %s", tt.done, a.status, a.to, a.body)
		}
		here.do("GET", a.to, "", "Sec-Fetch-Site: same-origin").wants(t, tt.done, 200, tt.says, `role="status"`)
		// Whoever comes by a link is told of nothing that was not done.
		for _, site := range []string{"cross-site", "none", ""} {
			if got := here.do("GET", a.to, "", "Sec-Fetch-Site: "+site); strings.Contains(got.body, tt.says) {
				t.Errorf("%s, by a link (%q): it is said to be done", tt.done, site)
			}
		}
		got, err := f.a.Session(t.Context(), afterlogin.SessionID(tt.id))
		if err != nil || got.Why != afterlogin.ReasonSignedOut {
			t.Errorf("%s: %v, %v", tt.id, got, err)
		}
	}
	if phone.over() != afterlogin.ReasonSignedOut || here.over() != "" {
		t.Errorf("phone %q, here %q", phone.over(), here.over())
	}
	here.list().wants(t, "afterwards", 200, "Ended lately", "Ended: it was signed out", "Pocket (app)", "Backup (API key)", "You are signed in nowhere else.")
	for _, e := range f.seen(afterlogin.EventRevoked) {
		if e.Actor != "self" {
			t.Errorf("%+v", e)
		}
	}
	// The other device is told why.
	a := phone.get(base + sessionsPath)
	if a.status != http.StatusSeeOther || a.to != base+"/login?return_to="+url.QueryEscape(base+sessionsPath) {
		t.Fatalf("%d to %s", a.status, a.to)
	}
	phone.get(a.to).wants(t, "the sign-in page", 200, "You signed out, here or from another device.")
	_, csrf := here.json()
	// Their own device: like signing out.
	a = here.do("POST", base+sessionsPath, url.Values{"csrf_token": {csrf}, "act": {"sign_out"}, "session": {here.id()}}.Encode())
	if a.status != http.StatusSeeOther || a.to != base+"/login?reason=signed_out" || here.token() != "" {
		t.Errorf("own device: %d to %s, cookie %q", a.status, a.to, here.token())
	}
}

// All others end, and the apps; this device and the keys stay. It takes no fresh sign-in.
func TestSignOutOthers(t *testing.T) {
	f := open(t, nil)
	here, phone, laptop := f.in("mia", firefox, "&remember"), f.in("mia", safari), f.in("mia", chromium)
	tom := f.in("tom", safari)
	s, err := phone.session()
	if err != nil {
		t.Fatal(err)
	}
	grant, err := f.a.IssueGrant(t.Context(), s, afterlogin.GrantRequest{Client: "pocket", Name: "Pocket", Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey, Name: "Backup"})
	if err != nil {
		t.Fatal(err)
	}
	f.pass(30 * time.Minute)
	a := here.do("POST", base+sessionsPath, here.list().form(t, "act", "sign_out_others"))
	if a.status != http.StatusSeeOther || a.to != base+sessionsPath+"?done=others" {
		t.Fatalf("%d to %s: %s", a.status, a.to, a.body)
	}
	here.do("GET", a.to, "", "Sec-Fetch-Site: same-origin").wants(t, "the list", 200, "This device is the only one left.", "Ended: everything else was signed out on another device", "Backup", "You are signed in nowhere else.")
	for name, b := range map[string]*browser{"phone": phone, "laptop": laptop} {
		if b.over() != afterlogin.ReasonSignedOutAll {
			t.Errorf("%s: %q", name, b.over())
		}
	}
	if here.over() != "" || tom.over() != "" {
		t.Errorf("here %q, tom %q", here.over(), tom.over())
	}
	if got, err := f.a.Session(t.Context(), grant.Refresh.Session.ID); err != nil || got.Ended.IsZero() {
		t.Errorf("the app lives on: %v", err)
	}
	if got, err := f.a.Session(t.Context(), key.Session.ID); err != nil || !got.Ended.IsZero() {
		t.Errorf("the key has ended: %v", err)
	}
	events := f.seen(afterlogin.EventSubject)
	if len(events) != 1 || string(events[0].Except) != here.id() || events[0].Actor != "self" || events[0].Reason != afterlogin.ReasonSignedOutAll {
		t.Errorf("%+v", events)
	}
}

// "This wasn't me" ends everything, and tells the application what was reported.
func TestReport(t *testing.T) {
	f := open(t, nil)
	here, stranger, tom := f.in("mia", firefox), f.in("mia", chromium), f.in("tom", safari)
	key, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Kind: afterlogin.KindAPIKey, Name: "Made by whom?"})
	if err != nil {
		t.Fatal(err)
	}
	id := stranger.id()
	page := here.list()
	link := base + reportPath + "?session=" + id
	page.wants(t, "the list", 200, `href="`+link+`"`)
	ask := here.get(link)
	ask.wants(t, "the question", 200, "This wasn’t you?", "It is about: Chrome on Linux (Cologne, Germany)", "signed out everywhere, here too", "API keys", "change your password at once")
	if stranger.over() != "" {
		t.Fatal("the question did it")
	}
	a := here.do("POST", base+sessionsPath, ask.form(t, "act", "report"))
	if a.status != http.StatusSeeOther || a.to != base+"/login?return_to="+url.QueryEscape(base+"/password") {
		t.Fatalf("%d to %s: %s", a.status, a.to, a.body)
	}
	here.get(a.to).wants(t, "the sign-in page", 200, "one of your sign-ins was reported as not yours", "Change your password", `value="/.afterlogin/password"`)
	stranger.get(base+"/login").wants(t, "the stranger", 200, "one of your sign-ins was reported as not yours")
	if here.over() != afterlogin.ReasonReported || stranger.over() != afterlogin.ReasonReported || tom.over() != "" {
		t.Errorf("here %q, stranger %q, tom %q", here.over(), stranger.over(), tom.over())
	}
	if got, err := f.a.Session(t.Context(), key.Session.ID); err != nil || got.Ended.IsZero() {
		t.Errorf("the key lives on: %v", err)
	}
	all, one := f.seen(afterlogin.EventSubject), f.seen(afterlogin.EventRevoked)
	if len(all) != 1 || all[0].Reason != afterlogin.ReasonReported || !all[0].Everything || all[0].Subject != "mia" || all[0].Actor != "self" {
		t.Errorf("%+v", all)
	}
	if len(one) != 1 || string(one[0].Session) != id || one[0].Reason != afterlogin.ReasonReported {
		t.Errorf("%+v", one)
	}
	// Somebody who signs in by a provider is not sent to a page for passwords, and nothing need be named.
	corp := f.in("corp:1234", safari)
	corp.list().wants(t, "a provider's", 200, "with Example Corp")
	corp.list().lacks(t, "a provider's", base+"/password")
	ask = corp.get(base + reportPath)
	ask.wants(t, "the question", 200, "change your password where you sign in")
	if a := corp.do("POST", base+sessionsPath, ask.form(t, "act", "report")); a.status != http.StatusSeeOther || a.to != base+"/login" {
		t.Errorf("%d to %s", a.status, a.to)
	}
}

// What has ended is shown with the reason, in both languages, and not for ever.
func TestEnded(t *testing.T) {
	f := open(t, nil)
	for why, want := range map[afterlogin.Reason][2]string{
		afterlogin.ReasonReused:          {"an older copy of this sign-in was used", "eine ältere Kopie dieser Anmeldung wurde benutzt"},
		afterlogin.ReasonPasswordChanged: {"Signed out because your password was changed on another device", "weil Ihr Passwort auf einem anderen Gerät geändert wurde"},
		afterlogin.ReasonAdministrator:   {"Ended by an administrator", "Von einem Administrator beendet"},
		afterlogin.ReasonLimit:           {"Ended to make room", "um Platz zu machen"},
		"incident 7":                     {"<li>Ended</li>", "<li>Beendet</li>"},
	} {
		subject := "mia." + strings.ReplaceAll(string(why), " ", ".")
		gone, here := f.in(subject, safari), f.in(subject, firefox)
		if err := f.a.Revoke(t.Context(), afterlogin.SessionID(gone.id()), why); err != nil {
			t.Fatal(err)
		}
		here.list().wants(t, string(why), 200, "Ended lately", want[0])
		here.do("GET", base+sessionsPath, "", "Accept-Language: de-CH, en;q=0.5").wants(t, string(why), 200, `<html lang="de">`, "Kürzlich beendet", want[1])
		got, _ := here.json()
		if len(got.Ended) != 1 || got.Ended[0].Reason != string(why) || got.Ended[0].Kind != "device" || got.Ended[0].Name != "Safari on iPhone" || got.Ended[0].Place != "Cologne, Germany" {
			t.Errorf("%+v", got.Ended)
		}
	}
	// A device that was signed out by a change of the password, told by the epochs of its subject.
	gone, here := f.in("mia", safari), f.in("mia", firefox)
	if err := f.a.RevokeOthers(t.Context(), afterlogin.SessionID(here.id()), afterlogin.ReasonPasswordChanged); err != nil {
		t.Fatal(err)
	}
	if gone.over() != afterlogin.ReasonPasswordChanged {
		t.Errorf("%q", gone.over())
	}
	here.list().wants(t, "by the password", 200, "Signed out because your password was changed on another device")
	// To end it once more does no harm, and does not change why it ended.
	got, csrf := here.json()
	for _, act := range []string{"sign_out", "report"} {
		if act == "sign_out" {
			here.program("DELETE", sessionsPath+"/"+got.Ended[0].ID, "", csrf).wants(t, "once more", 204)
		} else {
			here.program("POST", sessionsPath, `{"act":"report","session":"`+got.Ended[0].ID+`"}`, csrf).wants(t, "a report of it", 200)
		}
		if s, err := f.a.Session(t.Context(), afterlogin.SessionID(got.Ended[0].ID)); err != nil || s.Why != afterlogin.ReasonPasswordChanged {
			t.Errorf("%s: %v, %v", act, s.Why, err)
		}
	}
}

// What is on hold is listed as such, and can be signed out.
func TestOnHold(t *testing.T) {
	f := open(t, nil)
	here, held := f.in("mia", firefox), f.in("mia", safari)
	id := held.id()
	if err := f.a.Freeze(t.Context(), afterlogin.SessionID(id), "incident 7"); err != nil {
		t.Fatal(err)
	}
	page := here.list()
	page.wants(t, "on hold", 200, "On hold", "It can do nothing until")
	page.lacks(t, "on hold", "incident 7")
	if got, _ := here.json(); len(got.Devices) != 2 || !got.Devices[1].Held {
		t.Errorf("%+v", got.Devices)
	}
	here.do("POST", base+sessionsPath, page.form(t, "session", id)).wants(t, "sign out", 303)
	if got, err := f.a.Session(t.Context(), afterlogin.SessionID(id)); err != nil || got.Why != afterlogin.ReasonSignedOut {
		t.Errorf("%v, %v", got, err)
	}
	// Who is on hold sees nothing.
	other := f.in("mia", safari)
	if err := f.a.Freeze(t.Context(), afterlogin.SessionID(other.id()), "incident 7"); err != nil {
		t.Fatal(err)
	}
	if a := other.get(base + sessionsPath); a.status != http.StatusSeeOther {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A session that was handed over is part of the device it came from: it is here there and there here, and what is done on
// the one is done on the device.
func TestHandedOver(t *testing.T) {
	f := open(t, nil)
	b := f.browser(f.home, firefox)
	login := b.get("/login?return_to=" + url.QueryEscape(f.app.Origin+"/test/who"))
	form := url.Values{"name": {"mia"}, "password": {password}, "csrf_token": {login.csrf(t)}, "return_to": {f.app.Origin + "/test/who"}}
	a := b.do("POST", "/login", form.Encode())
	a = b.follow(a, f.app.Origin+"/test/")
	b.site = f.app
	if got, err := b.session(); err != nil || got.ID == got.Root || got.Subject != "mia" {
		t.Fatalf("no session was handed over: %v, %v, %d %s", got, err, a.status, a.body)
	}
	phone := f.in("mia", safari)
	f.pass(20 * time.Minute)
	got, csrf := b.json()
	if len(got.Devices) != 2 || !got.Devices[0].Here || got.Devices[0].ID != b.id() || got.Devices[0].Name != "Firefox on Windows" {
		t.Fatalf("%+v", got.Devices)
	}
	// The handle of the child is not shown, and names nothing.
	child, err := b.session()
	if err != nil {
		t.Fatal(err)
	}
	b.program("DELETE", sessionsPath+"/"+string(child.ID), "", csrf).wants(t, "the child", 404)
	if b.over() != "" {
		t.Fatal("it ended")
	}
	// The others end, this device does not: neither here nor where it signed in.
	b.program("POST", sessionsPath, `{"act":"sign_out_others"}`, csrf).wants(t, "others", 204)
	if phone.over() == "" || b.over() != "" {
		t.Errorf("phone %q, here %q", phone.over(), b.over())
	}
	b.site = f.home
	if b.over() != "" {
		t.Errorf("at home: %q", b.over())
	}
	if got, _ := b.json(); len(got.Devices) != 1 || !got.Devices[0].Here {
		t.Errorf("at home: %+v", got.Devices)
	}
	// Signed out at the application, it is signed out at home.
	b.site = f.app
	got, csrf = b.json()
	b.program("DELETE", sessionsPath+"/"+got.Devices[0].ID, "", csrf).wants(t, "this device", 204)
	if b.token() != "" {
		t.Error("the cookie stays")
	}
	b.site = f.home
	if b.over() != afterlogin.ReasonSignedOut {
		t.Errorf("at home: %q", b.over())
	}
}

// The store that does not answer is 503, changes no cookie, and nothing is said to be done.
func TestStoreDown(t *testing.T) {
	f := open(t, nil)
	here, phone := f.in("mia", firefox), f.in("mia", safari)
	page := here.list()
	_, csrf := here.json()
	token, id := here.token(), phone.id()
	f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	for what, a := range map[string]*reply{
		"the page": here.get(base + sessionsPath), "one": here.do("POST", base+sessionsPath, page.form(t, "session", id)),
		"others": here.do("POST", base+sessionsPath, page.form(t, "act", "sign_out_others")), "JSON": here.program("GET", sessionsPath, "", ""),
		"DELETE": here.program("DELETE", sessionsPath+"/"+id, "", csrf),
	} {
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %v %s", what, a.status, a.header, a.body)
		}
	}
	// It answers what is read, and fails what is written, before it is durable and after.
	for _, fault := range []storetest.Fault{{Before: storetest.ErrFault}, {After: storetest.ErrFault}} {
		f.store.SetHook(func(c storetest.Call) storetest.Fault {
			if c.Method == "Apply" {
				return fault
			}
			return storetest.Fault{}
		})
		for what, form := range map[string]url.Values{
			"report": {"act": {"report"}, "session": {id}}, "others": {"act": {"sign_out_others"}},
		} {
			form.Set("csrf_token", csrf)
			a := here.do("POST", base+sessionsPath, form.Encode())
			if fault.Before != nil && (a.status != http.StatusServiceUnavailable || strings.Contains(a.to, "done") || !strings.Contains(a.body, "Try again in a moment")) {
				t.Errorf("%s: %d to %s %s", what, a.status, a.to, a.body)
			}
			if fault.Before != nil && (here.over() != "" || phone.over() != "") {
				t.Errorf("%s: here %q, phone %q", what, here.over(), phone.over())
			}
		}
	}
	f.store.SetHook(nil)
	if here.token() != token {
		t.Error("the cookie has changed")
	}
}
