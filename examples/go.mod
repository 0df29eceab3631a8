module github.com/afterlogin/afterlogin/examples

go 1.26.0

require github.com/afterlogin/afterlogin v0.1.0
