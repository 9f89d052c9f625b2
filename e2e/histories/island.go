package histories

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// island is one pod's name with two containers' names in it, at which several clients pull at once.
type island struct {
	*recorder
	home    *harness.Home
	cri     *harness.CRI
	name    string
	config  *runtimeapi.PodSandboxConfig
	gentle  bool // the pod itself is left alone, so that its containers live longer
	mu      sync.Mutex
	pod     string            // id, the newest known
	ids     map[string]string // of containers, by object
	objects map[string]string // pod of each container's object
	old     []string          // ids of before
}

func newIsland(r *recorder, h *harness.Home, cri *harness.CRI, name string, gentle bool) *island {
	return &island{recorder: r, home: h, cri: cri, name: name, config: h.Pod(name), gentle: gentle, ids: map[string]string{}, objects: map[string]string{}}
}

// containers' names, and what they do.
var workloads = map[string][]string{"long": nil, "short": {"sh", "-c", "sleep 0.7; exit 7"}}

// work is one client's share.
func (i *island) work(ctx context.Context, client int, rng *rand.Rand) {
	for ctx.Err() == nil {
		i.one(ctx, client, rng)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.IntN(120)) * time.Millisecond):
		}
	}
}

// one makes one call, chosen by dice. Every sixth caller or so goes away early.
func (i *island) one(ctx context.Context, client int, rng *rand.Rand) {
	limit := 60 * time.Second
	if rng.IntN(6) == 0 {
		limit = time.Duration(1+rng.IntN(150)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if i.podID() == "" {
		i.runPod(ctx, client)
		return
	}
	name := "long"
	if rng.IntN(3) == 0 {
		name = "short"
	}
	dice := rng.IntN(100)
	if i.gentle && dice < 8 {
		dice += 8
	}
	switch {
	case dice < 2:
		i.stopPod(ctx, client)
	case dice < 8:
		i.removePod(ctx, client)
	case dice < 12:
		i.runPod(ctx, client)
	case dice < 32:
		i.create(ctx, client, name)
	case dice < 52:
		i.start(ctx, client, i.id(rng, name))
	case dice < 62:
		i.stop(ctx, client, i.id(rng, name), int64(rng.IntN(2)))
	case dice < 72:
		i.remove(ctx, client, i.id(rng, name))
	case dice < 86:
		i.status(ctx, client, i.id(rng, name))
	default:
		i.list(ctx, client)
	}
}

func (i *island) podID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pod
}

// target is a container that a call names.
type target struct{ object, id string }

// id is that of a container of now; now and then an old one.
func (i *island) id(rng *rand.Rand, name string) target {
	i.mu.Lock()
	defer i.mu.Unlock()
	object := i.pod + "/" + name
	if len(i.old) > 0 && rng.IntN(12) == 0 {
		return target{object, i.old[rng.IntN(len(i.old))]}
	}
	return target{object, i.ids[object]}
}

// learn keeps what an object's id is.
func (i *island) learn(object, id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if was := i.ids[object]; was != "" && was != id {
		i.old = append(i.old, was)
	}
	i.ids[object] = id
}

// judge puts an error into one of the classes of outcomes.
func judge(err error, id string) output {
	switch status.Code(err) {
	case codes.OK:
		return output{outcome: OK, id: id, code: noCode}
	case codes.NotFound:
		return output{outcome: Missing}
	case codes.Unavailable:
		if strings.Contains(err.Error(), "while dialing") {
			return output{outcome: Failed} // it was never sent
		}
		return output{outcome: Nobody}
	case codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return output{outcome: Nobody}
	default:
		return output{outcome: Failed}
	}
}

// changed is judge for calls other than reads: that something is not there is an error like others.
func changed(err error, id string) output {
	out := judge(err, id)
	if out.outcome == Missing {
		out.outcome = Failed
	}
	return out
}

// lasting is judge for what is owed once it was asked for, whatever the answer is.
func lasting(err error) output {
	if err != nil && strings.Contains(err.Error(), "while dialing") {
		return output{outcome: Failed}
	}
	if err != nil {
		return output{outcome: Nobody}
	}
	return output{outcome: OK, code: noCode}
}

func (i *island) runPod(ctx context.Context, client int) {
	began := i.now()
	id, err := i.cri.RunPod(ctx, i.config, "")
	i.add(client, i.name, began, input{verb: Create, pod: true}, changed(err, id))
	if err != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pod = id
	for name := range workloads {
		i.objects[id+"/"+name] = id
	}
}

// ofPod records a call to a pod with the pod and with all its containers.
func (i *island) ofPod(client int, pod string, began int64, verb, members verb, err error) {
	i.add(client, i.name, began, input{verb: verb, id: pod, pod: true}, lasting(err))
	for name := range workloads {
		i.add(client, pod+"/"+name, began, input{verb: members}, lasting(err))
	}
}

func (i *island) stopPod(ctx context.Context, client int) {
	pod, began := i.podID(), i.now()
	i.ofPod(client, pod, began, Stop, StopPod, i.cri.StopPod(ctx, pod))
}

func (i *island) removePod(ctx context.Context, client int) {
	pod, began := i.podID(), i.now()
	i.ofPod(client, pod, began, Remove, RemovePod, i.cri.RemovePod(ctx, pod))
}

func (i *island) create(ctx context.Context, client int, name string) {
	pod := i.podID()
	config := harness.Container(name, workloads[name]...)
	began := i.now()
	id, err := i.cri.Create(ctx, pod, config, i.config)
	i.add(client, pod+"/"+name, began, input{verb: Create}, changed(err, id))
	if err == nil {
		i.learn(pod+"/"+name, id)
	}
}

func (i *island) start(ctx context.Context, client int, c target) {
	if c.id == "" {
		return
	}
	began := i.now()
	err := i.cri.StartContainer(ctx, c.id)
	i.add(client, c.object, began, input{verb: Start, id: c.id}, changed(err, ""))
}

func (i *island) stop(ctx context.Context, client int, c target, grace int64) {
	if c.id == "" {
		return
	}
	began := i.now()
	err := i.cri.StopContainer(ctx, c.id, grace)
	i.add(client, c.object, began, input{verb: Stop, id: c.id}, lasting(err))
}

func (i *island) remove(ctx context.Context, client int, c target) {
	if c.id == "" {
		return
	}
	began := i.now()
	err := i.cri.RemoveContainer(ctx, c.id)
	i.add(client, c.object, began, input{verb: Remove, id: c.id}, lasting(err))
}

func (i *island) status(ctx context.Context, client int, c target) {
	if c.id == "" {
		return
	}
	began := i.now()
	s, err := i.cri.Status(ctx, c.id)
	out := judge(err, c.id)
	if err == nil {
		if out.phase = phaseOf(s.GetState()); out.phase == Gone {
			return
		}
		if out.phase == Exited {
			out.code = s.GetExitCode()
		}
	}
	i.add(client, c.object, began, input{verb: Status, id: c.id}, out)
}

func phaseOf(s runtimeapi.ContainerState) phase {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	default:
		return Gone
	}
}

