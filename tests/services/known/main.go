// Known is an HTTP service whose behaviour is known beforehand, and which keeps its own books: what
// Heapgate says of it can be checked against the truth. Times of what happens once are counted from
// its first request.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const mib = 1 << 20

var (
	addr         = flag.String("addr", "127.0.0.1:0", "where to listen")
	holdMiB      = flag.Int("hold", 0, "hold so many MiB, touched")
	childMiB     = flag.Int("child", 0, "start a process that holds so many MiB")
	spikeMiB     = flag.Int("spike", 0, "hold so many MiB more for a moment")
	spikeAt      = flag.Duration("spike-at", 0, "when to")
	spikeFor     = flag.Duration("spike-for", 200*time.Millisecond, "for how long")
	stallAt      = flag.Duration("stall-at", 0, "when to stop answering")
	stallFor     = flag.Duration("stall", 0, "for how long not to answer")
	collections  = flag.Int("collect", 0, "force so many garbage collections")
	collectAt    = flag.Duration("collect-at", 0, "when to begin with them")
	collectEvery = flag.Duration("collect-every", 20*time.Millisecond, "time between them")
	burn         = flag.Duration("burn", 0, "use the processor so long for each /burn, one at a time")
	logEach      = flag.Bool("log-each", false, "log every request on standard error")
	ledgers      = flag.String("ledger", "", "folder for a file that grows by a byte each request")
	sleeper      = flag.Bool("sleeper", false, "only hold memory: a child")
)

// gate is locked for writing while nothing is answered.
var gate sync.RWMutex

func main() {
	flag.Parse()
	held := touched(*holdMiB)
	if *sleeper {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has ended
		return
	}
	if *childMiB > 0 {
		child := exec.Command(os.Args[0], "-sleeper", "-hold", strconv.Itoa(*childMiB))
		if _, err := child.StdinPipe(); err != nil {
			log.Fatal(err)
		}
		if err := child.Start(); err != nil {
			log.Fatal(err)
		}
	}
	books.openLedger(*ledgers)
	go watch()
	go endOnTerm()
	routes()
	err := http.ListenAndServe(*addr, nil)
	runtime.KeepAlive(held)
	log.Fatal(err)
}

// touched is memory outside the Go heap: it is there at once, and gone at once when unmapped.
func touched(size int) []byte {
	if size == 0 {
		return nil
	}
	block, err := syscall.Mmap(-1, 0, size*mib, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	if err != nil {
		log.Fatal(err)
	}
	return block
}

var first sync.Once

func once() {
	if *spikeMiB > 0 {
		time.AfterFunc(*spikeAt, func() {
			block := touched(*spikeMiB)
			time.Sleep(*spikeFor)
			_ = syscall.Munmap(block)
		})
	}
	if *stallFor > 0 {
		time.AfterFunc(*stallAt, func() {
			gate.Lock()
			time.Sleep(*stallFor)
			gate.Unlock()
		})
	}
	if *collections > 0 {
		time.AfterFunc(*collectAt, func() {
			for n := 0; n < *collections; n++ {
				runtime.GC()
				time.Sleep(*collectEvery)
			}
		})
	}
}

func routes() {
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	answer("/sleep", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		began := time.Now()
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprint(w, time.Since(began).Nanoseconds())
	})
	answer("/status", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Query().Get("code"))
		w.WriteHeader(code)
	})
	answer("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/sleep?ms=0", http.StatusFound)
	})
	answer("/drop", func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			connection.Close()
		}
	})
	answer("/garbage", func(w http.ResponseWriter, r *http.Request) {
		kib, _ := strconv.Atoi(r.URL.Query().Get("kib"))
		for n := 0; n < kib; n++ {
			garbage = make([]byte, 1024)
		}
		fmt.Fprint(w, "littered")
	})
	var turn sync.Mutex
	answer("/burn", func(w http.ResponseWriter, _ *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		for until := time.Now().Add(*burn); time.Now().Before(until); {
		}
		fmt.Fprint(w, "burnt")
	})
}

var garbage []byte

// answer counts a request when it comes and again when it is answered.
func answer(path string, handle http.HandlerFunc) {
	http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		first.Do(once)
		books.count(path)
		if *logEach {
			log.Printf("%s %s from %s with %s", r.Method, r.URL, r.RemoteAddr, r.UserAgent())
		}
		gate.RLock()
		gate.RUnlock()
		handle(w, r)
	})
}

func endOnTerm() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	_ = json.NewEncoder(os.Stdout).Encode(books.close())
	os.Exit(0)
}
