module github.com/afterlogin/afterlogin

go 1.26.0
