package chaos

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SmallDisk makes a folder a disk of its own, in memory, of a size such as "96m". It is unmounted with the home it is in.
func SmallDisk(dir, size string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=711,size="+size); err != nil {
		return fmt.Errorf("make a small disk at %s: %w", dir, err)
	}
	return nil
}

// Fill fills the disk that a folder is on to the last byte; the function it gives makes the room again.
func Fill(dir string) (release func() error, err error) {
	f, err := os.CreateTemp(dir, "ballast")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	release = func() error { return os.Remove(f.Name()) }
	for _, block := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, unix.ENOSPC) {
			return nil, errors.Join(err, release())
		}
	}
	return release, nil
}
