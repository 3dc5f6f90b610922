// Collecting gives the Go runtime every reason to report: a live heap, garbage made by many
// goroutines at once (so that they assist), a heap that shrinks under a memory limit (so that the
// scavenger works), forced collections, memory given back at once, and a search for leaked
// goroutines where the runtime has it.
//
// tests/workers/gctrace/ holds what it wrote under GODEBUG=gctrace=1,scavtrace=1 when it was built
// with 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6 (GOEXPERIMENT=goroutineleakprofile) and
// 1.27.3.
package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"
)

var keep [][]byte

type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}

func main() {
	root := tree(19)
	var all sync.WaitGroup
	for worker := 0; worker < 4; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; n < 40; n++ {
				tree(13)
			}
		}()
	}
	all.Wait()
	for n := 0; n < 96; n++ {
		block := make([]byte, 1<<20)
		for at := 0; at < len(block); at += 4096 {
			block[at] = 1
		}
		keep = append(keep, block)
	}
	keep = nil
	debug.SetMemoryLimit(64 << 20)
	for n := 0; n < 20; n++ {
		keep = append(keep, make([]byte, 1<<20))
	}
	runtime.GC()
	time.Sleep(1500 * time.Millisecond)
	keep = nil
	runtime.GC()
	time.Sleep(1500 * time.Millisecond)
	debug.FreeOSMemory()
	runtime.KeepAlive(root)
	if leaks := pprof.Lookup("goroutineleak"); leaks != nil {
		_ = leaks.WriteTo(io.Discard, 0)
	}
	tellEnds()
}

// tellEnds prints each cycle's number and when its last stop ended, in nanoseconds since the epoch.
func tellEnds() {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	for n, end := range stats.PauseEnd {
		fmt.Println(stats.NumGC-int64(n), end.UnixNano())
	}
}
