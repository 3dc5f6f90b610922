package heapgate

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
)

func read(t *testing.T) map[string]float64 {
	t.Helper()
	var text bytes.Buffer
	if err := Write(&text); err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, line := range strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n") {
		if strings.HasPrefix(line, "# TYPE ") {
			continue
		}
		name, value, ok := strings.Cut(line, " ")
		number, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			t.Fatalf("not a sample: %q", line)
		}
		if _, twice := found[name]; twice {
			t.Errorf("%s is told twice", name)
		}
		found[name] = number
	}
	return found
}

func TestEveryFigureIsTold(t *testing.T) {
	found := read(t)
	for _, name := range []string{
		"go_gc_gogc_percent",
		"go_gc_gomemlimit_bytes",
		"go_sched_gomaxprocs_threads",
		"go_gc_limiter_last_enabled_gc_cycle",
		"go_gc_heap_goal_bytes",
		"go_gc_heap_live_bytes",
		"go_memory_classes_heap_released_bytes",
		"go_gc_cycles_total_gc_cycles_total",
		"go_cpu_classes_gc_total_cpu_seconds_total",
		"go_cpu_classes_gc_mark_idle_cpu_seconds_total",
		"go_cpu_classes_total_cpu_seconds_total",
		"go_sched_latencies_seconds_count",
	} {
		if _, ok := found[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	_, older := found["go_gc_pauses_seconds_count"]
	_, newer := found["go_sched_pauses_total_gc_seconds_count"]
	if older == newer {
		t.Error("the pauses must be told once, under one of their names")
	}
}

func TestSettingsAreThoseOfTheRuntime(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(37))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1234 << 20))
	found := read(t)
	if found["go_gc_gogc_percent"] != 37 || found["go_gc_gomemlimit_bytes"] != 1234<<20 {
		t.Errorf("%v%%, %v bytes", found["go_gc_gogc_percent"], found["go_gc_gomemlimit_bytes"])
	}
	if found["go_sched_gomaxprocs_threads"] != float64(runtime.GOMAXPROCS(0)) {
		t.Error("GOMAXPROCS is another")
	}
}

func TestReadingNeitherCollectsNorMakesGarbage(t *testing.T) {
	before := read(t)["go_gc_cycles_total_gc_cycles_total"]
	if n := testing.AllocsPerRun(50, func() { _ = Write(io.Discard) }); n > 5 {
		t.Errorf("%v allocations for one reading", n)
	}
	if after := read(t)["go_gc_cycles_total_gc_cycles_total"]; after != before {
		t.Errorf("%v cycles became %v", before, after)
	}
}

func TestHistogramsAreCumulativeAndWhole(t *testing.T) {
	for n := 0; n < 3; n++ {
		runtime.GC()
	}
	var text bytes.Buffer
	if err := Write(&text); err != nil {
		t.Fatal(err)
	}
	last := -1.0
	for _, found := range regexp.MustCompile(`go_sched_latencies_seconds_bucket\{.*\} (\d+)`).
		FindAllStringSubmatch(text.String(), -1) {
		count, _ := strconv.ParseFloat(found[1], 64)
		if count < last {
			t.Errorf("%v after %v", count, last)
		}
		last = count
	}
	if count := read(t)["go_sched_latencies_seconds_count"]; last < 0 || count < last {
		t.Errorf("%v events in all, %v in the last bucket", count, last)
	}
}

func TestBoundsAreTheRuntimesOwn(t *testing.T) {
	of := &metrics.Float64Histogram{
		Counts:  []uint64{1, 2, 4, 8, 16},
		Buckets: []float64{0, 1e-6, 1.5e-6, 2e-6, 3e-6, 5e-6},
	}
	var r reader
	r.histogram("x", of)
	want := "x_bucket{le=\"1e-06\"} 1\nx_bucket{le=\"2e-06\"} 7\nx_bucket{le=\"5e-06\"} 31\n" +
		"x_bucket{le=\"+Inf\"} 31\nx_count 31\n"
	if got := string(r.buffer); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestItAnswersOnTheDefaultMux(t *testing.T) {
	server := httptest.NewServer(http.DefaultServeMux)
	defer server.Close()
	if text := get(t, server.URL+Path); !strings.Contains(text, "go_gc_heap_goal_bytes ") {
		t.Error(text)
	}
}

func TestItListensWhereItIsTold(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	listen(address) // taken: only told
	_ = probe.Close()
	listen(address)
	if text := get(t, "http://"+address); !strings.Contains(text, "go_gc_heap_goal_bytes ") {
		t.Error(text)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func BenchmarkReading(b *testing.B) {
	for n := 0; n < b.N; n++ {
		_ = Write(io.Discard)
	}
}
