package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// steps is the story. Each step goes on where the one before it left off.
func (s *story) steps() []step {
	return []step{
		{"mia looks around: no cookie, since there is nothing to keep", s.looksAround},
		{"she puts two things into the cart: that makes an anonymous session", s.fillsCart},
		{"a wrong password is refused, and her cookie stays as it is", s.wrongPassword},
		{"she signs in: the cart is kept, the cookie is another, the session is another", s.signsIn},
		{"her old cookie is refused", s.oldCookieRefused},
		{"a form without the session's CSRF token is refused, and so is one from another site", s.forms},
		{"a cookie with one letter changed is refused, and ends nothing", s.alteredCookie},
		{"a thief copies her cookie, and uses it: the copy is as good as the original", s.thiefEnters},
		{"she shops on: 20 requests at once renew the token, to one and the same", s.renews},
		{"the thief's copy is served within the grace, without ever getting the new token", s.withinGrace},
		{"after the grace it is refused, and that ends the session", s.caught},
		{"mia is told why, and that her cart is safe", s.miaIsTold},
		{"tom signs in with what is left in her browser: he does not get her cart", s.tomInMiasBrowser},
		{"mia signs in again: her cart is there", s.signsInAgain},
		{"tom's renewed cookie is lost on its way: he stays signed in", s.lostAnswer},
		{"two session cookies in one request are refused", s.twoCookies},
		{"a token in an address is refused, and worthless from then on", s.tokenInURL},
		{"she allows an app to see her cart: it gets tokens of its own, and never her password", s.allowsApp},
		{"the app's access token ends: its refresh token gets it the next two", s.appRenews},
		{"the answer to a refresh is lost, and the app asks 20 times at once: all get the very tokens that were lost", s.appLosesAnswer},
		{"a thief uses an old copy of its refresh token: that ends the app's grant, and nothing else", s.appRobbed},
		{"the app is allowed again, and stands on the list of devices; she signs it out there", s.appSignedOut},
		{"another app gets JWTs, which anybody can check who has the shop's public keys", s.allowsJWTApp},
		{"mia signs in on her phone, too, and both are listed", s.phoneSignsIn},
		{"she signs out everywhere else: the phone and the app are refused, the laptop is not", s.signsOutOthers},
		{"she orders, twice with one press too many: one order, and an empty cart", s.orders},
		{"she gives the receipt's address away with a ticket in it: it opens that one thing, once", s.ticket},
		{"she signs out: the cookie is gone, and a copy of it is refused", s.signsOut},
		{"a partner's machine has an API key: it opens the stock, not the orders, and nothing from elsewhere", s.partnerAsks},
		{"its key is changed: both are good for a while, and then only the new one", s.partnerRotates},
		{"it asks too often: 429, until it has waited", s.partnerHurries},
		{"none of the tokens is found in what the store has on disk", s.nothingAtRest},
	}
}

func (s *story) looksAround(ctx context.Context) (string, error) {
	a, err := s.mia.get(ctx, "/")
	if err != nil {
		return "", err
	}
	if a.set != "" {
		return "", errors.New("the first page set a cookie")
	}
	return "", want(a, http.StatusOK, "")
}

func (s *story) fillsCart(ctx context.Context) (string, error) {
	a, err := s.mia.post(ctx, "/cart/items", url.Values{"product": {"teapot"}})
	if err != nil {
		return "", err
	}
	if want := httpauth.PlainCookieName + "=" + a.set + "; Path=/; HttpOnly; SameSite=Lax"; a.set == "" || a.line != want {
		return "", errors.New("the cookie's attributes are not Path=/; HttpOnly; SameSite=Lax")
	}
	s.anonymous = s.mia.cookie
	if a, err = s.mia.post(ctx, "/cart/items", url.Values{"product": {"sencha"}, "quantity": {"2"}}); err != nil {
		return "", err
	}
	if a.set != "" {
		return "", errors.New("the second thing set another cookie")
	}
	if lines(a) != 2 {
		return "", fmt.Errorf("the cart holds %d kinds of things, want 2", lines(a))
	}
	s.session = handle(a)
	return s.session, want(a, http.StatusOK, "")
}

