package redisstore

import (
	"testing"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func TestSingle(t *testing.T)        { storetest.RunLocal(t, openSingle) }
func TestSingleWatch(t *testing.T)   { storetest.RunWatch(t, openSingle) }
func TestCluster(t *testing.T)       { storetest.RunLocal(t, openCluster) }
func TestClusterWatch(t *testing.T)  { storetest.RunWatch(t, openCluster) }
func TestSentinel(t *testing.T)      { storetest.RunLocal(t, openSentinel) }
func TestSentinelWatch(t *testing.T) { storetest.RunWatch(t, openSentinel) }

func TestSingleModel(t *testing.T) {
	storetest.Sequences(t, 300, 3000)
	storetest.RunModel(t, openSingle)
}

func TestClusterModel(t *testing.T) {
	storetest.Sequences(t, 100, 1000)
	storetest.RunModel(t, openCluster)
}

func TestSentinelModel(t *testing.T) {
	storetest.Sequences(t, 100, 1000)
	storetest.RunModel(t, openSentinel)
}

func TestSingleBulk(t *testing.T)   { storetest.RunBulk(t, bulk(openSingle)) }
func TestClusterBulk(t *testing.T)  { storetest.RunBulk(t, bulk(openCluster)) }
func TestSentinelBulk(t *testing.T) { storetest.RunBulk(t, bulk(openSentinel)) }

func bulk(open storetest.Open) storetest.OpenBulk {
	return func(t *testing.T) store.Bulk { return open(t).(store.Bulk) }
}
