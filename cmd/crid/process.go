package main

import (
	"io"
	"log/slog"
	"runtime"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// The process's first thread stays with main: others visit pods' network
// namespaces, and /proc/self shows those of the first one.
func init() { runtime.LockOSThread() }

// takeLogs sends what libraries log to our log. Those of the shim protocol say
// nothing that shimclient does not say better.
func takeLogs(log *slog.Logger) {
	klog.SetSlogLogger(log)
	logrus.SetOutput(io.Discard)
}
