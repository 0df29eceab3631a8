module github.com/afterlogin/afterlogin/test

go 1.26.0

require (
	github.com/afterlogin/afterlogin v0.1.0
	github.com/afterlogin/afterlogin/store/pebblestore v0.1.0
	github.com/afterlogin/afterlogin/store/storetest v0.1.0
)
