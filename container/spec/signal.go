package spec

import (
	"strings"

	"github.com/crid-project/crid/container/plan/signal"
	"github.com/crid-project/crid/container/spec/field"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopSignal returns the name of CRI's enum as package signal reads it
// ("SIGRTMIN+3"); "" for SIGNAL_RUNTIME_DEFAULT. A number outside the enum is
// refused.
func StopSignal(s runtime.Signal) (string, error) {
	if s == runtime.Signal_SIGNAL_RUNTIME_DEFAULT {
		return "", nil
	}
	name, ok := runtime.Signal_name[int32(s)]
	if !ok {
		return "", field.Invalid("config.stop_signal", "unknown signal %d", s)
	}
	name = strings.TrimPrefix(name, "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	return strings.Replace(name, "MINUS", "-", 1), nil
}

// SignalEnum returns CRI's enum for a signal's name or number as an image or
// configuration gives it, SIGNAL_RUNTIME_DEFAULT for one that CRI lacks.
func SignalEnum(s string) runtime.Signal {
	if v, ok := criSignal(s); ok {
		return v
	}
	sig, err := signal.Parse(s)
	if err != nil {
		return runtime.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	v, _ := criSignal(signal.Name(sig))
	return v
}

func criSignal(name string) (runtime.Signal, bool) {
	name = strings.Replace(name, "+", "PLUS", 1)
	name = strings.Replace(name, "-", "MINUS", 1)
	v, ok := runtime.Signal_value["SIGNAL_"+name]
	return runtime.Signal(v), ok
}
