package main

import (
	"fmt"
	"net/http"
	"runtime/metrics"
	"sort"
	"sync"
	"time"
)

// exported are the runtime's own figures, under the names that Prometheus' Go client gives them.
var exported = []struct{ name, source string }{
	{"go_gc_gogc_percent", "/gc/gogc:percent"},
	{"go_gc_gomemlimit_bytes", "/gc/gomemlimit:bytes"},
	{"go_sched_gomaxprocs_threads", "/sched/gomaxprocs:threads"},
	{"go_gc_heap_live_bytes", "/gc/heap/live:bytes"},
	{"go_gc_heap_goal_bytes", "/gc/heap/goal:bytes"},
	{"go_gc_cycles_total_gc_cycles_total", "/gc/cycles/total:gc-cycles"},
	{"go_memory_classes_total_bytes", "/memory/classes/total:bytes"},
	{"go_memory_classes_heap_released_bytes", "/memory/classes/heap/released:bytes"},
	{"go_sched_goroutines_goroutines", "/sched/goroutines:goroutines"},
}

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

func (h *handler) metrics(w http.ResponseWriter, _ *http.Request) {
	samples := make([]metrics.Sample, len(exported))
	for n, metric := range exported {
		samples[n].Name = metric.source
	}
	metrics.Read(samples)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for n, metric := range exported {
		if samples[n].Value.Kind() == metrics.KindUint64 {
			fmt.Fprintf(w, "%s %d\n", metric.name, samples[n].Value.Uint64())
		}
	}
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
