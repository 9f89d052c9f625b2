package stats

import (
	"context"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/cgroup"
	"github.com/crid-project/crid/server/status"
	"github.com/crid-project/crid/store"
)

// container reads one container. A cgroup that has gone is no error: the
// container is about to be seen as exited.
func (s *Stats) container(ctx context.Context, c *store.Container) (*cri.ContainerStats, error) {
	st := &cri.ContainerStats{Attributes: status.ContainerAttributes(c)}
	st.WritableLayer = s.layer(ctx, c.ID)
	if !isRunning(c) || c.Cgroup == "" {
		return st, ctx.Err()
	}
	g, err := s.d.Source.Cgroup(ctx, c.Cgroup)
	if err != nil {
		return st, ctx.Err()
	}
	st.Cpu = s.cpu(c.ID, g.CPU)
	st.Memory = memoryUsage(g.Memory)
	st.Swap = swapUsage(g.Swap)
	st.Io = ioUsage(g.IO)
	return st, ctx.Err()
}

// pod reads one pod without its containers.
func (s *Stats) pod(ctx context.Context, p *store.Pod) (*cri.PodSandboxStats, error) {
	l := &cri.LinuxPodSandboxStats{}
	st := &cri.PodSandboxStats{Attributes: status.PodAttributes(p), Linux: l}
	if p.Cgroup != "" {
		if g, err := s.d.Source.Cgroup(ctx, p.Cgroup); err == nil {
			l.Cpu = s.cpu(p.ID, g.CPU)
			l.Memory = memoryUsage(g.Memory)
			l.Io = ioUsage(g.IO)
			if g.Pids != nil {
				l.Process = &cri.ProcessUsage{Timestamp: g.Pids.At, ProcessCount: value(g.Pids.Processes)}
			}
		}
	}
	if p.NetNS != "" {
		if ifs, err := s.d.Source.Network(ctx, p.NetNS); err == nil {
			l.Network = networkUsage(ifs)
		}
	}
	return st, ctx.Err()
}

func value(v uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: v} }

// limited leaves out what has no limit: CRI has no number for that.
func limited(v uint64) *cri.UInt64Value {
	if v == cgroup.Unlimited {
		return nil
	}
	return value(v)
}

func (s *Stats) cpu(id string, c *cgroup.CPU) *cri.CpuUsage {
	if c == nil {
		return nil
	}
	u := &cri.CpuUsage{Timestamp: c.At, UsageCoreNanoSeconds: value(c.Usage), Psi: psi(c.Pressure)}
	if rate, ok := s.past.Rate(id, c.At, c.Usage); ok {
		u.UsageNanoCores = value(rate)
	}
	return u
}

func memoryUsage(m *cgroup.Memory) *cri.MemoryUsage {
	if m == nil {
		return nil
	}
	return &cri.MemoryUsage{
		Timestamp:       m.At,
		WorkingSetBytes: value(m.WorkingSet),
		AvailableBytes:  limited(m.Available),
		UsageBytes:      value(m.Usage),
		RssBytes:        value(m.RSS),
		PageFaults:      value(m.PageFaults),
		MajorPageFaults: value(m.MajorPageFaults),
		Psi:             psi(m.Pressure),
	}
}

func swapUsage(w *cgroup.Swap) *cri.SwapUsage {
	if w == nil {
		return nil
	}
	return &cri.SwapUsage{Timestamp: w.At, SwapUsageBytes: value(w.Usage), SwapAvailableBytes: limited(w.Available)}
}

func ioUsage(i *cgroup.IO) *cri.IoUsage {
	if i == nil {
		return nil
	}
	return &cri.IoUsage{Timestamp: i.At, Psi: psi(i.Pressure)}
}

func psi(p *cgroup.Pressure) *cri.PsiStats {
	if p == nil {
		return nil
	}
	return &cri.PsiStats{Full: stall(p.Full), Some: stall(p.Some)}
}

func stall(s cgroup.Stall) *cri.PsiData {
	return &cri.PsiData{Total: s.TotalNanoseconds, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

// defaultInterface is what CNI plugins are told to call the pod's interface.
const defaultInterface = "eth0"

// networkUsage puts the default interface apart: eth0, or the first that is no loopback if the
// network names it otherwise. The others are all there are (api.proto), the loopback among them: a
// kubelet passes them on as they are, and leaves the field out if there is none.
func networkUsage(ifs []Interface) *cri.NetworkUsage {
	first := slices.IndexFunc(ifs, func(i Interface) bool { return i.Name == defaultInterface })
	if first < 0 {
		first = slices.IndexFunc(ifs, func(i Interface) bool { return !i.Loopback })
	}
	if first < 0 {
		return nil
	}
	u := &cri.NetworkUsage{Timestamp: time.Now().UnixNano(), DefaultInterface: interfaceUsage(ifs[first])}
	for n, i := range ifs {
		if n != first {
			u.Interfaces = append(u.Interfaces, interfaceUsage(i))
		}
	}
	return u
}

func interfaceUsage(i Interface) *cri.NetworkInterfaceUsage {
	return &cri.NetworkInterfaceUsage{
		Name:    i.Name,
		RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors),
		TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors),
	}
}

// measure answers what the writable layer takes, measured now or lately.
func (s *Stats) measure(ctx context.Context, id string) (Layer, time.Time, bool) {
	began := time.Now()
	if l, at, ok := s.past.Layer(id, began); ok {
		return l, at, true
	}
	l, err := s.d.Source.Layer(ctx, id)
	if err != nil {
		return Layer{}, time.Time{}, false
	}
	s.past.SetLayer(id, l, began, time.Since(began))
	return l, began, true
}

func (s *Stats) layer(ctx context.Context, id string) *cri.FilesystemUsage {
	l, at, ok := s.measure(ctx, id)
	if !ok {
		return nil
	}
	d, err := s.d.Source.Disk(ctx)
	if err != nil {
		return nil
	}
	return &cri.FilesystemUsage{
		Timestamp:  at.UnixNano(),
		FsId:       &cri.FilesystemIdentifier{Mountpoint: d.Mountpoint},
		UsedBytes:  value(l.Bytes),
		InodesUsed: value(l.Inodes),
	}
}

// AllLayers answers what the writable layers of all containers take, each
// measured now or lately. What cannot be measured in time is left out.
func (s *Stats) AllLayers(ctx context.Context) (bytes, inodes uint64) {
	s.sweep()
	var stale []*store.Container
	now := time.Now()
	for _, c := range status.Containers(s.d.Ledger, nil) {
		l, _, ok := s.past.Layer(c.ID, now)
		if !ok {
			stale = append(stale, c)
			continue
		}
		bytes, inodes = bytes+l.Bytes, inodes+l.Inodes
	}
	if len(stale) == 0 {
		return bytes, inodes
	}
	for _, l := range each(ctx, &s.readers, stale, containerKey, func(ctx context.Context, c *store.Container) (Layer, error) {
		l, _, _ := s.measure(ctx, c.ID)
		return l, ctx.Err()
	}) {
		bytes, inodes = bytes+l.Bytes, inodes+l.Inodes
	}
	return bytes, inodes
}
