package spec

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config is a sealed PodSandboxConfig: the ledger keeps its bytes, the hands
// hand it around, and only CRI's own packages look inside.
type Config struct{ cri *runtime.PodSandboxConfig }

// Seal closes over a copy of cfg, so that nobody changes it afterwards.
func Seal(cfg *runtime.PodSandboxConfig) *Config {
	return &Config{cri: proto.CloneOf(cfg)}
}

// Open reads what Marshal wrote.
func Open(raw []byte) (*Config, error) {
	cfg := &runtime.PodSandboxConfig{}
	if err := proto.Unmarshal(raw, cfg); err != nil {
		return nil, fmt.Errorf("open sealed pod config: %w", err)
	}
	return &Config{cri: cfg}, nil
}

// Marshal returns the bytes for the ledger; the same config gives the same bytes.
func (c *Config) Marshal() ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.CRI())
	if err != nil {
		return nil, fmt.Errorf("seal pod config: %w", err)
	}
	return raw, nil
}

// CRI returns the message, for the server's answers. It must not be changed.
func (c *Config) CRI() *runtime.PodSandboxConfig {
	if c == nil || c.cri == nil {
		return &runtime.PodSandboxConfig{}
	}
	return c.cri
}
