package main

import (
	"fmt"
	"net/http"
	"sort"
	"sync"
	"time"

	"heapgate/heapgate"
)

type counters struct {
	sync.Mutex
	requests map[string]int
}

func newCounters() *counters { return &counters{requests: map[string]int{}} }

func (c *counters) add(name string) {
	c.Lock()
	c.requests[name]++
	c.Unlock()
}

// metrics tells the runtime's own figures, then the requests that were served.
func (h *handler) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_ = heapgate.Write(w) // the client went away: nobody is left to tell
	h.counters.Lock()
	defer h.counters.Unlock()
	names := make([]string, 0, len(h.counters.requests))
	for name := range h.counters.requests {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(w, "sessioncache_requests_total{kind=%q} %d\n", name, h.counters.requests[name])
	}
}

func expiry(ttl time.Duration) time.Time { return time.Now().Add(ttl) }
