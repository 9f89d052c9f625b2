//go:build e2e

package net

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const holdArg = "hold-the-output"

// conf is what our plugin is told by its configuration.
type conf struct {
	Control    string          `json:"control"`
	PrevResult json.RawMessage `json:"prevResult"`
}

// plugin is this binary as a CNI plugin: it writes down what it is asked, and does what a file of the verb's name says.
func plugin() int {
	verb := os.Getenv("CNI_COMMAND")
	if verb == "VERSION" {
		fmt.Print(`{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}`)
		return 0
	}
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 2
	}
	var c conf
	if err := json.Unmarshal(stdin, &c); err != nil || c.Control == "" {
		fmt.Printf(`{"cniVersion":"1.0.0","code":6,"msg":"no configuration: %v"}`, err)
		return 1
	}
	if err := note(c.Control, verb); err != nil {
		return 2
	}
	how, _ := os.ReadFile(filepath.Join(c.Control, verb)) // none: well
	return act(string(how), verb, c)
}

// note adds a line: verb, pod, and whether its namespace is there.
func note(dir, verb string) error {
	there := "gone"
	if _, err := os.Stat(os.Getenv("CNI_NETNS")); err == nil {
		there = "there"
	}
	f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s %s %s\n", verb, os.Getenv("CNI_CONTAINERID"), there)
	return err
}

// answers are results that a plugin should not give.
var answers = map[string]string{
	"garbage":       "\x00\xff\x7fELF not JSON",
	"empty":         "",
	"null":          "null",
	"list":          "[]",
	"no address":    `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}]}`,
	"bad address":   `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[{"address":"not-an-address","interface":0}]}`,
	"other version": `{"cniVersion":"9.9.9","ips":[{"address":"10.249.200.9/24"}]}`,
	"IPv6 only":     `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"fd00:249::9/64","interface":0}]}`,
}

func act(how, verb string, c conf) int {
	word, rest, _ := strings.Cut(how, ":")
	switch word {
	case "hang": // with a child that keeps the output open
		child := exec.Command("/proc/self/exe", holdArg, c.Control)
		child.Stdout, child.Env = os.Stdout, []string{"A=b"}
		_ = child.Start()
		time.Sleep(time.Hour)
	case "slow":
		d, _ := time.ParseDuration(rest)
		time.Sleep(d)
	case "error":
		fmt.Printf(`{"cniVersion":"1.0.0","code":111,"msg":%q}`, rest)
		return 1
	case "silent":
		return 1
	case "crash":
		_ = exec.Command("sh", "-c", fmt.Sprintf("kill -SEGV %d", os.Getpid())).Run()
		time.Sleep(time.Hour)
	case "flood":
		block := []byte(strings.Repeat("x", 1<<20))
		for range 100 {
			if _, err := os.Stdout.Write(block); err != nil {
				return 1
			}
		}
		return 0
	}
	if text, ok := answers[word]; ok {
		fmt.Print(text)
		return 0
	}
	if verb == "ADD" {
		fmt.Print(string(c.PrevResult)) // of the bridge before it
	}
	return 0
}
