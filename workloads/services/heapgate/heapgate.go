// Package heapgate tells what the Go runtime knows of its memory and its garbage collector, in the
// text format of Prometheus and under the names that Prometheus' own Go client gives.
//
// One line is enough for a service that serves http.DefaultServeMux; it then answers on
// /debug/heapgate, as with expvar and net/http/pprof:
//
//	import _ "heapgate/heapgate"
//
// For a mux of one's own:
//
//	mux.Handle("/debug/heapgate", heapgate.Handler())
//
// A service without HTTP answers on an address of its own when it is started with
// HEAPGATE_METRICS_ADDR=127.0.0.1:9100. Without that variable no port is opened. No goroutine is
// started, no setting of the runtime is changed, and nothing is done until somebody asks.
//
// The folder is a module without dependencies, from Go 1.21 on: name it in a `replace` of go.mod,
// or copy this one file into a package of yours.
package heapgate

import (
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Path is where http.DefaultServeMux answers.
const Path = "/debug/heapgate"

// AddressVariable names the environment variable with an address to listen on.
const AddressVariable = "HEAPGATE_METRICS_ADDR"

// wanted are the runtime's figures that are told, where this runtime has them.
var wanted = []string{
	"/gc/gogc:percent",
	"/gc/gomemlimit:bytes",
	"/sched/gomaxprocs:threads",
	"/gc/cycles/automatic:gc-cycles",
	"/gc/cycles/forced:gc-cycles",
	"/gc/cycles/total:gc-cycles",
	"/gc/limiter/last-enabled:gc-cycle",
	"/gc/heap/goal:bytes",
	"/gc/heap/live:bytes",
	"/gc/heap/allocs:bytes",
	"/gc/heap/frees:bytes",
	"/gc/heap/objects:objects",
	"/memory/classes/heap/free:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/heap/stacks:bytes",
	"/memory/classes/heap/unused:bytes",
	"/memory/classes/total:bytes",
	"/cpu/classes/gc/mark/assist:cpu-seconds",
	"/cpu/classes/gc/mark/dedicated:cpu-seconds",
	"/cpu/classes/gc/mark/idle:cpu-seconds",
	"/cpu/classes/gc/pause:cpu-seconds",
	"/cpu/classes/gc/total:cpu-seconds",
	"/cpu/classes/scavenge/total:cpu-seconds",
	"/cpu/classes/user:cpu-seconds",
	"/cpu/classes/idle:cpu-seconds",
	"/cpu/classes/total:cpu-seconds",
	"/sched/goroutines:goroutines",
	"/sync/mutex/wait/total:seconds",
	"/sched/latencies:seconds",
	"/sched/pauses/total/gc:seconds",
	"/gc/pauses:seconds",
}

// replaced is the old name of a figure, which is told only where the new one is not there.
var replaced = map[string]string{"/gc/pauses:seconds": "/sched/pauses/total/gc:seconds"}

// Durations below it share a bucket: nobody waits for them.
const bucketMin = 1e-6

func init() {
	http.Handle(Path, Handler())
	if address := os.Getenv(AddressVariable); address != "" {
		listen(address)
	}
}

// listen serves on an address of its own; a service must not die of its own measurement.
func listen(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Printf("heapgate: %s: %v", AddressVariable, err)
		return
	}
	server := &http.Server{Handler: Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { log.Printf("heapgate: %v", server.Serve(listener)) }()
}

// Handler answers every request with the figures of this moment.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = Write(w) // the client went away: nobody is left to tell
	})
}

// Write writes the figures of this moment.
func Write(w io.Writer) error {
	shared.Lock()
	defer shared.Unlock()
	_, err := w.Write(shared.text())
	return err
}

// shared keeps the memory of the last reading for the next one, so that reading makes no garbage.
var shared reader

type reader struct {
	sync.Mutex
	samples []metrics.Sample
	told    []figure
	buffer  []byte
}

// figure is how one sample is told.
type figure struct{ name, head string }

func (r *reader) text() []byte {
	if r.samples == nil {
		r.choose()
	}
	metrics.Read(r.samples)
	r.buffer = r.buffer[:0]
	for n, sample := range r.samples {
		r.buffer = append(r.buffer, r.told[n].head...)
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			r.line(r.told[n].name, float64(sample.Value.Uint64()))
		case metrics.KindFloat64:
			r.line(r.told[n].name, sample.Value.Float64())
		case metrics.KindFloat64Histogram:
			r.histogram(r.told[n].name, sample.Value.Float64Histogram())
		}
	}
	return r.buffer
}

// choose finds out what this runtime has.
func (r *reader) choose() {
	has := map[string]metrics.Description{}
	for _, description := range metrics.All() {
		has[description.Name] = description
	}
	for _, name := range wanted {
		description, ok := has[name]
		if _, newer := has[replaced[name]]; !ok || newer {
			continue
		}
		kind := "gauge"
		if description.Kind == metrics.KindFloat64Histogram {
			kind = "histogram"
		} else if description.Cumulative {
			kind = "counter"
		}
		told := prometheusName(name, kind == "counter")
		r.samples = append(r.samples, metrics.Sample{Name: name})
		r.told = append(r.told, figure{told, "# TYPE " + told + " " + kind + "\n"})
	}
}

// prometheusName is the name that Prometheus' Go client gives to a figure of the runtime.
func prometheusName(name string, counter bool) string {
	path, unit, _ := strings.Cut(name, ":")
	told := "go" + strings.NewReplacer("/", "_", "-", "_").Replace(path+"_"+unit)
	if counter {
		told += "_total"
	}
	return told
}

func (r *reader) line(name string, value float64) {
	r.buffer = append(r.buffer, name...)
	r.buffer = append(r.buffer, ' ')
	r.number(value)
	r.buffer = append(r.buffer, '\n')
}

func (r *reader) number(value float64) {
	if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
		r.buffer = strconv.AppendInt(r.buffer, int64(value), 10)
		return
	}
	r.buffer = strconv.AppendFloat(r.buffer, value, 'g', -1, 64)
}

// histogram tells every bucket whose bound is at least twice the last one that was told: the
// bounds are the runtime's own, so that no count is a guess. The runtime keeps no sum.
func (r *reader) histogram(name string, of *metrics.Float64Histogram) {
	var count uint64
	next := bucketMin
	for n, own := range of.Counts {
		count += own
		if bound := of.Buckets[n+1]; bound >= next && !math.IsInf(bound, 1) {
			r.bucket(name, bound, count)
			next = 2 * bound
		}
	}
	r.bucket(name, math.Inf(1), count)
	r.line(name+"_count", float64(count))
}

func (r *reader) bucket(name string, bound float64, count uint64) {
	r.buffer = append(r.buffer, name...)
	r.buffer = append(r.buffer, `_bucket{le="`...)
	r.buffer = strconv.AppendFloat(r.buffer, bound, 'g', -1, 64)
	r.buffer = append(r.buffer, `"} `...)
	r.buffer = strconv.AppendUint(r.buffer, count, 10)
	r.buffer = append(r.buffer, '\n')
}
