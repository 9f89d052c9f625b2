package config

import (
	"fmt"
	"strconv"
	"time"

	"github.com/docker/go-units"
)

// Duration is a length of time written as "90s", "5m", "4h".
type Duration time.Duration

// UnmarshalText reads it; a number without a unit is refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration: write for example \"90s\" or \"5m\"", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes it the way it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the shortest exact form: "1m", not "1m0s".
func (d Duration) String() string {
	v := time.Duration(d)
	switch {
	case v != 0 && v%time.Hour == 0:
		return strconv.FormatInt(int64(v/time.Hour), 10) + "h"
	case v != 0 && v%time.Minute == 0:
		return strconv.FormatInt(int64(v/time.Minute), 10) + "m"
	}
	return v.String()
}

// Std is the same as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Size is a number of bytes, written as 16384 or "16KiB" (units of 1024).
type Size int64

// UnmarshalText reads it.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := units.RAMInBytes(string(b))
	if err != nil {
		return fmt.Errorf("%q is no size: write bytes, or for example \"16KiB\" or \"10GiB\"", b)
	}
	*s = Size(v)
	return nil
}

// MarshalText writes it the way it is read, exactly.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the shortest exact form.
func (s Size) String() string {
	v, unit := int64(s), 0
	for unit < 4 && v != 0 && v%1024 == 0 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(v, 10)
	}
	return strconv.FormatInt(v, 10) + [...]string{"", "KiB", "MiB", "GiB", "TiB"}[unit]
}
