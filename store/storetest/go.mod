module github.com/afterlogin/afterlogin/store/storetest

go 1.26.0

require (
	github.com/afterlogin/afterlogin v0.1.0
	pgregory.net/rapid v1.3.0
)
