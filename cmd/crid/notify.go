package main

import (
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// notifySocket is taken out of the environment at the start, so that shims and
// plugins, which inherit it, cannot speak for the daemon.
var notifySocket string

// takeNotifySocket remembers the manager's socket and hides it from children.
func takeNotifySocket() {
	notifySocket = os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET")
}

// notify tells the service manager something (sd_notify(3)): "READY=1",
// "RELOADING=1", "STOPPING=1", "STATUS=…". Without one listening it does
// nothing.
func notify(state string) error {
	if notifySocket == "" {
		return nil
	}
	// Go turns a leading @ into the abstract socket that systemd means by it.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}

// watchdogInterval is how often "WATCHDOG=1" is due; 0 if nobody asks. Half of
// what the manager grants, as sd_watchdog_enabled(3) advises.
func watchdogInterval() time.Duration {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 {
		return 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}

// monotonicMicros is the clock that a reload is announced with.
func monotonicMicros() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "0"
	}
	return strconv.FormatInt(ts.Nano()/1000, 10)
}
