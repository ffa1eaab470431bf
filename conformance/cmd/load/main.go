// Command load puts the same work on a Kubernetes API server as any other and
// prints, as JSON, how long it took: durable creates by many clients, a list of
// everything, and a watch fan-out. It is an ordinary client-go program without
// client-side rate limits. It shares the machine with the server, so it does only
// what a client must: bodies are encoded before the clock starts, and answers are
// read whole but not decoded, for every server alike.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const namespace = "load"

var (
	kubeconfig = flag.String("kubeconfig", "", "path of the kubeconfig")
	protobuf   = flag.Bool("protobuf", false, "speak protobuf instead of JSON")
	pods       = flag.Int("pods", 10000, "pods to create")
	clients    = flag.Int("clients", 64, "clients that create")
	watchers   = flag.Int("watchers", 1000, "watches of the fan-out")
	events     = flag.Int("events", 100, "events of the fan-out")
	lists      = flag.Int("lists", 5, "lists of everything; the median counts")
	pids       = flag.String("pids", "", "processes of the server, for its CPU time: 1,2")
)

// result is one line of output. Seconds are wall time, CPU seconds the server's.
type result struct {
	What    string  `json:"what"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"`
	P50     float64 `json:"p50_ms,omitempty"`
	P99     float64 `json:"p99_ms,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	CPU     float64 `json:"server_cpu_seconds"`
	RSS     int64   `json:"server_rss_bytes"`
}

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	// client-go's typed clients would choose protobuf by themselves.
	config.ContentType, config.AcceptContentTypes = contentType(), contentType()
	return config, nil
}

func contentType() string {
	if *protobuf {
		return runtime.ContentTypeProtobuf
	}
	return runtime.ContentTypeJSON
}

// encoded is the object as a client of the chosen content type sends it.
func encoded(object runtime.Object) ([]byte, error) {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType())
	if !ok {
		return nil, fmt.Errorf("no serializer for %s", contentType())
	}
	return runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), object)
}

func run(ctx context.Context) error {
	cfg, err := config()
	if err != nil {
		return err
	}
	first, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := first.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	// A controller may have been faster.
	_, _ = first.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	for _, part := range []func(context.Context, *rest.Config) (result, error){creates, list, fanOut} {
		before := serverCPU()
		line, err := part(ctx, cfg)
		if err != nil {
			return err
		}
		line.CPU = serverCPU() - before
		line.RSS = serverRSS()
		if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// pod is some 1.5 kB of JSON, as a small service has it.
func pod(i int) *corev1.Pod {
	quantities := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("100m"),
		corev1.ResourceMemory: resource.MustParse("128Mi"),
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("load-%06d", i),
			Labels: map[string]string{"app": "load", "part": strconv.Itoa(i % 100)},
		},
		Spec: corev1.PodSpec{
			// No scheduler of either side takes it up.
			SchedulerName: "nobody",
			Containers: []corev1.Container{{
				Name:      "main",
				Image:     "registry.example.com/team/service:1",
				Env:       []corev1.EnvVar{{Name: "MODE", Value: "production"}},
				Ports:     []corev1.ContainerPort{{ContainerPort: 8080}},
				Resources: corev1.ResourceRequirements{Requests: quantities, Limits: quantities},
			}},
		},
	}
}

func creates(ctx context.Context, cfg *rest.Config) (result, error) {
	bodies := make([][]byte, *pods)
	for i := range bodies {
		var err error
		if bodies[i], err = encoded(pod(i)); err != nil {
			return result{}, err
		}
	}
	var next atomic.Int64
	var group sync.WaitGroup
	took := make([][]float64, *clients)
	failed := make([]error, *clients)
	begin := time.Now()
	for c := 0; c < *clients; c++ {
		// Every client has connections of its own.
		own := rest.CopyConfig(cfg)
		own.Dial = nil
		client, err := kubernetes.NewForConfig(own)
		if err != nil {
			return result{}, err
		}
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= *pods {
					return
				}
				start := time.Now()
				request := client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Body(bodies[i])
				if _, err := request.SetHeader("Content-Type", contentType()).DoRaw(ctx); err != nil {
					failed[c] = err
					return
				}
				took[c] = append(took[c], ms(start))
			}
		}()
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	for _, err := range failed {
		if err != nil {
			return result{}, err
		}
	}
	var all []float64
	for _, part := range took {
		all = append(all, part...)
	}
	sort.Float64s(all)
	return result{What: "create pods", Count: *pods, Seconds: seconds, Rate: float64(*pods) / seconds,
		P50: percentile(all, 50), P99: percentile(all, 99)}, nil
}

// list reads the raw bytes, so that the client's own decoding does not count.
func list(ctx context.Context, cfg *rest.Config) (result, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return result{}, err
	}
	var all []float64
	var size int64
	for i := 0; i < *lists; i++ {
		start := time.Now()
		stream, err := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").
			Param("resourceVersion", "0").SetHeader("Accept", contentType()).Stream(ctx)
		if err != nil {
			return result{}, err
		}
		size, err = io.Copy(io.Discard, stream)
		stream.Close()
		if err != nil {
			return result{}, err
		}
		all = append(all, ms(start))
	}
	sort.Float64s(all)
	median := percentile(all, 50)
	return result{What: "list pods", Count: *lists, Seconds: median / 1000, Rate: 1000 / median, P50: median,
		P99: percentile(all, 99), Bytes: size}, nil
}

// fanOut counts the events by their newlines, in JSON whatever the rest speaks:
// decoding a hundred thousand objects would measure the client.
func fanOut(ctx context.Context, cfg *rest.Config) (result, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return result{}, err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	existing, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	failed := make(chan error, *watchers)
	const perConnection = 50
	var shared *kubernetes.Clientset
	for i := 0; i < *watchers; i++ {
		if i%perConnection == 0 {
			own := rest.CopyConfig(cfg)
			if shared, err = kubernetes.NewForConfig(own); err != nil {
				return result{}, err
			}
		}
		stream, err := shared.CoreV1().RESTClient().Get().Namespace(namespace).Resource("configmaps").
			Param("watch", "true").Param("resourceVersion", existing.ResourceVersion).
			SetHeader("Accept", "application/json").Stream(ctx)
		if err != nil {
			return result{}, err
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer stream.Close()
			buffer := make([]byte, 64<<10)
			for seen := 0; seen < *events; {
				n, err := stream.Read(buffer)
				seen += bytes.Count(buffer[:n], []byte{'\n'})
				if err != nil {
					if seen < *events {
						failed <- fmt.Errorf("a watch ended after %d events: %w", seen, err)
					}
					return
				}
			}
		}()
	}
	begin := time.Now()
	for i := 0; i < *events; i++ {
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("event-%d", i)},
			Data:       map[string]string{"payload": strings.Repeat("x", 500)},
		}
		if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return result{}, err
		}
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	select {
	case err := <-failed:
		return result{}, err
	default:
	}
	total := *watchers * *events
	return result{What: "watch events", Count: total, Seconds: seconds, Rate: float64(total) / seconds}, nil
}

func ms(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

func percentile(sorted []float64, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100]
}

// serverCPU sums user and system time of the given processes (proc(5)).
func serverCPU() float64 {
	const ticks = 100
	total := 0.0
	for _, pid := range strings.FieldsFunc(*pids, func(r rune) bool { return r == ',' }) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, i := range []int{11, 12} {
			value, _ := strconv.ParseFloat(fields[i], 64)
			total += value / ticks
		}
	}
	return total
}

func serverRSS() int64 {
	var total int64
	for _, pid := range strings.FieldsFunc(*pids, func(r rune) bool { return r == ',' }) {
		statm, err := os.ReadFile("/proc/" + pid + "/statm")
		if err != nil {
			continue
		}
		pages, _ := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
		total += pages * int64(os.Getpagesize())
	}
	return total
}
