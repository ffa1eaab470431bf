// Command podstart measures what a user waits for: from the create of a pod to
// Running as a watch shows it, one pod after another and many at once, and from
// the delete to the DELETED event. The image has to be on the node.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sort"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "path of the kubeconfig")
	namespace  = flag.String("namespace", "default", "namespace of the pods")
	image      = flag.String("image", "", "an image with sleep, present on the node")
	singles    = flag.Int("singles", 30, "pods started one after another")
	burst      = flag.Int("burst", 100, "pods started at once")
	timeout    = flag.Duration("timeout", 5*time.Minute, "limit of the whole run")
)

type result struct {
	What  string  `json:"what"`
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Last  float64 `json:"last_ms"`
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "podstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var started, gone []float64
	for i := 0; i < *singles; i++ {
		up, down, err := round(ctx, client, fmt.Sprintf("single-%d-", i), 1)
		if err != nil {
			return err
		}
		started, gone = append(started, up...), append(gone, down...)
	}
	report("one pod: create to Running", started)
	report("one pod: delete to gone", gone)
	up, down, err := round(ctx, client, "burst-", *burst)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("%d pods at once: create to Running", *burst), up)
	report(fmt.Sprintf("%d pods at once: delete to gone", *burst), down)
	return nil
}

// round creates pods, waits until the watch has shown each of them Running,
// deletes them with one second of grace, and waits until each is gone. It
// returns milliseconds from the first request of each half.
func round(ctx context.Context, client kubernetes.Interface, prefix string, count int) (up, down []float64, err error) {
	pods := client.CoreV1().Pods(*namespace)
	list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, nil, err
	}
	watcher, err := pods.Watch(ctx, metav1.ListOptions{
		ResourceVersion: list.ResourceVersion, LabelSelector: "podstart=" + prefix + "x",
	})
	if err != nil {
		return nil, nil, err
	}
	defer watcher.Stop()
	begin := time.Now()
	failed := make(chan error, count)
	for i := 0; i < count; i++ {
		go func() {
			_, err := pods.Create(ctx, pod(prefix, i), metav1.CreateOptions{})
			failed <- err
		}()
	}
	running := map[string]bool{}
	for len(running) < count {
		select {
		case err := <-failed:
			if err != nil {
				return nil, nil, err
			}
		case event, open := <-watcher.ResultChan():
			if !open {
				return nil, nil, fmt.Errorf("the watch ended")
			}
			seen, isPod := event.Object.(*corev1.Pod)
			if isPod && seen.Status.Phase == corev1.PodRunning && !running[seen.Name] {
				running[seen.Name] = true
				up = append(up, since(begin))
			}
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%d of %d pods run: %w", len(running), count, ctx.Err())
		}
	}
	begin = time.Now()
	grace := int64(1)
	go func() {
		failed <- pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace},
			metav1.ListOptions{LabelSelector: "podstart=" + prefix + "x"})
	}()
	for len(down) < count {
		select {
		case err := <-failed:
			if err != nil {
				return nil, nil, err
			}
		case event, open := <-watcher.ResultChan():
			if !open {
				return nil, nil, fmt.Errorf("the watch ended")
			}
			if event.Type == watch.Deleted {
				down = append(down, since(begin))
			}
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%d of %d pods are gone: %w", len(down), count, ctx.Err())
		}
	}
	return up, down, nil
}

func pod(prefix string, i int) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("%s%d", prefix, i),
			Labels: map[string]string{"podstart": prefix + "x"},
		},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "main", Image: *image, ImagePullPolicy: corev1.PullIfNotPresent,
				// A shell that ends at once when it is told to.
				Command: []string{"sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"},
			}},
		},
	}
}

func report(what string, all []float64) {
	sort.Float64s(all)
	if len(all) == 0 {
		return
	}
	line := result{What: what, Count: len(all), P50: all[(len(all)-1)/2], P99: all[(len(all)-1)*99/100], Last: all[len(all)-1]}
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func since(begin time.Time) float64 { return float64(time.Since(begin).Microseconds()) / 1000 }
