package validate

import (
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Request checks any CRI request: its shape, then the rule of its type. The
// error is a [FieldError].
func Request(m proto.Message) error {
	if err := Shape(m); err != nil {
		return err
	}
	switch r := m.(type) {
	case *cri.RunPodSandboxRequest, *cri.StopPodSandboxRequest, *cri.RemovePodSandboxRequest, *cri.PodSandboxStatusRequest,
		*cri.ListPodSandboxRequest, *cri.StreamPodSandboxesRequest, *cri.UpdatePodSandboxResourcesRequest, *cri.PortForwardRequest:
		return podRequest(r)
	case *cri.CreateContainerRequest, *cri.StartContainerRequest, *cri.StopContainerRequest, *cri.RemoveContainerRequest,
		*cri.ContainerStatusRequest, *cri.ListContainersRequest, *cri.StreamContainersRequest,
		*cri.UpdateContainerResourcesRequest, *cri.ReopenContainerLogRequest:
		return containerRequest(r)
	case *cri.ExecSyncRequest, *cri.ExecRequest, *cri.AttachRequest:
		return streamRequest(r)
	case *cri.ContainerStatsRequest, *cri.ListContainerStatsRequest, *cri.StreamContainerStatsRequest,
		*cri.PodSandboxStatsRequest, *cri.ListPodSandboxStatsRequest, *cri.StreamPodSandboxStatsRequest:
		return statsRequest(r)
	case *cri.PullImageRequest, *cri.RemoveImageRequest, *cri.ImageStatusRequest, *cri.ListImagesRequest, *cri.StreamImagesRequest:
		return imageRequest(r)
	case *cri.VersionRequest:
		return text("version", r.GetVersion(), 64)
	case *cri.UpdateRuntimeConfigRequest:
		return podCIDR(r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr())
	}
	return nil
}

func podRequest(m proto.Message) error {
	switch r := m.(type) {
	case *cri.RunPodSandboxRequest:
		if err := podConfig("config", r.GetConfig()); err != nil {
			return err
		}
		return text("runtime_handler", r.GetRuntimeHandler(), maxName)
	case *cri.StopPodSandboxRequest:
		return ID("pod_sandbox_id", r.GetPodSandboxId())
	case *cri.RemovePodSandboxRequest:
		return ID("pod_sandbox_id", r.GetPodSandboxId())
	case *cri.PodSandboxStatusRequest:
		return ID("pod_sandbox_id", r.GetPodSandboxId())
	case *cri.ListPodSandboxRequest:
		return optionalID("filter.id", r.GetFilter().GetId())
	case *cri.StreamPodSandboxesRequest:
		return optionalID("filter.id", r.GetFilter().GetId())
	case *cri.UpdatePodSandboxResourcesRequest:
		if err := ID("pod_sandbox_id", r.GetPodSandboxId()); err != nil {
			return err
		}
		if r.GetOverhead() == nil && r.GetResources() == nil {
			return Bad("resources", "and overhead are both missing: set the one to change")
		}
		if err := Resources("overhead", r.GetOverhead()); err != nil {
			return err
		}
		return Resources("resources", r.GetResources())
	case *cri.PortForwardRequest:
		if err := ID("pod_sandbox_id", r.GetPodSandboxId()); err != nil {
			return err
		}
		// No port at all is what a kubelet sends for SPDY: the ports come
		// with the streams.
		for _, p := range r.GetPort() {
			if p < 1 || p > 65535 {
				return Bad("port", "is outside 1 to 65535")
			}
		}
	}
	return nil
}

func containerRequest(m proto.Message) error {
	switch r := m.(type) {
	case *cri.CreateContainerRequest:
		if err := ID("pod_sandbox_id", r.GetPodSandboxId()); err != nil {
			return err
		}
		return containerConfig("config", r.GetConfig())
	case *cri.StartContainerRequest:
		return ID("container_id", r.GetContainerId())
	case *cri.StopContainerRequest:
		if err := ID("container_id", r.GetContainerId()); err != nil {
			return err
		}
		return notNegative("timeout", r.GetTimeout())
	case *cri.RemoveContainerRequest:
		return ID("container_id", r.GetContainerId())
	case *cri.ContainerStatusRequest:
		return ID("container_id", r.GetContainerId())
	case *cri.ReopenContainerLogRequest:
		return ID("container_id", r.GetContainerId())
	case *cri.ListContainersRequest:
		return containerFilter(r.GetFilter().GetId(), r.GetFilter().GetPodSandboxId())
	case *cri.StreamContainersRequest:
		return containerFilter(r.GetFilter().GetId(), r.GetFilter().GetPodSandboxId())
	case *cri.UpdateContainerResourcesRequest:
		if err := ID("container_id", r.GetContainerId()); err != nil {
			return err
		}
		if r.GetLinux() == nil && len(r.GetAnnotations()) == 0 {
			return Bad("linux", "is missing: say what to change")
		}
		return Resources("linux", r.GetLinux())
	}
	return nil
}

func streamRequest(m proto.Message) error {
	switch r := m.(type) {
	case *cri.ExecSyncRequest:
		if err := ID("container_id", r.GetContainerId()); err != nil {
			return err
		}
		if err := command("cmd", r.GetCmd()); err != nil {
			return err
		}
		return notNegative("timeout", r.GetTimeout())
	case *cri.ExecRequest:
		if err := ID("container_id", r.GetContainerId()); err != nil {
			return err
		}
		if err := command("cmd", r.GetCmd()); err != nil {
			return err
		}
		return streams(r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr())
	case *cri.AttachRequest:
		if err := ID("container_id", r.GetContainerId()); err != nil {
			return err
		}
		return streams(r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr())
	}
	return nil
}

func statsRequest(m proto.Message) error {
	switch r := m.(type) {
	case *cri.ContainerStatsRequest:
		return ID("container_id", r.GetContainerId())
	case *cri.PodSandboxStatsRequest:
		return ID("pod_sandbox_id", r.GetPodSandboxId())
	case *cri.ListContainerStatsRequest:
		return containerFilter(r.GetFilter().GetId(), r.GetFilter().GetPodSandboxId())
	case *cri.StreamContainerStatsRequest:
		return containerFilter(r.GetFilter().GetId(), r.GetFilter().GetPodSandboxId())
	case *cri.ListPodSandboxStatsRequest:
		return optionalID("filter.id", r.GetFilter().GetId())
	case *cri.StreamPodSandboxStatsRequest:
		return optionalID("filter.id", r.GetFilter().GetId())
	}
	return nil
}

func imageRequest(m proto.Message) error {
	switch r := m.(type) {
	case *cri.PullImageRequest:
		if err := imageSpec("image", r.GetImage(), true); err != nil {
			return err
		}
		return auth("auth", r.GetAuth())
	case *cri.RemoveImageRequest:
		return imageSpec("image", r.GetImage(), true)
	case *cri.ImageStatusRequest:
		return imageSpec("image", r.GetImage(), true)
	case *cri.ListImagesRequest:
		return imageSpec("filter.image", r.GetFilter().GetImage(), false)
	case *cri.StreamImagesRequest:
		return imageSpec("filter.image", r.GetFilter().GetImage(), false)
	}
	return nil
}

func containerFilter(id, pod string) error {
	if err := optionalID("filter.id", id); err != nil {
		return err
	}
	return optionalID("filter.pod_sandbox_id", pod)
}

// podCIDR accepts what a kubelet sends: nothing, one CIDR or two with a comma.
func podCIDR(s string) error {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		if _, err := netip.ParsePrefix(strings.TrimSpace(part)); err != nil {
			return Bad("runtime_config.network_config.pod_cidr", "is not a CIDR such as 10.1.0.0/24")
		}
	}
	return nil
}
