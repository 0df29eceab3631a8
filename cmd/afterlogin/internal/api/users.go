package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
)

// User is a built-in user. The password is not known to the server.
type User struct {
	Name              string    `json:"name" doc:"The name, which is the subject of the user's sessions."`
	Disabled          bool      `json:"disabled" doc:"The user cannot sign in."`
	Scopes            []string  `json:"scopes,omitempty" doc:"What the user's sessions may do, in the application's own words."`
	CreatedAt         time.Time `json:"created_at"`
	PasswordChangedAt time.Time `json:"password_changed_at"`
	Pending           bool      `json:"pending,omitempty" doc:"The user was changed, and sessions from before may not have been ended yet: make the change again, or wait for a minute."`
}

// CreateUserRequest says what user to make.
type CreateUserRequest struct {
	Name     string   `json:"name" doc:"1 to 64 of a to z, 0 to 9 and . _ @ -, in lower case." maxLength:"64"`
	Password string   `json:"password" doc:"At least as many characters as the setting sign_in.password_min says, at most 1024 bytes, and not one of those that are tried first." maxLength:"1024" format:"password"`
	Scopes   []string `json:"scopes,omitempty" doc:"What the user's sessions may do, in the application's own words." maxItems:"50"`
}

// ChangeUserRequest changes what it names, and nothing else.
type ChangeUserRequest struct {
	Disabled *bool    `json:"disabled,omitempty" doc:"true ends all sessions, grants and API keys of the user, and keeps the user from signing in with the password; an application that makes sessions or API keys itself can still make them for this subject. false lets nothing of what was ended live again."`
	Scopes   []string `json:"scopes,omitempty" doc:"All of them. Taking one away ends the user's sessions; one that is new is there from the next sign-in on." maxItems:"50"`
}

// SetPasswordRequest gives a user a new password.
type SetPasswordRequest struct {
	Password string `json:"password" doc:"The new one." maxLength:"1024" format:"password"`
}

// UserList is a page of users, by name. One whose record cannot be read is left out, and named in the server's log.
type UserList struct {
	Data []*User `json:"data"`
	Next string  `json:"next_cursor,omitempty" doc:"The cursor of the next page. Absent on the last."`
}

type userListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before." maxLength:"64"`
}

// UserNameInput is the name of a user in the path.
type UserNameInput struct {
	Name string `path:"name" doc:"The user's name." maxLength:"64"`
}

type userOutput struct{ Body *User }

type createdUserOutput struct {
	Location string `header:"Location"`
	Body     *User
}

func newUser(u *users.User) *User {
	return &User{
		Name: u.Name, Disabled: u.Disabled, Scopes: u.Scopes, CreatedAt: u.Created.UTC(),
		PasswordChangedAt: u.PasswordChanged.UTC(), Pending: u.Pending,
	}
}

func (a *API) userRoutes() {
	changes := []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}
	register(a, route{
		method: http.MethodPost, path: "/v1/users", scope: UsersWrite, id: "create-user", status: http.StatusCreated,
		errors: changes, summary: "Add a user",
		text: "For those who have no other place that knows people. Names are never used again: a user is disabled, not removed. Durable when answered. After an answer 5xx the user may be there: if so, give it its password with PUT /v1/users/{name}/password.",
	}, a.createUser)
	register(a, route{
		method: http.MethodGet, path: "/v1/users", scope: UsersRead, id: "list-users", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "List users", text: "By name, page by page.",
	}, a.listUsers)
	register(a, route{
		method: http.MethodGet, path: "/v1/users/{name}", scope: UsersRead, id: "show-user", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show a user",
	}, func(ctx context.Context, in *UserNameInput) (*userOutput, error) {
		if a.users == nil {
			return nil, noUsers()
		}
		u, err := a.users.User(ctx, in.Name)
		return userAnswer(u, err)
	})
	register(a, route{
		method: http.MethodPatch, path: "/v1/users/{name}", scope: UsersWrite, id: "change-user", status: http.StatusOK,
		errors: changes, summary: "Disable or enable a user, or change the scopes",
		text: "Durable when answered, and what ends with the change has ended. After an answer 5xx make the change again.",
	}, a.changeUser)
	register(a, route{
		method: http.MethodPut, path: "/v1/users/{name}/password", scope: UsersWrite, id: "set-user-password", status: http.StatusOK,
		errors: changes, summary: "Give a user a new password",
		text: "Ends the user's sessions; API keys stay. Durable when answered. After an answer 5xx do it again.",
	}, a.setPassword)
}

