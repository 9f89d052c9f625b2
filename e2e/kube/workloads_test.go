//go:build e2e

package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deployment is YAML of one whose pods serve a word on port 80.
func deployment(name string, replicas int, word string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: %[4]s
        command: [sh, -c, "mkdir /www; echo $WORD > /www/index.html; exec httpd -f -p 80 -h /www"]
        env: [{name: WORD, value: %[3]s}]
        lifecycle: {preStop: {sleep: {seconds: 1}}}
        readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 1, timeoutSeconds: 5}
`, name, replicas, word, busybox)
}

func rollingUpdate(t *testing.T, s *space) {
	s.apply(deployment("web", 3, "one"))
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	s.must("set", "env", "deployment/web", "WORD=two")
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	gone := func(want string) {
		t.Helper()
		await(t, 2*time.Minute, "all pods of the new kind", func(ctx context.Context) error {
			names, err := s.kubectl(ctx, "get", "pods", "-l", "app=web", "-o", "name")
			if err != nil {
				return err
			}
			got := ""
			for name := range strings.FieldsSeq(names) { // one that is about to end may be there no more
				word, err := s.kubectl(ctx, "exec", strings.TrimPrefix(name, "pod/"), "--", "sh", "-c", "echo $WORD")
				if err != nil {
					return err
				}
				got += strings.TrimSpace(word) + " "
			}
			if strings.TrimSpace(got) != want {
				return errorf("they say %q", got)
			}
			return nil
		})
	}
	gone("two two two")
	s.must("rollout", "undo", "deployment/web")
	s.must("rollout", "status", "deployment/web", "--timeout=3m")
	gone("one one one")
	s.must("scale", "deployment/web", "--replicas=0")
	await(t, 2*time.Minute, "no pods", func(ctx context.Context) error {
		if out, err := s.kubectl(ctx, "get", "pods", "-l", "app=web", "-o", "name"); err != nil || out != "" {
			return errorf("%s (%v)", out, err)
		}
		return nil
	})
}

func job(t *testing.T, s *space) {
	s.apply(fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: sums}
spec:
  completions: 4
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 6
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - {name: main, image: "%s", volumeMounts: [{name: tmp, mountPath: /t}],
         command: [sh, -c, "echo index $JOB_COMPLETION_INDEX; [ -e /t/again ] || { touch /t/again; exit 1; }"]}
      volumes: [{name: tmp, emptyDir: {}}]
`, busybox))
	s.must("wait", "--for=condition=Complete", "job/sums", "--timeout=3m")
	if got := s.must("get", "job", "sums", "-o", "jsonpath={.status.succeeded} {.status.completedIndexes}"); got != "4 0-3" {
		t.Errorf("succeeded, indexes: %s", got)
	}
	out := s.logs("-l", "job-name=sums", "--tail=5")
	for i := range 4 {
		if !strings.Contains(out, fmt.Sprint("index ", i)) {
			t.Errorf("no word of index %d in %q", i, out)
		}
	}
}

func cronJob(t *testing.T, s *space) {
	s.apply(fmt.Sprintf(`apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "%s", command: [date]}]}}}}
`, busybox))
	await(t, 3*time.Minute, "a scheduled run", func(ctx context.Context) error {
		out, err := s.kubectl(ctx, "get", "jobs", "-o", "jsonpath={.items[*].status.succeeded}")
		if err != nil || !strings.Contains(out, "1") {
			return errorf("succeeded: %q (%v)", out, err)
		}
		return nil
	})
}

func daemonSet(t *testing.T, s *space) {
	yaml := func(word string) string {
		return fmt.Sprintf(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      %s
`, sleeper("main", "env: [{name: WORD, value: "+word+"}]"))
	}
	for _, word := range []string{"one", "two"} {
		s.apply(yaml(word))
		s.must("rollout", "status", "daemonset/agent", "--timeout=3m")
		if got := s.must("get", "daemonset", "agent", "-o", "jsonpath={.status.numberReady}"); got != "1" {
			t.Errorf("%s: %s ready", word, got)
		}
	}
}

func statefulSet(t *testing.T, s *space) {
	dir := filepath.Join(s.hostDir, "local-volume")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.must("delete", "pv", "local", "--wait=false"); s.must("delete", "storageclass", "local") })
	s.apply(fmt.Sprintf(`apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {path: %s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      %s
  volumeClaimTemplates:
  - {metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], storageClassName: local, resources: {requests: {storage: 1Gi}}}}
`, dir, s.k.Name, sleeper("main", "volumeMounts: [{name: data, mountPath: /data}]")))
	before := s.readyOnce("db-0")
	s.sh("db-0", "main", "echo kept > /data/file")
	s.must("delete", "pod", "db-0")
	await(t, 3*time.Minute, "db-0 anew", func(ctx context.Context) error {
		p, err := s.pod(ctx, "db-0")
		if err != nil {
			return err
		}
		if p.Metadata.UID == before.Metadata.UID || !p.ready() {
			return errorf("it is the old one, or %s", p.Status.Phase)
		}
		return nil
	})
	if got := s.sh("db-0", "main", "cat /data/file"); got != "kept" {
		t.Errorf("in the volume: %q", got)
	}
}

// readyOnce is ready, for a pod that somebody else makes.
func (s *space) readyOnce(name string) *pod {
	s.t.Helper()
	return s.ready(name)
}

func configAndSecrets(t *testing.T, s *space) {
	s.apply(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, file: "a whole file"}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: hunter2}
`)
	s.run("main", `containers:
`+sleeper("main", `envFrom: [{configMapRef: {name: settings}}], volumeMounts: [{name: settings, mountPath: /settings}, {name: settings, mountPath: /one/file, subPath: file},
  {name: key, mountPath: /key}, {name: about, mountPath: /about}]`)+`
volumes:
- {name: settings, configMap: {name: settings}}
- {name: key, secret: {secretName: key, defaultMode: 0400}}
- {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
`)
	for command, want := range map[string]string{
		"cat /settings/color; echo $color": "blueblue", "cat /one/file": "a whole file", "cat /key/password; stat -Lc %a /key/password": "hunter2400",
		"cat /about/labels": `app="main"`, "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace": s.name,
		"wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token | grep -q '...' && echo a token": "a token",
	} {
		if got := s.sh("main", "main", command); got != want {
			t.Errorf("%s: %q, not %q", command, got, want)
		}
	}
	s.must("patch", "configmap", "settings", "-p", `{"data": {"color": "green"}}`)
	await(t, 3*time.Minute, "the change in the volume", func(context.Context) error {
		if got := s.sh("main", "main", "cat /settings/color"); got != "green" {
			return errorf("%q", got)
		}
		return nil
	})
}
