// Protobufcases writes sparse objects and upstream's protobuf form of each, one a line: the golden data of
// crates/kinds/tests/upstream_protobuf.rs. They show what is written for fields that are not there.
//
//	go run ./cmd/protobufcases > ../crates/kinds/tests/data/upstream_protobuf.jsonl
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/controlplane"
)

var objects = []string{
	`{"apiVersion":"v1","kind":"Pod"}`,
	`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":null,"deletionTimestamp":"2026-01-02T03:04:05Z","labels":{"b":"","a":"x"},"managedFields":[{"manager":"m","operation":"Update","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}}}]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A"},{"name":"B","valueFrom":{"resourceFieldRef":{"resource":"limits.cpu"}}}],"resources":{"limits":{"cpu":"100m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":"web"}},"readinessProbe":{"tcpSocket":{"port":80}},"lifecycle":{"preStop":{"sleep":{"seconds":-3}}}}],"volumes":[{"name":"v","emptyDir":{}},{"name":"w","configMap":{"name":"m","optional":false}}],"tolerations":[{"key":"a","tolerationSeconds":0}]},"status":{"startTime":"2026-01-02T03:04:05Z","conditions":[{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:05Z"}],"containerStatuses":[{"name":"c","ready":false,"restartCount":0,"image":"i","imageID":"","lastState":{},"state":{"running":{"startedAt":null}}}]}}`,
	`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":""},"binaryData":{"b":"AAE="}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"e":"","b":"AAE="},"immutable":false}`,
	`{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"},"status":{"capacity":{"pods":"110","cpu":"4"},"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}}}}`,
	`{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80,"targetPort":0},{"port":81,"targetPort":"web"}]}}`,
	`{"apiVersion":"v1","kind":"Event","metadata":{"name":"a"},"involvedObject":{"kind":"Pod"},"eventTime":"2026-01-02T03:04:05.678901Z","count":-1}`,
	`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"a"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1536Mi"}}}}`,
	`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":0,"selector":{"matchExpressions":[{"key":"a","operator":"Exists"}]},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"template":{}},"status":{}}`,
	`{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"a"},"data":{"spec":{"a":[1,2.5,"x"]}},"revision":3}`,
	`{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"a"},"revision":0}`,
	`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"a"},"spec":{"template":{}}}`,
	`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"holderIdentity":"","renewTime":"2026-01-02T03:04:05.000001Z"}}`,
	`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":false}}],"ports":[{"port":80}]}`,
	`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"a"},"rules":null}`,
	`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"a","extra":{"k":["x","y"],"e":[]}}}`,
	`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"a"},"status":{"disruptedPods":{"p":"2026-01-02T03:04:05Z"}}}`,
	`{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"a"},"spec":{},"status":{"replicas":2,"selector":"a=b"}}`,
	`{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"a"},"provisioner":"p","parameters":{"z":"1","a":"2"}}`,
	`{"apiVersion":"v1","kind":"Status","metadata":{},"status":"Failure","message":"m","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}`,
	`{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"7","continue":"x","remainingItemCount":3},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`,
}

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	encoder := protobuf.NewSerializer(legacyscheme.Scheme, legacyscheme.Scheme)
	for _, text := range objects {
		object, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode([]byte(text), nil, nil)
		if err != nil {
			log.Fatalf("%v\n%s", err, text)
		}
		var encoded bytes.Buffer
		if err := encoder.Encode(object, &encoded); err != nil {
			log.Fatalf("%v\n%s", err, text)
		}
		line := struct {
			Object   json.RawMessage `json:"object"`
			Protobuf []byte          `json:"protobuf"`
		}{json.RawMessage(text), encoded.Bytes()}
		if err := out.Encode(line); err != nil {
			log.Fatal(err)
		}
	}
}
