package images

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/failpoint"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/server/chunk"
	"github.com/crid-project/crid/server/fault"
	"github.com/crid-project/crid/server/validate"
)

// Store is the node's images; *image.Store is one.
type Store interface {
	// Pull makes an image present.
	Pull(context.Context, image.PullRequest) (image.Image, error)
	// Resolve finds an image by tag, digest, short name, id or unique
	// beginning of an id; errdefs.ErrNotFound.
	Resolve(ref string) (image.Image, error)
	List() []image.Image
	// Remove removes the image with all its references. Idempotent.
	Remove(ctx context.Context, ref string) error
	// Usage answers what images take.
	Usage() (bytes, inodes uint64)
}

// Layers tells what the writable layers of all containers take.
type Layers interface {
	AllLayers(context.Context) (bytes, inodes uint64)
}

// Deps are what an [Images] needs.
type Deps struct {
	Store  Store
	Layers Layers
	// ImageDir and LayerDir are where images and writable layers lie; a
	// kubelet looks up the file systems by them.
	ImageDir, LayerDir string
	// Handler tells whether there is a runtime handler of that name; "" is the default.
	Handler func(name string) (string, bool)
}

// Images implements CRI's ImageService. Requests must have passed
// validate.Request.
type Images struct {
	cri.UnsafeImageServiceServer
	d Deps
}

// New makes an [Images]. Images and layers on one file system are reported
// under one directory: a kubelet takes two for two disks.
func New(d Deps) *Images {
	if sameDisk(d.ImageDir, d.LayerDir) {
		d.LayerDir = d.ImageDir
	}
	return &Images{d: d}
}

func sameDisk(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev
}

// Message is the image as CRI shows it. Its spec names the image by id and not
// by what was asked for, so that all questions about it get one answer.
func Message(i image.Image) *cri.Image {
	m := &cri.Image{
		Id:          i.ID,
		RepoTags:    i.Tags,
		RepoDigests: i.Digests,
		Size:        uint64(max(i.Size, 1)), // CRI: must be > 0
		Spec:        &cri.ImageSpec{Image: i.ID, Annotations: i.Annotations},
		Pinned:      i.Pinned,
	}
	m.Uid, m.Username = user(i.Config.Config.User)
	return m
}

// user splits an image's USER ("1000:1000", "www-data:") into CRI's uid or
// name; of which only one is set. No user at all is uid 0, as the peers say.
func user(s string) (*cri.Int64Value, string) {
	name, _, _ := strings.Cut(s, ":")
	if name == "" {
		return &cri.Int64Value{Value: 0}, ""
	}
	if uid, err := strconv.ParseInt(name, 10, 64); err == nil && uid >= 0 {
		return &cri.Int64Value{Value: uid}, ""
	}
	return nil, name
}

func (s *Images) list(f *cri.ImageFilter) ([]*cri.Image, error) {
	if ref := f.GetImage().GetImage(); ref != "" {
		i, err := s.d.Store.Resolve(ref)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []*cri.Image{Message(i)}, nil
	}
	all := s.d.Store.List()
	out := make([]*cri.Image, len(all))
	for n, i := range all {
		out[n] = Message(i)
	}
	return out, nil
}

// ListImages answers all images, or the one that the filter names.
func (s *Images) ListImages(_ context.Context, r *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	images, err := s.list(r.GetFilter())
	if err != nil {
		return nil, err
	}
	return &cri.ListImagesResponse{Images: images}, nil
}

// StreamImages is ListImages in chunks.
func (s *Images) StreamImages(r *cri.StreamImagesRequest, stream grpc.ServerStreamingServer[cri.StreamImagesResponse]) error {
	images, err := s.list(r.GetFilter())
	if err != nil {
		return err
	}
	return chunk.Send(images, func(items []*cri.Image) error {
		return stream.Send(&cri.StreamImagesResponse{Images: items})
	})
}

// ImageStatus answers an image; an image that is not there is no error but an
// empty answer.
func (s *Images) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	i, err := s.d.Store.Resolve(r.GetImage().GetImage())
	if errdefs.IsNotFound(err) {
		return &cri.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	resp := &cri.ImageStatusResponse{Image: Message(i)}
	if r.GetVerbose() {
		resp.Info = verbose(i)
	}
	return resp, nil
}

func verbose(i image.Image) map[string]string {
	b, err := json.Marshal(map[string]any{
		"imageSpec": i.Config, "chainID": i.ChainID, "manifest": i.Manifest, "pulledAt": i.PulledAt, "annotations": i.Annotations,
	})
	if err != nil {
		return nil
	}
	return map[string]string{"info": string(b)}
}

// PullImage makes an image present. A second pull of the same joins the first.
func (s *Images) PullImage(ctx context.Context, r *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	if h := r.GetImage().GetRuntimeHandler(); h != "" {
		if _, ok := s.d.Handler(h); !ok {
			return nil, validate.Bad("image.runtime_handler", "%q is not configured", h)
		}
	}
	i, err := s.d.Store.Pull(ctx, image.PullRequest{Ref: r.GetImage().GetImage(), Auth: credentials(r.GetAuth())})
	if err != nil {
		return nil, fault.Pull(err)
	}
	if err := failpoint.Sending("i9"); err != nil {
		return nil, err
	}
	return &cri.PullImageResponse{ImageRef: i.ID}, nil
}

func credentials(a *cri.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(),
		IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(), ServerAddress: a.GetServerAddress(),
	}
}

// RemoveImage removes an image by any of its names, with all its names. One
// that is not there is removed.
func (s *Images) RemoveImage(ctx context.Context, r *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	if err := s.d.Store.Remove(ctx, r.GetImage().GetImage()); err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	return &cri.RemoveImageResponse{}, nil
}

// ImageFsInfo answers what images and what containers' writable layers take.
func (s *Images) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	now := time.Now().UnixNano()
	bytes, inodes := s.d.Store.Usage()
	resp := &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{usage(now, s.d.ImageDir, bytes, inodes)}}
	bytes, inodes = s.d.Layers.AllLayers(ctx)
	resp.ContainerFilesystems = []*cri.FilesystemUsage{usage(now, s.d.LayerDir, bytes, inodes)}
	return resp, ctx.Err()
}

func usage(now int64, dir string, bytes, inodes uint64) *cri.FilesystemUsage {
	return &cri.FilesystemUsage{
		Timestamp:  now,
		FsId:       &cri.FilesystemIdentifier{Mountpoint: dir},
		UsedBytes:  &cri.UInt64Value{Value: bytes},
		InodesUsed: &cri.UInt64Value{Value: inodes},
	}
}
