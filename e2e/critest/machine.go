package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// portsFree checks the host ports that the suite uses without asking.
func portsFree(ctx context.Context) error {
	for port := 12000; port <= 12003; port++ {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return fmt.Errorf("the suite needs host ports 12000 to 12003 (does another run of it go on?): %w", err)
		}
		l.Close()
	}
	return nil
}

// segments lists the ids of the host's System V shared memory segments. Each HostIPC spec of the suite leaves one.
func segments() []int {
	data, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return nil
	}
	var ids []int
	for _, line := range strings.Split(string(data), "\n")[1:] {
		if fields := strings.Fields(line); len(fields) > 1 {
			if id, err := strconv.Atoi(fields[1]); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// removeSegments removes the segments that were not there before the suite ran.
func removeSegments(before []int) {
	for _, id := range segments() {
		if !slices.Contains(before, id) {
			_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}
