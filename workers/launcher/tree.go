package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// endLeftovers counts what the service left running, ends and reaps it. As the reaper of orphans
// we are an ancestor of all of it, whatever sessions it made.
func endLeftovers() int {
	deadline := time.Now().Add(grace)
	for len(descendants()) > 0 && time.Now().Before(deadline) {
		reapEnded()
		time.Sleep(5 * time.Millisecond)
	}
	leaked := len(descendants())
	for len(descendants()) > 0 {
		killTree()
		reapEnded()
		time.Sleep(time.Millisecond)
	}
	reapEnded() // those of the last round
	return leaked
}

func reapEnded() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

func killTree() {
	for _, pid := range descendants() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants lists the living processes below this one, from every process's parent in /proc.
func descendants() []int {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, alive := parentOf(pid); alive {
			children[parent] = append(children[parent], pid)
		}
	}
	found := []int{}
	queue := []int{os.Getpid()}
	for len(queue) > 0 {
		own := children[queue[0]]
		queue = append(queue[1:], own...)
		found = append(found, own...)
	}
	return found
}

// parentOf reads the state, the parent and the number of threads: fields 3, 4 and 20 of
// /proc/PID/stat, counted with the name that ends at the last parenthesis. A process whose main
// thread has ended while others run is shown as a zombie, yet it lives.
func parentOf(pid int) (parent int, alive bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	parent, err = strconv.Atoi(string(fields[1]))
	ended := fields[0][0] == 'X' || fields[0][0] == 'Z' && !severalThreads(fields[17])
	return parent, err == nil && !ended
}

func severalThreads(count []byte) bool {
	number, err := strconv.Atoi(string(count))
	return err == nil && number > 1
}
