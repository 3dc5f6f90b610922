package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"unsafe"
)

const (
	stageTwo = "stage-two"

	// errorFD is where stage two tells why it could not become the service. It closes on exec:
	// an end without words means that the service runs.
	errorFD = 3
)

// startStageTwo returns when the service runs, or with the reason why it does not.
func startStageTwo(specFile string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("finding the launcher itself: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	pid, err := syscall.ForkExec(self, []string{self, specFile, stageTwo}, &syscall.ProcAttr{
		Env:   []string{},
		Files: []uintptr{null.Fd(), 1, 2, writer.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	writer.Close()
	if err != nil {
		return 0, fmt.Errorf("starting stage two: %w", err)
	}
	words, err := io.ReadAll(reader)
	if err != nil || len(words) > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return 0, fmt.Errorf("%s", words)
	}
	return pid, nil
}

// becomeService never returns: this process is the service afterwards, or it ends.
func becomeService(specFile string) {
	syscall.CloseOnExec(errorFD)
	err := prepareAndExec(specFile)
	_, _ = os.NewFile(errorFD, "errors").WriteString(err.Error())
	os.Exit(1)
}

func prepareAndExec(specFile string) error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var spec specification
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	if len(spec.Argv) == 0 {
		return fmt.Errorf("%s: argv is empty", specFile)
	}
	for _, path := range spec.Join {
		if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("entering the control group: %w", err)
		}
	}
	if err := pin(spec.CPUs); err != nil {
		return fmt.Errorf("pinning to cores %v: %w", spec.CPUs, err)
	}
	if err := os.Chdir(spec.Dir); err != nil {
		return err
	}
	if err := dropPrivileges(spec.UID, spec.GID); err != nil {
		return fmt.Errorf("becoming user %d: %w", *spec.UID, err)
	}
	// After the change of user, which clears it.
	if err := prctl(prSetPdeathsig, uintptr(syscall.SIGKILL)); err != nil {
		return err
	}
	// The launcher may have died before that: then nobody would end the service.
	if os.Getppid() == 1 {
		return errors.New("the launcher is gone")
	}
	// What is ignored stays ignored through exec, and whoever started us may ignore signals (a
	// shell's background job does). What has a handler becomes the default again.
	signal.Notify(make(chan os.Signal, 1))
	if err := syscall.Exec(spec.Argv[0], spec.Argv, spec.Env); err != nil {
		return fmt.Errorf("%s: %w", spec.Argv[0], err)
	}
	return nil
}

func dropPrivileges(uid, gid *int) error {
	if uid == nil || gid == nil {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(*gid); err != nil {
		return err
	}
	return syscall.Setuid(*uid)
}

// pin restricts this thread, the one that will exec, to the given cores; none means all.
func pin(cores []int) error {
	if len(cores) == 0 {
		return nil
	}
	var mask [128]uint64 // 8,192 cores
	for _, core := range cores {
		mask[core/64] |= 1 << (core % 64)
	}
	_, _, errno := syscall.RawSyscall(
		syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return errno
	}
	return nil
}
