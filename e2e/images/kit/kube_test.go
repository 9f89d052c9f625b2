package kit

import (
	"os"
	"path/filepath"
	"testing"
)

// The suite compares status.image with the image of the pod, and a runtime answers one of the names of an image's ID: so every name has one of
// its own.
func TestEveryNameOfTheNodeSuiteIsAnImageOfItsOwn(t *testing.T) {
	p := programs(t)
	bin := t.TempDir()
	for _, name := range []string{"agnhost", "nnp"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	images, err := p.KubeCatalogue(bin)
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]string{}
	found := false
	for _, i := range images {
		if i.image == nil {
			continue
		}
		id, err := i.image.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		if other := configs[id.String()]; other != "" {
			t.Errorf("%v and %s are one image", i.Names, other)
		}
		configs[id.String()] = i.Names[0]
		found = found || "registry.k8s.io/"+i.Names[0] == Agnhost
	}
	if !found {
		t.Errorf("no %s", Agnhost)
	}
}
