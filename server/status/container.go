package status

import (
	"strings"
	"syscall"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/container/plan/signal"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/store/lifecycle"
)

// Names answers the tags and digests that an image has now, by its id; none if
// the image is gone. It must answer from memory.
type Names func(imageID string) (tags, digests []string)

// ContainerState is the CRI state. A start under way is CREATED until the
// workload is known to run, and a removal shows what was before it.
func ContainerState(c *store.Container) cri.ContainerState {
	switch c.State.Phase {
	case lifecycle.Making, lifecycle.Created, lifecycle.Starting:
		return cri.ContainerState_CONTAINER_CREATED
	case lifecycle.Running:
		return cri.ContainerState_CONTAINER_RUNNING
	case lifecycle.Exited:
		return cri.ContainerState_CONTAINER_EXITED
	case lifecycle.Removing, lifecycle.Gone:
		if c.State.Exit.Source == lifecycle.NoSource {
			return cri.ContainerState_CONTAINER_CREATED
		}
		return cri.ContainerState_CONTAINER_EXITED
	}
	return cri.ContainerState_CONTAINER_UNKNOWN
}

// ContainerMetadata is the container's name.
func ContainerMetadata(c *store.Container) *cri.ContainerMetadata {
	return &cri.ContainerMetadata{Name: c.Name.Name, Attempt: c.Name.Attempt}
}

// ContainerItem is the container as ListContainers shows it.
func ContainerItem(c *store.Container, names Names) *cri.Container {
	cfg := ContainerConfig(c.Config)
	image, ref := imageNames(c, cfg, names)
	return &cri.Container{
		Id:           c.ID,
		PodSandboxId: c.PodID,
		Metadata:     ContainerMetadata(c),
		Image:        image,
		ImageRef:     ref,
		State:        ContainerState(c),
		CreatedAt:    c.CreatedAt,
		Labels:       cfg.GetLabels(),
		Annotations:  cfg.GetAnnotations(),
		ImageId:      c.ImageID,
	}
}

// Container is the container as ContainerStatus, PodSandboxStatus and the
// container events show it.
func Container(c *store.Container, names Names) *cri.ContainerStatus {
	cfg := ContainerConfig(c.Config)
	image, ref := imageNames(c, cfg, names)
	st := &cri.ContainerStatus{
		Id:          c.ID,
		Metadata:    ContainerMetadata(c),
		State:       ContainerState(c),
		CreatedAt:   c.CreatedAt,
		Image:       image,
		ImageRef:    ref,
		Labels:      cfg.GetLabels(),
		Annotations: cfg.GetAnnotations(),
		Mounts:      cfg.GetMounts(),
		LogPath:     c.LogPath,
		Resources:   &cri.ContainerResources{Linux: cfg.GetLinux().GetResources()},
		ImageId:     c.ImageID,
		User:        &cri.ContainerUser{Linux: &cri.LinuxContainerUser{Uid: c.UID, Gid: c.GID, SupplementalGroups: c.Groups}},
		StopSignal:  stopSignal(c.StopSignal),
	}
	if st.State != cri.ContainerState_CONTAINER_CREATED {
		st.StartedAt = c.StartedAt
	}
	if st.State == cri.ContainerState_CONTAINER_EXITED {
		st.FinishedAt, st.ExitCode = c.FinishedAt(), c.State.Exit.Code
	}
	st.Reason, st.Message = reason(c, st.State)
	return st
}

// reason is CRI's short word and the sentence behind it. "OOMKilled" is
// prescribed by CRI, "Completed" and "Error" are what users know.
func reason(c *store.Container, state cri.ContainerState) (word, sentence string) {
	switch state {
	case cri.ContainerState_CONTAINER_EXITED:
		x := c.State.Exit
		switch {
		case x.OOM:
			return "OOMKilled", x.Message
		case x.Source == lifecycle.Runtime:
			return "StartError", x.Message
		case x.Source == lifecycle.Assumed && x.Code == lifecycle.CodeUnknown:
			return "Unknown", orElse(x.Message, "the process is gone and nobody could tell its exit code")
		case x.Code == 0:
			return "Completed", x.Message
		}
		return "Error", x.Message
	case cri.ContainerState_CONTAINER_RUNNING:
		switch {
		case c.State.InitGone:
			return "Leftovers", "the main process ended; the rest of its cgroup is being killed"
		case c.State.Orphan:
			return "Orphaned", "its shim is gone or does not know it; the process lives and can be stopped"
		case c.State.Stop == lifecycle.Killing:
			return "Killing", "SIGKILL was sent and is repeated until the kernel says that the process is gone"
		}
	case cri.ContainerState_CONTAINER_CREATED, cri.ContainerState_CONTAINER_UNKNOWN:
	}
	return "", ""
}

func orElse(s, fallback string) string {
	if s != "" {
		return s
	}
	return fallback
}

// imageNames answers the image as the user knows it and its reference by
// digest. The kubelet creates containers by image id; users want to read a
// name, so a tag of the image is shown: the one that was asked for if it is
// still there.
func imageNames(c *store.Container, cfg *cri.ContainerConfig, names Names) (*cri.ImageSpec, string) {
	asked := cfg.GetImage()
	spec := &cri.ImageSpec{
		Image:              orElse(c.ImageName, asked.GetImage()),
		Annotations:        asked.GetAnnotations(),
		UserSpecifiedImage: asked.GetUserSpecifiedImage(),
		RuntimeHandler:     asked.GetRuntimeHandler(),
		ImageRef:           asked.GetImageRef(),
	}
	ref := orElse(c.ImageRef, c.ImageID)
	if names == nil {
		return spec, ref
	}
	tags, digests := names(c.ImageID)
	if tag := pick(tags, spec.UserSpecifiedImage, spec.Image); tag != "" {
		spec.Image = tag
	}
	if c.ImageRef == "" && len(digests) > 0 {
		ref = digests[0]
	}
	return spec, ref
}

// pick chooses the tag that ends in what was asked for ("nginx" asks for
// "docker.io/library/nginx:latest"), else the first.
func pick(tags []string, asked ...string) string {
	for _, a := range asked {
		if a == "" {
			continue
		}
		for _, t := range tags {
			if t == a || strings.HasSuffix(t, "/"+a) || t == a+":latest" || strings.HasSuffix(t, "/"+a+":latest") {
				return t
			}
		}
	}
	if len(tags) > 0 {
		return tags[0]
	}
	return ""
}

// stopSignal is the number as CRI's enum: SIGTERM is SIGNAL_SIGTERM, SIGRTMIN+3
// is SIGNAL_SIGRTMINPLUS3. Numbers that CRI has no name for are the default.
func stopSignal(n int) cri.Signal {
	if n <= 0 {
		return cri.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	name := strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(signal.Name(syscall.Signal(n)))
	return cri.Signal(cri.Signal_value["SIGNAL_"+name])
}

// ContainerAttributes is the container as statistics name it.
func ContainerAttributes(c *store.Container) *cri.ContainerAttributes {
	cfg := ContainerConfig(c.Config)
	return &cri.ContainerAttributes{Id: c.ID, Metadata: ContainerMetadata(c), Labels: cfg.GetLabels(), Annotations: cfg.GetAnnotations()}
}