// list reads everything of the island.
func (i *island) list(ctx context.Context, client int) {
	i.mu.Lock()
	expected := map[string]output{}
	for object := range i.objects {
		expected[object] = output{outcome: Missing}
	}
	i.mu.Unlock()
	began := i.now()
	list, err := i.cri.Containers(ctx)
	if err == nil {
		for _, c := range list {
			object := c.GetPodSandboxId() + "/" + c.GetMetadata().GetName()
			if was, ours := expected[object]; ours {
				if was.outcome == OK { // two of one name: no order explains that
					i.add(client, object, began, input{verb: Read}, was)
				}
				expected[object] = output{outcome: OK, id: c.GetId(), phase: phaseOf(c.GetState()), code: noCode}
			}
		}
		for object, out := range expected {
			i.add(client, object, began, input{verb: Read}, out)
		}
	}
	i.listPods(ctx, client)
}

func (i *island) listPods(ctx context.Context, client int) {
	began := i.now()
	pods, err := i.cri.Pods(ctx)
	if err != nil {
		return
	}
	out := output{outcome: Missing}
	for _, p := range pods {
		if p.GetMetadata().GetUid() != i.config.GetMetadata().GetUid() {
			continue
		}
		if out.outcome == OK {
			i.add(client, i.name, began, input{verb: Read}, out)
		}
		out = output{outcome: OK, id: p.GetId(), phase: Running, code: noCode}
		if p.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
			out.phase = Exited
		}
	}
	i.add(client, i.name, began, input{verb: Read}, out)
}

// end removes the pod for good, however often that takes.
func (i *island) end(ctx context.Context, client int) error {
	for {
		pods, err := i.cri.Pods(ctx)
		there := false
		for _, p := range pods {
			if p.GetMetadata().GetUid() != i.config.GetMetadata().GetUid() {
				continue
			}
			there = true
			began := i.now()
			e := i.cri.RemovePodFully(ctx, p.GetId())
			i.ofPod(client, p.GetId(), began, Remove, RemovePod, e)
		}
		if err == nil && !there {
			return i.home.Forget(i.config)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pod %s does not go: %w", i.name, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
