package validate

import "time"

// MaxWait is the longest time anybody waits for: a hundred years, in CRI's
// int64 seconds, still fits a time.Duration.
const MaxWait = 100 * 365 * 24 * time.Hour

// Seconds turns CRI's seconds into a duration without overflow: 0 to [MaxWait].
func Seconds(s int64) time.Duration {
	if s <= 0 {
		return 0
	}
	if s > int64(MaxWait/time.Second) {
		return MaxWait
	}
	return time.Duration(s) * time.Second
}