func (s *story) signIn(ctx context.Context, b *browser, user, password string, more url.Values) (answer, error) {
	if _, err := b.get(ctx, "/sign-in?return_to=/cart"); err != nil {
		return answer{}, err
	}
	form := url.Values{"user": {user}, "password": {password}, "return_to": {"/cart"}}
	for k, v := range more {
		form[k] = v
	}
	return b.post(ctx, "/sign-in", form)
}

func (s *story) wrongPassword(ctx context.Context) (string, error) {
	a, err := s.signIn(ctx, s.mia, "mia", "guess", nil)
	if err != nil {
		return "", err
	}
	if a.set != "" || s.mia.cookie != s.anonymous {
		return "", errors.New("the cookie changed")
	}
	return "", want(a, http.StatusUnprocessableEntity, "")
}

func (s *story) signsIn(ctx context.Context) (string, error) {
	a, err := s.signIn(ctx, s.mia, "mia", "demo", nil)
	if err != nil {
		return "", err
	}
	switch {
	case lines(a) != 2 || a.path != "/cart":
		return "", fmt.Errorf("%s shows %d kinds of things, want the cart with 2", a.path, lines(a))
	case s.mia.cookie == s.anonymous:
		return "", errors.New("the cookie's value is the old one")
	case handle(a) == s.session:
		return "", errors.New("the session is the old one")
	}
	s.session, s.first = handle(a), s.mia.cookie
	return s.session, want(a, http.StatusOK, "")
}

func (s *story) oldCookieRefused(ctx context.Context) (string, error) {
	old := *s.mia
	old.cookie = s.anonymous
	a, err := old.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if lines(a) != 0 || a.line != "" {
		return "", errors.New("the old cookie shows a cart, or was answered with a cookie")
	}
	return "401 superseded", want(a, http.StatusUnauthorized, afterlogin.ReasonSuperseded)
}

func (s *story) forms(ctx context.Context) (string, error) {
	b := *s.mia
	b.csrf = ""
	a, err := b.post(ctx, "/cart/items/teapot/remove", nil)
	if err != nil {
		return "", err
	}
	if err := want(a, http.StatusForbidden, ""); err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.mia.base+"sign-out", strings.NewReader("csrf_token="+s.mia.csrf))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", "https://elsewhere.example")
	r.AddCookie(&http.Cookie{Name: httpauth.PlainCookieName, Value: s.mia.cookie})
	if a, err = read(s.mia.client, r); err != nil {
		return "", err
	}
	if err := want(a, http.StatusForbidden, ""); err != nil {
		return "", err
	}
	if a, err = s.mia.get(ctx, "/cart"); err == nil && lines(a) != 2 {
		err = errors.New("the cart was changed")
	}
	return "403, twice", err
}

func (s *story) alteredCookie(ctx context.Context) (string, error) {
	altered := []byte(s.mia.cookie)
	if altered[50]++; altered[50] == 'z'+1 || altered[50] == 'Z'+1 || altered[50] == '9'+1 {
		altered[50] = 'A'
	}
	b := *s.mia
	b.cookie = string(altered)
	a, err := b.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if a.Status != http.StatusUnauthorized || a.Reason != afterlogin.ReasonForged && a.Reason != afterlogin.ReasonMalformed {
		return "", fmt.Errorf("want 401 forged, got %d %s", a.Status, a.Reason)
	}
	why := a.Reason
	if a, err = s.mia.get(ctx, "/cart"); err != nil {
		return "", err
	}
	return "401 " + string(why), want(a, http.StatusOK, "")
}

func (s *story) thiefEnters(ctx context.Context) (string, error) {
	s.thief.cookie = s.mia.cookie
	a, err := s.thief.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if lines(a) != 2 {
		return "", errors.New("the thief does not see the cart")
	}
	return "nothing can be done about that but a token that is bound to a key", want(a, http.StatusOK, "")
}

