// Misbehave is an HTTP service that does wrong on demand, to try what watches it.
package main

import (
	"flag"
	"fmt"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	addr         = flag.String("addr", "127.0.0.1:0", "where to listen")
	exitAtOnce   = flag.Int("exit-at-once", -1, "exit with this code before listening")
	neverReady   = flag.Bool("never-ready", false, "answer /healthz with 503 for ever")
	dieAfter     = flag.Duration("die-after", 0, "exit with code 7 after this time")
	panicAfter   = flag.Duration("panic-after", 0, "panic after this time")
	leakChildren = flag.Int("leak-children", 0, "start this many processes that outlive us")
	ignoreTerm   = flag.Bool("ignore-term", false, "ignore SIGTERM")
	eat          = flag.String("eat", "0", "allocate and touch this much at once (MiB with suffix MiB)")
	eatPerSecond = flag.String("eat-per-second", "0", "allocate and touch this much every second")
	stallAt      = flag.Duration("stall-at", 0, "hold all answers back, this long after the start")
	stall        = flag.Duration("stall", 0, "for how long to hold them back")
	delay        = flag.Duration("delay", 0, "time that each answer takes")
	errorShare   = flag.Float64("errors", 0, "share of answers with status 500")
	sleeper      = flag.Duration("sleep", 0, "only sleep this long: a leaked child")
)

var kept [][]byte

func main() {
	flag.Parse()
	if *sleeper > 0 {
		time.Sleep(*sleeper)
		return
	}
	if *exitAtOnce >= 0 {
		lastWords(*exitAtOnce, "no configuration file")
	}
	if *ignoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	for n := 0; n < *leakChildren; n++ {
		leak()
	}
	touch(bytesOf(*eat))
	go eatOn(bytesOf(*eatPerSecond))
	go endAfter(*dieAfter, func() { lastWords(7, "the database went away") })
	go endAfter(*panicAfter, func() { panic("an index that is not there") })
	serve()
}

func lastWords(code int, why string) {
	fmt.Fprintln(os.Stderr, "last words:", why)
	os.Exit(code)
}

func endAfter(wait time.Duration, end func()) {
	if wait > 0 {
		time.Sleep(wait)
		end()
	}
}

func leak() {
	child := exec.Command(os.Args[0], "-sleep", "60s")
	child.SysProcAttr = detached()
	if err := child.Start(); err != nil {
		lastWords(8, err.Error())
	}
}

func bytesOf(text string) int {
	unit := 1
	if strings.HasSuffix(text, "MiB") {
		text, unit = strings.TrimSuffix(text, "MiB"), 1<<20
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		lastWords(2, err.Error())
	}
	return number * unit
}

func touch(size int) {
	block := make([]byte, size)
	for n := 0; n < len(block); n += 4096 {
		block[n] = 1
	}
	kept = append(kept, block)
}

func eatOn(perSecond int) {
	for perSecond > 0 {
		touch(perSecond / 10)
		time.Sleep(100 * time.Millisecond)
	}
}

func serve() {
	started := time.Now()
	var answered atomic.Int64
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if *neverReady {
			http.Error(w, "still loading", http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		since := time.Since(started)
		if *stall > 0 && since > *stallAt && since < *stallAt+*stall {
			time.Sleep(*stallAt + *stall - since)
		}
		time.Sleep(*delay)
		if n := answered.Add(1); float64(n%100) < *errorShare*100 {
			http.Error(w, "on purpose", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "hello")
	})
	http.HandleFunc("/hang/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	http.HandleFunc("/endless/", endless)
	if err := http.ListenAndServe(*addr, nil); err != nil {
		lastWords(1, err.Error())
	}
}

// endless answers as long as anybody listens.
func endless(w http.ResponseWriter, _ *http.Request) {
	for {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}