func noUsers() error {
	return NewProblem(http.StatusNotFound, "no-users", "this server keeps no users: set sign_in.users")
}

// badUser turns the errors of users into answers.
func badUser(err error) error {
	var field *users.FieldError
	switch {
	case errors.As(err, &field):
		return invalid("body."+field.Field, "%s", field.Message)
	case errors.Is(err, users.ErrNoUser):
		return NewProblem(http.StatusNotFound, "no-such-user", "there is no user of this name")
	case errors.Is(err, users.ErrUserExists):
		return NewProblem(http.StatusConflict, "user-exists", "body.name: there is a user of this name", FieldError{"body.name", "there is a user of this name"})
	case errors.Is(err, users.ErrChanged):
		return NewProblem(http.StatusConflict, "user-changed", "others are changing this user right now: try again")
	case errors.Is(err, users.ErrBusy):
		p := NewProblem(http.StatusServiceUnavailable, "passwords-busy", "too many passwords are being hashed at once: try again")
		p.header = http.Header{"Retry-After": {"2"}}
		return p
	}
	return err
}

func userAnswer(u *users.User, err error) (*userOutput, error) {
	if err != nil {
		return nil, badUser(err)
	}
	return &userOutput{newUser(u)}, nil
}

func (a *API) createUser(ctx context.Context, in *struct{ Body CreateUserRequest }) (*createdUserOutput, error) {
	if a.users == nil {
		return nil, noUsers()
	}
	u, err := a.users.Add(ctx, in.Body.Name, in.Body.Password, in.Body.Scopes)
	if err != nil {
		return nil, badUser(err)
	}
	return &createdUserOutput{Location: "/v1/users/" + u.Name, Body: newUser(u)}, nil
}

// listUsers reads all of them for each page: the list is small, and in no order where it is kept.
func (a *API) listUsers(ctx context.Context, in *userListInput) (*struct{ Body UserList }, error) {
	if a.users == nil {
		return nil, noUsers()
	}
	// The least names behind the cursor are kept, and one more that says whether there is a next page.
	var page []*users.User
	known := in.Cursor == "" // a cursor is the name of a user, and users stay
	for u, err := range a.users.All(ctx) {
		if err != nil {
			return nil, badUser(err)
		}
		if u.Name <= in.Cursor {
			known = known || u.Name == in.Cursor
			continue
		}
		at, _ := slices.BinarySearchFunc(page, u.Name, func(x *users.User, name string) int { return strings.Compare(x.Name, name) })
		if at > in.Limit {
			continue
		}
		page = slices.Insert(page, at, u)
		page = page[:min(len(page), in.Limit+1)]
	}
	if !known {
		return nil, NewProblem(http.StatusBadRequest, "bad-cursor", "the cursor is not one of this list: give back next_cursor unchanged",
			FieldError{"query.cursor", "is not one of this list"})
	}
	out := &struct{ Body UserList }{UserList{Data: []*User{}}}
	if len(page) > in.Limit {
		page = page[:in.Limit]
		out.Body.Next = page[in.Limit-1].Name
	}
	for _, u := range page {
		out.Body.Data = append(out.Body.Data, newUser(u))
	}
	return out, nil
}

func (a *API) changeUser(ctx context.Context, in *struct {
	UserNameInput
	Wait
	Body ChangeUserRequest
}) (*userOutput, error) {
	if a.users == nil {
		return nil, noUsers()
	}
	c := users.Change{Disabled: in.Body.Disabled}
	if in.Body.Scopes != nil {
		c.Scopes = &in.Body.Scopes
	}
	if c == (users.Change{}) {
		return nil, invalid("body", "names nothing to change: want disabled, scopes, or both")
	}
	u, err := a.users.Update(ctx, in.Name, c)
	if _, waited := in.done(ctx, a, err); waited != nil {
		return nil, badUser(waited)
	}
	return userAnswer(u, nil)
}

func (a *API) setPassword(ctx context.Context, in *struct {
	UserNameInput
	Wait
	Body SetPasswordRequest
}) (*userOutput, error) {
	if a.users == nil {
		return nil, noUsers()
	}
	u, err := a.users.SetPassword(ctx, in.Name, in.Body.Password)
	if _, waited := in.done(ctx, a, err); waited != nil {
		return nil, badUser(waited)
	}
	return userAnswer(u, nil)
}
