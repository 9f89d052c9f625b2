package story

import "sync"

// AtOnce runs n calls side by side and gives their errors.
func AtOnce(n int, call func(n int) error) []error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = call(i) })
	}
	wait.Wait()
	return errs
}
