package main

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"
)

// A queue knows when each request is done as soon as it comes: with service times that are drawn
// and not worked for, and first come first served, nothing that comes later changes it. The servers
// are only the instants at which they are free. So a timer that is late makes its own answer late
// and no other's: the servers' own time does not drift.
type queue struct {
	mutex   sync.Mutex
	free    instants // when each server is free
	begins  []time.Time
	waiting int // -1: no bound
	mean    time.Duration
	random  *rand.Rand
}

func newQueue(o options) *queue {
	return &queue{
		free:    make(instants, o.servers),
		waiting: o.waiting,
		mean:    o.service,
		random:  rand.New(rand.NewPCG(o.seed, o.seed)),
	}
}

// join gives the instant at which a request that comes now is served; false when too many wait.
func (q *queue) join(now time.Time) (time.Time, bool) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	begin := now
	if q.free[0].After(now) {
		if !q.hasRoom(now) {
			return time.Time{}, false
		}
		begin = q.free[0]
		q.begins = append(q.begins, begin)
	}
	done := begin.Add(time.Duration(q.random.ExpFloat64() * float64(q.mean)))
	q.free[0] = done
	heap.Fix(&q.free, 0)
	return done, true
}

// hasRoom forgets who is served by now, and tells whether another one may wait. Services begin in
// the order in which their requests came.
func (q *queue) hasRoom(now time.Time) bool {
	served := 0
	for served < len(q.begins) && !q.begins[served].After(now) {
		served++
	}
	q.begins = q.begins[served:]
	return q.waiting < 0 || len(q.begins) < q.waiting
}

// instants are a heap: the earliest comes first.
type instants []time.Time

func (i instants) Len() int           { return len(i) }
func (i instants) Less(a, b int) bool { return i[a].Before(i[b]) }
func (i instants) Swap(a, b int)      { i[a], i[b] = i[b], i[a] }
func (i *instants) Push(x any)        { *i = append(*i, x.(time.Time)) }
func (i *instants) Pop() any          { panic("servers stay") }
