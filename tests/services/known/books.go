package main

import (
	"bufio"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// moment is what the service knows of itself at an instant, since its start.
type moment struct {
	TimeNs     int64   `json:"time_ns"`
	Cycles     uint64  `json:"cycles"`
	GCSeconds  float64 `json:"gc_seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	RSSKiB     int     `json:"rss_kib"`
	AnonKiB    int     `json:"anon_kib"`
	FileKiB    int     `json:"file_kib"`
}

// account is printed as one line of JSON when the service ends.
type account struct {
	Requests     map[string]int `json:"requests"`
	Moments      []moment       `json:"moments"`
	NumGC        uint32         `json:"num_gc"`
	NumForcedGC  uint32         `json:"num_forced_gc"`
	GOGC         int64          `json:"gogc"`
	GOMEMLIMIT   int64          `json:"gomemlimit"`
	GOMAXPROCS   int            `json:"gomaxprocs"`
	UID          int            `json:"uid"`
	CoresAllowed string         `json:"cores_allowed"`
	Cgroups      string         `json:"cgroups"`
	EnvironBytes int            `json:"environ_bytes"`

	mutex  sync.Mutex
	ledger *os.File
}

var books = &account{Requests: map[string]int{}}

func (a *account) count(path string) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.Requests[path]++
	if a.ledger != nil {
		_, _ = a.ledger.Write([]byte{'.'})
	}
}

// openLedger begins a count that outlives a kill; the file's name is when it began.
func (a *account) openLedger(folder string) {
	if folder == "" {
		return
	}
	name := filepath.Join(folder, strconv.FormatInt(time.Now().UnixNano(), 10))
	file, err := os.Create(name)
	if err != nil {
		log.Fatal(err)
	}
	a.ledger = file
}

// watch notes a moment ten times a second.
func watch() {
	for {
		books.note()
		time.Sleep(100 * time.Millisecond)
	}
}

func (a *account) note() {
	values := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
	}
	metrics.Read(values)
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	status := statusOf("VmRSS", "RssAnon", "RssFile")
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.Moments = append(a.Moments, moment{
		TimeNs:     time.Now().UnixNano(),
		Cycles:     values[0].Value.Uint64(),
		GCSeconds:  values[1].Value.Float64() - values[2].Value.Float64(),
		CPUSeconds: float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9,
		RSSKiB:     number(status[0]),
		AnonKiB:    number(status[1]),
		FileKiB:    number(status[2]),
	})
}

// close completes the account with what does not change.
func (a *account) close() *account {
	a.note()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	settings := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(settings)
	environment, _ := os.ReadFile("/proc/self/environ")
	groups, _ := os.ReadFile("/proc/self/cgroup")
	a.NumGC, a.NumForcedGC = stats.NumGC, stats.NumForcedGC
	a.GOGC = int64(settings[0].Value.Uint64())
	a.GOMEMLIMIT = int64(settings[1].Value.Uint64())
	a.GOMAXPROCS = runtime.GOMAXPROCS(0)
	a.UID = os.Getuid()
	a.CoresAllowed = statusOf("Cpus_allowed_list")[0]
	a.Cgroups = string(groups)
	a.EnvironBytes = len(environment)
	return a
}

// statusOf reads lines of /proc/self/status.
func statusOf(names ...string) []string {
	found := make([]string, len(names))
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return found
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		for n, wanted := range names {
			if name == wanted {
				found[n] = strings.TrimSpace(value)
			}
		}
	}
	return found
}

func number(text string) int {
	value, _ := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	return value
}
