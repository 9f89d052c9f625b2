package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/server/containers"
	"github.com/crid-project/crid/server/events"
	"github.com/crid-project/crid/server/images"
	"github.com/crid-project/crid/server/node"
	"github.com/crid-project/crid/server/pods"
	"github.com/crid-project/crid/server/rpc"
	"github.com/crid-project/crid/server/stats"
)

const (
	// MaxMessage is the largest message either way, as kubelets have it.
	MaxMessage = 16 << 20
	// maxConnections bounds connections; a node needs a handful.
	maxConnections = 1024
	// handshake is how long a client may take to begin to speak HTTP/2.
	handshake = 10 * time.Second
	// stopGrace is how long calls under way may take to end when the server
	// stops. Their work goes on without them.
	stopGrace = 3 * time.Second
)

// Specs seals configurations for pods and containers; *seal.Specs does.
type Specs interface {
	pods.Specs
	containers.Specs
}

// Streams answers streaming URLs; *streaming.Server does.
type Streams interface {
	pods.Streams
	containers.Streams
}

// Config is what a server is made of.
type Config struct {
	Ledger     events.Ledger
	Pods       pods.Hands
	Containers containers.Hands
	Images     images.Store
	Specs      Specs
	Streams    Streams
	// Source is where statistics are read.
	Source stats.Source
	// Node is what is told of the runtime itself.
	Node node.Deps
	// Bundle is the bundle directory of a container.
	Bundle func(id string) string
	// MaxExecSync is how many bytes of each output ExecSync keeps, StatsTimeout
	// how long one container's statistics may take; 0 means the default.
	MaxExecSync  int
	StatsTimeout time.Duration
	// ImageDir, LayerDir are where images and writable layers lie.
	ImageDir, LayerDir string
	// Observer is told of calls, Panics of panics in them; may be nil.
	Observer rpc.Observer
	Panics   func()
	Log      *slog.Logger
}

// runtimeService is CRI's RuntimeService. It lists every call: one that CRI
// adds does not compile until somebody has decided about it.
type runtimeService struct {
	cri.UnsafeRuntimeServiceServer
	*node.Node
	*pods.Pods
	*containers.Containers
	*stats.Stats
	*events.Events
	checkpoints
}

// checkpoints are the calls that crid does not offer.
type checkpoints struct{}

func unoffered(rpc string) error {
	return status.Error(codes.Unimplemented, rpc+" is not offered: crid makes no checkpoints")
}

// CheckpointContainer answers Unimplemented.
func (checkpoints) CheckpointContainer(context.Context, *cri.CheckpointContainerRequest) (*cri.CheckpointContainerResponse, error) {
	return nil, unoffered("CheckpointContainer")
}

// CheckpointPod answers Unimplemented.
func (checkpoints) CheckpointPod(context.Context, *cri.CheckpointPodRequest) (*cri.CheckpointPodResponse, error) {
	return nil, unoffered("CheckpointPod")
}

// RestorePod answers Unimplemented.
func (checkpoints) RestorePod(context.Context, *cri.RestorePodRequest) (*cri.RestorePodResponse, error) {
	return nil, unoffered("RestorePod")
}

var (
	_ cri.RuntimeServiceServer = (*runtimeService)(nil)
	_ cri.ImageServiceServer   = (*images.Images)(nil)
)

// Server serves CRI on one socket.
type Server struct {
	grpc   *grpc.Server
	events *events.Events
	stats  *stats.Stats
	log    *slog.Logger
}

// New makes a server that has not begun to serve.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Node.Log == nil {
		cfg.Node.Log = cfg.Log
	}
	handler := handlerOf(cfg.Node.Handlers)
	names := func(id string) (tags, digests []string) {
		i, err := cfg.Images.Resolve(id)
		if err != nil {
			return nil, nil
		}
		return i.Tags, i.Digests
	}
	st := stats.New(stats.Deps{Ledger: cfg.Ledger, Source: cfg.Source, Names: names, Deadline: cfg.StatsTimeout})
	ev := events.New(events.Deps{Ledger: cfg.Ledger, Names: names})
	rt := &runtimeService{
		Node: node.New(cfg.Node),
		Pods: pods.New(pods.Deps{
			Ledger: cfg.Ledger, Hands: cfg.Pods, Specs: cfg.Specs, Names: names, Handler: handler, Streams: cfg.Streams, Announce: ev,
		}),
		Containers: containers.New(containers.Deps{
			Ledger: cfg.Ledger, Hands: cfg.Containers, Specs: cfg.Specs, Streams: cfg.Streams, Names: names, Bundle: cfg.Bundle, Removed: st.Forget,
			MaxExecSync: cfg.MaxExecSync,
		}),
		Stats:  st,
		Events: ev,
	}
	im := images.New(images.Deps{Store: cfg.Images, Layers: st, Handler: handler, ImageDir: cfg.ImageDir, LayerDir: cfg.LayerDir})
	chain := &rpc.Chain{Log: cfg.Log, Observer: cfg.Observer, Panics: cfg.Panics}
	s := &Server{grpc: newGRPC(chain), events: ev, stats: st, log: cfg.Log}
	cri.RegisterRuntimeServiceServer(s.grpc, rt)
	cri.RegisterImageServiceServer(s.grpc, im)
	return s
}

func newGRPC(chain *rpc.Chain) *grpc.Server {
	return grpc.NewServer(
		grpc.UnaryInterceptor(chain.Unary),
		grpc.StreamInterceptor(chain.Stream),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.ConnectionTimeout(handshake),
		// A client that is gone without a word (a stopped machine cannot be,
		// a stopped process can) gives its streams back in the end.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

// handlerOf finds runtime handlers by name; "" is the default.
func handlerOf(list func() []node.Handler) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, h := range list() {
			if h.Name == name || name == "" && h.Default {
				return h.Name, true
			}
		}
		return "", false
	}
}

// Serve answers calls until ctx ends, gives those under way a moment, and
// returns nil. Workloads are left alone. To be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.events.Close()
		hard := time.AfterFunc(stopGrace, s.grpc.Stop)
		defer hard.Stop()
		s.grpc.GracefulStop()
	})
	err := s.grpc.Serve(netutil.LimitListener(l, maxConnections))
	if !stop() {
		<-ended
	}
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil //nolint:nilerr // it was asked to stop
	}
	s.events.Close()
	s.grpc.Stop()
	return fmt.Errorf("serve CRI: %w", err)
}

// EventStreams answers how many consumers of container events there are.
func (s *Server) EventStreams() int { return s.events.Streams() }

// EventsDropped answers how many consumers were cut off for being slow.
func (s *Server) EventsDropped() uint64 { return uint64(s.events.Dropped()) }

// StuckReads answers how many reads of statistics were given up and still hang.
func (s *Server) StuckReads() int { return s.stats.Stuck() }
