// Command clientround is the round of a client library, with client-go: objects
// are made, read, watched, changed and deleted; a pod runs, and is asked for its
// log and for a command. Each step is told in a line.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "clientround:", err)
		os.Exit(1)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clientround:", err)
		os.Exit(1)
	}
	r := round{ctx: ctx, config: config, client: client, namespace: os.Args[1], image: os.Args[2]}
	r.objects()
	r.pod()
}

type round struct {
	ctx              context.Context
	config           *rest.Config
	client           kubernetes.Interface
	namespace, image string
}

func step(what string, work func() error) {
	if err := work(); err != nil {
		fmt.Printf("failed %s: %s\n", what, strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	fmt.Println("ok", what)
}

func expect(found, wanted any) error {
	if !reflect.DeepEqual(found, wanted) {
		return fmt.Errorf("%v and not %v", found, wanted)
	}
	return nil
}

const selector = "round=go"

func (r round) objects() {
	maps := r.client.CoreV1().ConfigMaps(r.namespace)
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "round", Labels: map[string]string{"round": "go"}},
		Data:       map[string]string{"a": "1"},
	}
	var watching watch.Interface
	step("start a watch", func() error {
		list, err := maps.List(r.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		watching, err = maps.Watch(r.ctx, metav1.ListOptions{LabelSelector: selector, ResourceVersion: list.ResourceVersion})
		return err
	})
	step("create", func() error {
		made, err := maps.Create(r.ctx, object, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		return expect(made.Data["a"], "1")
	})
	step("get", func() error {
		found, err := maps.Get(r.ctx, "round", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect(found.Data["a"], "1")
	})
	step("list by label", func() error {
		list, err := maps.List(r.ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		return expect(len(list.Items), 1)
	})
	step("an informer is filled", func() error {
		factory := informers.NewSharedInformerFactoryWithOptions(r.client, 0, informers.WithNamespace(r.namespace))
		lister := factory.Core().V1().ConfigMaps().Lister()
		factory.Core().V1().ConfigMaps().Informer()
		ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
		defer cancel()
		factory.Start(ctx.Done())
		factory.WaitForCacheSync(ctx.Done())
		found, err := lister.ConfigMaps(r.namespace).Get("round")
		if err != nil {
			return err
		}
		return expect(found.Data["a"], "1")
	})
	step("patch", func() error {
		patched, err := maps.Patch(r.ctx, "round", types.StrategicMergePatchType, []byte(`{"data":{"a":"2"}}`), metav1.PatchOptions{})
		if err != nil {
			return err
		}
		return expect(patched.Data["a"], "2")
	})
	step("server-side apply, and a conflict with another's field", func() error {
		wanted := applycorev1.ConfigMap("round", r.namespace).WithData(map[string]string{"b": "1"})
		if _, err := maps.Apply(r.ctx, wanted, metav1.ApplyOptions{FieldManager: "round"}); err != nil {
			return err
		}
		wanted.Data["a"] = "4"
		if _, err := maps.Apply(r.ctx, wanted, metav1.ApplyOptions{FieldManager: "round"}); !apierrors.IsConflict(err) {
			return fmt.Errorf("no conflict: %v", err)
		}
		return nil
	})
	step("update, and a conflict for an old version", func() error {
		found, err := maps.Get(r.ctx, "round", metav1.GetOptions{})
		if err != nil {
			return err
		}
		found.Data["a"] = "3"
		if _, err := maps.Update(r.ctx, found, metav1.UpdateOptions{}); err != nil {
			return err
		}
		found.Data["a"] = "5"
		if _, err := maps.Update(r.ctx, found, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return fmt.Errorf("no conflict: %v", err)
		}
		return nil
	})
	step("delete", func() error { return maps.Delete(r.ctx, "round", metav1.DeleteOptions{}) })
	step("watch", func() error {
		if watching == nil {
			return fmt.Errorf("it could not be started")
		}
		defer watching.Stop()
		var seen []string
		for {
			select {
			case event, open := <-watching.ResultChan():
				if !open {
					return fmt.Errorf("it has ended after %v", seen)
				}
				found, ok := event.Object.(*corev1.ConfigMap)
				if !ok {
					return fmt.Errorf("an event with %v", event.Object)
				}
				seen = append(seen, fmt.Sprintf("%s %s%s", event.Type, found.Data["a"], found.Data["b"]))
				if event.Type == watch.Deleted {
					return expect(seen, []string{"ADDED 1", "MODIFIED 2", "MODIFIED 21", "MODIFIED 31", "DELETED 31"})
				}
			case <-time.After(30 * time.Second):
				return fmt.Errorf("no event for 30 s after %v", seen)
			}
		}
	})
}

func (r round) pod() {
	pods := r.client.CoreV1().Pods(r.namespace)
	step("a pod gets ready", func() error {
		grace := int64(1)
		spec := corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "main", Image: r.image, Args: []string{"netexec"}}},
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "go"}, Spec: spec}
		if _, err := pods.Create(r.ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
		defer cancel()
		watching, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=go"})
		if err != nil {
			return err
		}
		defer watching.Stop()
		for event := range watching.ResultChan() {
			pod, _ := event.Object.(*corev1.Pod)
			if pod == nil {
				continue
			}
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
					return nil
				}
			}
		}
		return fmt.Errorf("not within a minute")
	})
	step("logs, followed", func() error {
		ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
		defer cancel()
		log, err := pods.GetLogs("go", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
		if err != nil {
			return err
		}
		defer log.Close()
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if strings.Contains(lines.Text(), "Started HTTP server") {
				return nil
			}
		}
		return fmt.Errorf("the log has ended")
	})
	for _, way := range []string{"WebSocket", "SPDY"} {
		step("exec over "+way, func() error { return r.exec(way) })
	}
	step("delete a pod", func() error { return pods.Delete(r.ctx, "go", metav1.DeleteOptions{}) })
}

func (r round) exec(way string) error {
	options := &corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true}
	request := r.client.CoreV1().RESTClient().Post().Namespace(r.namespace).Resource("pods").Name("go").
		SubResource("exec").VersionedParams(options, scheme.ParameterCodec)
	var executor remotecommand.Executor
	var err error
	if way == "SPDY" {
		executor, err = remotecommand.NewSPDYExecutor(r.config, "POST", request.URL())
	} else {
		executor, err = remotecommand.NewWebSocketExecutor(r.config, "GET", request.URL().String())
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	var said bytes.Buffer
	streams := remotecommand.StreamOptions{Stdin: strings.NewReader("there and back"), Stdout: &said}
	if err := executor.StreamWithContext(ctx, streams); err != nil {
		return err
	}
	return expect(said.String(), "there and back")
}
