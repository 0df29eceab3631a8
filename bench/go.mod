module github.com/afterlogin/afterlogin/bench

go 1.26.0

require (
	github.com/afterlogin/afterlogin v0.1.0
	github.com/afterlogin/afterlogin/store/pebblestore v0.1.0
	github.com/afterlogin/afterlogin/cmd/afterlogin v0.1.0
)
