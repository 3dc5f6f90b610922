package main

import "syscall"

// detached gives a child a process group of its own: no Ctrl-Break for the service reaches it.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
