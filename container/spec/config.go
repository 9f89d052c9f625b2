package spec

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config is a sealed ContainerConfig: the ledger keeps its bytes, the hands
// hand it around, and only CRI's own packages look inside.
type Config struct{ cri *runtime.ContainerConfig }

// Seal closes over a copy of cfg, so that nobody changes it afterwards.
func Seal(cfg *runtime.ContainerConfig) *Config {
	return &Config{cri: proto.CloneOf(cfg)}
}

// Open reads what Marshal wrote.
func Open(raw []byte) (*Config, error) {
	cfg := &runtime.ContainerConfig{}
	if err := proto.Unmarshal(raw, cfg); err != nil {
		return nil, fmt.Errorf("open sealed container config: %w", err)
	}
	return &Config{cri: cfg}, nil
}

// Marshal returns the bytes for the ledger; the same config gives the same bytes.
func (c *Config) Marshal() ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.CRI())
	if err != nil {
		return nil, fmt.Errorf("seal container config: %w", err)
	}
	return raw, nil
}

// CRI returns the message, for the server's answers. It must not be changed.
func (c *Config) CRI() *runtime.ContainerConfig {
	if c == nil || c.cri == nil {
		return &runtime.ContainerConfig{}
	}
	return c.cri
}
