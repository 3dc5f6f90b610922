// Launcher starts a service inside its control groups and stays its parent until it is gone.
//
//	launcher SPECFILE STATUS_FD
//
// A tiny program of its own, because Linux hands the peak memory of a forking parent on to the
// child's ru_maxrss, and because memory is charged to the group in which it is first touched. It
// starts itself again as "stage two" (stage.go), which enters the groups, gives up privileges and
// becomes the service.
//
// What happens is told on STATUS_FD, one JSON object a line: started, failed, exited, done. Words
// on standard input: "term" asks the service to end, "kill" ends the whole tree. The end of standard
// input does too, so nothing survives the death of whoever started the launcher.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	prSetPdeathsig      = 1
	prSetChildSubreaper = 36

	// grace is how long what the service started may take to end by itself.
	grace = 100 * time.Millisecond
)

type specification struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	UID  *int     `json:"uid"`
	GID  *int     `json:"gid"`
	CPUs []int    `json:"cpus"`
	Join []string `json:"join"`
}

type status struct{ out *json.Encoder }

func (s status) tell(event string, facts map[string]any) {
	facts["event"] = event
	_ = s.out.Encode(facts) // nobody may be listening any more
}

func main() {
	// The parent-death signal is tied to the thread that forks: keep it.
	runtime.LockOSThread()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: launcher SPECFILE STATUS_FD")
		os.Exit(2)
	}
	if os.Args[2] == stageTwo {
		becomeService(os.Args[1])
	}
	number, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher: STATUS_FD must be a number")
		os.Exit(2)
	}
	syscall.CloseOnExec(number)
	out := status{json.NewEncoder(os.NewFile(uintptr(number), "status"))}
	if err := supervise(os.Args[1], out); err != nil {
		out.tell("failed", map[string]any{"text": err.Error()})
		out.tell("done", map[string]any{"leaked": 0})
		os.Exit(1)
	}
}

func supervise(specFile string, out status) error {
	if err := prctl(prSetChildSubreaper, 1); err != nil {
		return fmt.Errorf("becoming the reaper of orphans: %w", err)
	}
	pid, err := startStageTwo(specFile)
	if err != nil {
		return err
	}
	out.tell("started", map[string]any{"pid": pid})
	go obey(pid)
	usage, state := await(pid)
	out.tell("exited", exitFacts(state, usage))
	out.tell("done", map[string]any{"leaked": endLeftovers()})
	return nil
}

// obey carries out the words on standard input; at its end everything is killed.
func obey(pid int) {
	words := bufio.NewReader(os.Stdin)
	for {
		word, err := words.ReadString('\n')
		switch {
		case word == "term\n":
			_ = syscall.Kill(pid, syscall.SIGTERM)
		case word == "kill\n":
			killTree()
		case err != nil:
			if err != io.EOF {
				fmt.Fprintln(os.Stderr, "launcher: standard input:", err)
			}
			killTree()
			return
		}
	}
}

// await reaps every child that ends, orphans too, until the service itself has.
func await(pid int) (syscall.Rusage, syscall.WaitStatus) {
	for {
		var state syscall.WaitStatus
		var usage syscall.Rusage
		ended, err := syscall.Wait4(-1, &state, 0, &usage)
		if ended == pid {
			return usage, state
		}
		if err != nil && err != syscall.EINTR {
			return usage, state
		}
	}
}

func exitFacts(state syscall.WaitStatus, usage syscall.Rusage) map[string]any {
	facts := map[string]any{
		"code":          nil,
		"signal":        nil,
		"max_rss_bytes": usage.Maxrss * 1024,
		"user_ns":       usage.Utime.Nano(),
		"system_ns":     usage.Stime.Nano(),
	}
	if state.Exited() {
		facts["code"] = state.ExitStatus()
	}
	if state.Signaled() {
		facts["signal"] = int(state.Signal())
	}
	return facts
}

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, option, value, 0); errno != 0 {
		return errno
	}
	return nil
}
