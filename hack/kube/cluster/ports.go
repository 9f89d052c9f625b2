package cluster

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports finds n ports on loopback that nobody listens on, below the range that the kernel gives to clients.
func Ports(n int) ([]int, error) {
	var found []int
	for range 1000 {
		port := 20000 + rand.IntN(10000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // it is closed at once
		if err != nil {
			continue
		}
		l.Close()
		if found = append(found, port); len(found) == n {
			return found, nil
		}
	}
	return nil, errors.New("find free ports: too few between 20000 and 30000")
}
