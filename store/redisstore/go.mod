module github.com/afterlogin/afterlogin/store/redisstore

go 1.26.0

require (
	github.com/afterlogin/afterlogin v0.1.0
	github.com/afterlogin/afterlogin/store/storetest v0.1.0
	github.com/redis/rueidis v1.0.79
	go.uber.org/goleak v1.3.0
)

require (
	golang.org/x/sys v0.47.0 // indirect
	pgregory.net/rapid v1.3.0 // indirect
)