// renews has 20 requests go out with one cookie when it is due. However many there are, and whichever answer comes
// last, the browser ends up with one successor.
func (s *story) renews(ctx context.Context) (string, error) {
	s.advance(s.demo.config.Renewal + time.Second)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	set := make(map[string]int)
	for range 20 {
		wg.Go(func() {
			b := *s.mia
			a, err := b.get(ctx, "/cart")
			if err == nil {
				err = want(a, http.StatusOK, "")
			}
			mu.Lock()
			defer mu.Unlock()
			if errs = append(errs, err); a.set != "" {
				set[a.set]++
				s.second = a.set
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	if len(set) != 1 || s.second == s.first {
		return "", fmt.Errorf("%d different new cookies, want 1", len(set))
	}
	told := set[s.second]
	s.mia.cookie = s.second
	a, err := s.mia.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	now, err := s.demo.authority.Session(ctx, afterlogin.SessionID(s.session))
	if err != nil {
		return "", err
	}
	if handle(a) != s.session || lines(a) != 2 || now.Generation != 2 {
		return "", errors.New("the session, the cart or the generation is not what it was")
	}
	return fmt.Sprintf("%d of the answers carried it; the session is still %s, generation 2", told, s.session), want(a, http.StatusOK, "")
}

func (s *story) withinGrace(ctx context.Context) (string, error) {
	a, err := s.thief.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if a.line != "" {
		return "", errors.New("the thief was given the new token")
	}
	return "200, and no cookie", want(a, http.StatusOK, "")
}

func (s *story) caught(ctx context.Context) (string, error) {
	s.advance(s.demo.config.Grace + time.Second)
	a, err := s.thief.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if err := want(a, http.StatusUnauthorized, afterlogin.ReasonReused); err != nil {
		return "", err
	}
	if a, err = s.thief.get(ctx, "/cart"); err != nil {
		return "", err
	}
	return "401 reused, and from then on 401 revoked", want(a, http.StatusUnauthorized, afterlogin.ReasonRevoked)
}

func (s *story) miaIsTold(ctx context.Context) (string, error) {
	a, err := s.mia.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	switch {
	case a.line != "":
		return "", errors.New("the refusal changed her cookie")
	case lines(a) != 0:
		return "", errors.New("the cart of a session that is over is shown")
	case !strings.Contains(a.Message, "out-of-date copy") || !strings.Contains(a.Message, "Your cart is safe."):
		return "", fmt.Errorf("she is told %q", a.Message)
	}
	return a.Message, want(a, http.StatusUnauthorized, afterlogin.ReasonRevoked)
}

func (s *story) tomInMiasBrowser(ctx context.Context) (string, error) {
	s.tom.cookie = s.mia.cookie
	a, err := s.signIn(ctx, s.tom, "tom", "demo", nil)
	if err != nil {
		return "", err
	}
	if lines(a) != 0 {
		return "", errors.New("tom sees mia's cart")
	}
	return "", want(a, http.StatusOK, "")
}

func (s *story) signsInAgain(ctx context.Context) (string, error) {
	a, err := s.signIn(ctx, s.mia, "mia", "demo", nil)
	if err != nil {
		return "", err
	}
	if lines(a) != 2 {
		return "", fmt.Errorf("the cart holds %d kinds of things, want 2", lines(a))
	}
	if handle(a) == s.session {
		return "", errors.New("the session is the old one")
	}
	s.session = handle(a)
	return s.session, want(a, http.StatusOK, "")
}

// lostAnswer has the answer with a renewed cookie never arrive, as when a phone is locked during the first page of a
// visit, and the person come back long after the grace.
func (s *story) lostAnswer(ctx context.Context) (string, error) {
	s.advance(s.demo.config.Renewal + time.Second)
	lost := *s.tom
	a, err := lost.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if a.set == "" {
		return "", errors.New("there was no renewal to lose")
	}
	s.advance(10*s.demo.config.Grace + time.Second)
	if a, err = s.tom.get(ctx, "/orders"); err != nil {
		return "", err
	}
	if a.set == "" || a.path != "/orders" {
		return "", errors.New("he was not given another")
	}
	return "nobody had used the new one: the old one is forgiven and renewed once more", want(a, http.StatusOK, "")
}

func (s *story) twoCookies(ctx context.Context) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.mia.base+"cart", nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Cookie", httpauth.PlainCookieName+"="+s.mia.cookie+"; "+httpauth.PlainCookieName+"="+s.tom.cookie)
	a, err := read(s.mia.client, r)
	if err != nil {
		return "", err
	}
	if lines(a) != 0 {
		return "", errors.New("a cart is shown")
	}
	if err := want(a, http.StatusUnauthorized, ""); err != nil {
		return "", err
	}
	if a, err = s.mia.get(ctx, "/cart"); err != nil {
		return "", err
	}
	return "401; each by itself is still good", want(a, http.StatusOK, "")
}

func (s *story) tokenInURL(ctx context.Context) (string, error) {
	stranger := s.visitor(thiefAgent)
	a, err := stranger.get(ctx, "/?session="+s.tom.cookie)
	if err != nil {
		return "", err
	}
	if err := want(a, http.StatusBadRequest, ""); err != nil {
		return "", err
	}
	if strings.Contains(a.body, s.tom.cookie) {
		return "", errors.New("the page repeats the token")
	}
	if a, err = s.tom.get(ctx, "/cart"); err != nil {
		return "", err
	}
	return "400, and then 401 revoked", want(a, http.StatusUnauthorized, afterlogin.ReasonRevoked)
}

func (s *story) phoneSignsIn(ctx context.Context) (string, error) {
	a, err := s.signIn(ctx, s.phone, "mia", "demo", url.Values{"remember": {"yes"}})
	if err != nil {
		return "", err
	}
	if !strings.Contains(a.line, "; Max-Age=2592000") {
		return "", errors.New("the cookie does not last for 30 days")
	}
	if a, err = s.mia.get(ctx, "/account/sessions"); err != nil {
		return "", err
	}
	here := strings.Index(a.body, "Firefox on Linux <span class=\"badge\">This device")
	phone := strings.Index(a.body, "Chrome on Android")
	if here < 0 || phone < here || strings.Count(a.body, "data-device=") != 2 {
		return "", errors.New("the list is not this device, and then the phone")
	}
	if !strings.Contains(a.body, "an out-of-date copy of this sign-in was used") {
		return "", errors.New("the list does not tell why the stolen sign-in ended")
	}
	return "Firefox on Linux (this device), Chrome on Android", want(a, http.StatusOK, "")
}

func (s *story) signsOutOthers(ctx context.Context) (string, error) {
	a, err := s.mia.post(ctx, "/account/sessions/sign-out-others", nil)
	if err != nil {
		return "", err
	}
	if err := want(a, http.StatusOK, ""); err != nil {
		return "", err
	}
	if strings.Count(a.body, "data-device=") != 1 {
		return "", errors.New("the list does not show one device")
	}
	if a, err = s.phone.get(ctx, "/cart"); err != nil {
		return "", err
	}
	if err := want(a, http.StatusUnauthorized, afterlogin.ReasonSignedOutAll); err != nil {
		return "", err
	}
	return s.jwtAfterwards(ctx)
}

func (s *story) orders(ctx context.Context) (string, error) {
	if _, err := s.mia.get(ctx, "/checkout"); err != nil {
		return "", err
	}
	for range 2 {
		a, err := s.mia.post(ctx, "/checkout", nil)
		if err != nil {
			return "", err
		}
		if n := strings.Count(a.body, "data-order="); n != 1 {
			return "", fmt.Errorf("%d orders, want 1", n)
		}
	}
	a, err := s.mia.get(ctx, "/cart")
	if err == nil && lines(a) != 0 {
		err = errors.New("the cart is not empty")
	}
	return "", err
}

func (s *story) signsOut(ctx context.Context) (string, error) {
	last := *s.mia
	a, err := s.mia.post(ctx, "/sign-out", nil)
	if err != nil {
		return "", err
	}
	if s.mia.cookie != "" || handle(a) != "" {
		return "", errors.New("the cookie is still there")
	}
	if a, err = last.get(ctx, "/cart"); err != nil {
		return "", err
	}
	return "401 revoked", want(a, http.StatusUnauthorized, afterlogin.ReasonRevoked)
}
