// Answercases writes what upstream says of faulty and odd objects, one case a line: the golden data of
// crates/kinds/tests/upstream_rules.rs. The objects are in cases.yaml and extensions.yaml.
//
//	go run ./cmd/answercases > ../crates/kinds/tests/data/upstream_rules.jsonl
//	go run ./cmd/answercases extensions > ../crates/kinds/tests/data/upstream_extensions.jsonl
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"log"
	"os"
	"sort"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes/fake"
	apiregistration "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/apps/replicaset"
	"k8s.io/kubernetes/pkg/registry/apps/statefulset"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/batch/cronjob"
	"k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/kubernetes/pkg/registry/coordination/lease"
	"k8s.io/kubernetes/pkg/registry/core/endpoint"
	"k8s.io/kubernetes/pkg/registry/core/limitrange"
	"k8s.io/kubernetes/pkg/registry/core/namespace"
	"k8s.io/kubernetes/pkg/registry/core/node"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolume"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/podtemplate"
	"k8s.io/kubernetes/pkg/registry/core/replicationcontroller"
	"k8s.io/kubernetes/pkg/registry/core/resourcequota"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/discovery/endpointslice"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/ingressclass"
	"k8s.io/kubernetes/pkg/registry/networking/ipaddress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/networking/servicecidr"
	"k8s.io/kubernetes/pkg/registry/node/runtimeclass"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrole"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrolebinding"
	"k8s.io/kubernetes/pkg/registry/rbac/role"
	"k8s.io/kubernetes/pkg/registry/rbac/rolebinding"
	"k8s.io/kubernetes/pkg/registry/resource/deviceclass"
	"k8s.io/kubernetes/pkg/registry/resource/devicetaintrule"
	"k8s.io/kubernetes/pkg/registry/resource/resourceclaim"
	"k8s.io/kubernetes/pkg/registry/resource/resourceclaimtemplate"
	"k8s.io/kubernetes/pkg/registry/resource/resourceslice"
	"k8s.io/kubernetes/pkg/registry/scheduling/priorityclass"
	"k8s.io/kubernetes/pkg/registry/storage/csidriver"
	"k8s.io/kubernetes/pkg/registry/storage/csinode"
	"k8s.io/kubernetes/pkg/registry/storage/csistoragecapacity"
	"k8s.io/kubernetes/pkg/registry/storage/storageclass"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattachment"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattributesclass"
	"sigs.k8s.io/yaml"
)

//go:embed cases.yaml
var cases []byte

//go:embed extensions.yaml
var extensions []byte
// Whoever may see an object may do everything: what is asked here is the form of objects.
type everybody struct{}

func (everybody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionAllow, "", nil
}

// Namespaces, one of them for administrators of devices.
var namespaces = fake.NewClientset(
	&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "b"}},
).CoreV1().Namespaces()

var (
	claims    = resourceclaim.NewStrategy(namespaces, everybody{})
	templates = resourceclaimtemplate.NewStrategy(namespaces)
)

type kind struct {
	group, plural string
	create        rest.RESTCreateStrategy
	update        rest.RESTUpdateStrategy
	status        rest.RESTUpdateStrategy
}

var kinds = map[string]kind{
	"ClusterRole":             {"rbac.authorization.k8s.io", "clusterroles", clusterrole.Strategy, clusterrole.Strategy, nil},
	"ClusterRoleBinding":      {"rbac.authorization.k8s.io", "clusterrolebindings", clusterrolebinding.Strategy, clusterrolebinding.Strategy, nil},
	"CronJob":                 {"batch", "cronjobs", cronjob.Strategy, cronjob.Strategy, cronjob.StatusStrategy},
	"DaemonSet":               {"apps", "daemonsets", daemonset.Strategy, daemonset.Strategy, daemonset.StatusStrategy},
	"Deployment":              {"apps", "deployments", deployment.Strategy, deployment.Strategy, deployment.StatusStrategy},
	"EndpointSlice":           {"discovery.k8s.io", "endpointslices", endpointslice.Strategy, endpointslice.Strategy, nil},
	"Endpoints":               {"", "endpoints", endpoint.Strategy, endpoint.Strategy, nil},
	"HorizontalPodAutoscaler": {"autoscaling", "horizontalpodautoscalers", horizontalpodautoscaler.Strategy, horizontalpodautoscaler.Strategy, horizontalpodautoscaler.StatusStrategy},
	"Ingress":                 {"networking.k8s.io", "ingresses", ingress.Strategy, ingress.Strategy, ingress.StatusStrategy},
	"IngressClass":            {"networking.k8s.io", "ingressclasses", ingressclass.Strategy, ingressclass.Strategy, nil},
	"NetworkPolicy":           {"networking.k8s.io", "networkpolicies", networkpolicy.Strategy, networkpolicy.Strategy, nil},
	"Job":                     {"batch", "jobs", job.Strategy, job.Strategy, job.StatusStrategy},
	"Lease":                   {"coordination.k8s.io", "leases", lease.Strategy, lease.Strategy, nil},
	"LimitRange":              {"", "limitranges", limitrange.Strategy, limitrange.Strategy, nil},
	"Namespace":               {"", "namespaces", namespace.Strategy, namespace.Strategy, namespace.StatusStrategy},
	"Node":                    {"", "nodes", node.Strategy, node.Strategy, node.StatusStrategy},
	"PersistentVolume":        {"", "persistentvolumes", persistentvolume.Strategy, persistentvolume.Strategy, persistentvolume.StatusStrategy},
	"PersistentVolumeClaim":   {"", "persistentvolumeclaims", persistentvolumeclaim.Strategy, persistentvolumeclaim.Strategy, persistentvolumeclaim.StatusStrategy},
	"Pod":                     {"", "pods", pod.Strategy, pod.Strategy, pod.StatusStrategy},
	"PodDisruptionBudget":     {"policy", "poddisruptionbudgets", poddisruptionbudget.Strategy, poddisruptionbudget.Strategy, poddisruptionbudget.StatusStrategy},
	"PodTemplate":             {"", "podtemplates", podtemplate.Strategy, podtemplate.Strategy, nil},
	"PriorityClass":           {"scheduling.k8s.io", "priorityclasses", priorityclass.Strategy, priorityclass.Strategy, nil},
	"ReplicaSet":              {"apps", "replicasets", replicaset.Strategy, replicaset.Strategy, replicaset.StatusStrategy},
	"ReplicationController":   {"", "replicationcontrollers", replicationcontroller.Strategy, replicationcontroller.Strategy, replicationcontroller.StatusStrategy},
	"ResourceQuota":           {"", "resourcequotas", resourcequota.Strategy, resourcequota.Strategy, resourcequota.StatusStrategy},
	"Role":                    {"rbac.authorization.k8s.io", "roles", role.Strategy, role.Strategy, nil},
	"RoleBinding":             {"rbac.authorization.k8s.io", "rolebindings", rolebinding.Strategy, rolebinding.Strategy, nil},
	"Service":                 {"", "services", service.Strategy, service.Strategy, service.StatusStrategy},
	"ServiceAccount":          {"", "serviceaccounts", serviceaccount.Strategy, serviceaccount.Strategy, nil},
	"StatefulSet":             {"apps", "statefulsets", statefulset.Strategy, statefulset.Strategy, statefulset.StatusStrategy},
	"CSIDriver":               {"storage.k8s.io", "csidrivers", csidriver.Strategy, csidriver.Strategy, nil},
	"CSINode":                 {"storage.k8s.io", "csinodes", csinode.Strategy, csinode.Strategy, csinode.StatusStrategy},
	"CSIStorageCapacity":      {"storage.k8s.io", "csistoragecapacities", csistoragecapacity.Strategy, csistoragecapacity.Strategy, nil},
	"DeviceClass":             {"resource.k8s.io", "deviceclasses", deviceclass.Strategy, deviceclass.Strategy, nil},
	"DeviceTaintRule":         {"resource.k8s.io", "devicetaintrules", devicetaintrule.Strategy, devicetaintrule.Strategy, devicetaintrule.StatusStrategy},
	"IPAddress":               {"networking.k8s.io", "ipaddresses", ipaddress.Strategy, ipaddress.Strategy, nil},
	"ResourceClaim":           {"resource.k8s.io", "resourceclaims", claims, claims, resourceclaim.NewStatusStrategy(claims)},
	"ResourceClaimTemplate":   {"resource.k8s.io", "resourceclaimtemplates", templates, templates, nil},
	"ResourceSlice":           {"resource.k8s.io", "resourceslices", resourceslice.Strategy, resourceslice.Strategy, nil},
	"RuntimeClass":            {"node.k8s.io", "runtimeclasses", runtimeclass.Strategy, runtimeclass.Strategy, nil},
	"ServiceCIDR":             {"networking.k8s.io", "servicecidrs", servicecidr.Strategy, servicecidr.Strategy, servicecidr.StatusStrategy},
	"VolumeAttachment":        {"storage.k8s.io", "volumeattachments", volumeattachment.Strategy, volumeattachment.Strategy, volumeattachment.StatusStrategy},
	"VolumeAttributesClass":   {"storage.k8s.io", "volumeattributesclasses", volumeattributesclass.Strategy, volumeattributesclass.Strategy, nil},
	"StorageClass":            {"storage.k8s.io", "storageclasses", storageclass.Strategy, storageclass.Strategy, nil},
}

// Strategies of the subresource approval.
var approvals = map[string]rest.RESTUpdateStrategy{}

type input struct {
	Subresource string          `json:"subresource,omitempty"`
	Old         json.RawMessage `json:"old,omitempty"`
	Object      json.RawMessage `json:"object"`
}

type answer struct {
	Group       string          `json:"group"`
	Plural      string          `json:"plural"`
	Subresource string          `json:"subresource,omitempty"`
	Old         json.RawMessage `json:"old,omitempty"`
	Object      json.RawMessage `json:"object"`
	Causes      []string        `json:"causes"`
	Warnings    []string        `json:"warnings"`
}

// decode reads a versioned object, defaults it and gives the internal form.
func decode(raw []byte) (runtime.Object, *schema.GroupVersionKind) {
	object, gvk, err := legacyscheme.Codecs.UniversalDecoder().Decode(raw, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		object, gvk, err = apiregistration.Codecs.UniversalDecoder().Decode(raw, nil, nil)
	}
	if err != nil {
		log.Fatalf("%v\n%s", err, raw)
	}
	return object, gvk
}

func accessor(object runtime.Object) metav1.Object {
	metadata, err := meta.Accessor(object)
	if err != nil {
		log.Fatal(err)
	}
	return metadata
}

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	asked := cases
	if len(os.Args) > 1 && os.Args[1] == "extensions" {
		asked = extensions
	}
	for _, document := range bytes.Split(asked, []byte("\n---\n")) {
		var given input
		if err := yaml.UnmarshalStrict(document, &given); err != nil {
			log.Fatalf("%v\n%s", err, document)
		}
		if err := out.Encode(ask(given)); err != nil {
			log.Fatal(err)
		}
	}
}

func ask(given input) answer {
	object, gvk := decode(given.Object)
	name, version := gvk.Kind, gvk.Version
	kind, known := kinds[name]
	if !known {
		log.Fatalf("no strategy of %s", name)
	}
	metadata := accessor(object)
	ctx := genericrequest.WithNamespace(context.Background(), metadata.GetNamespace())
	ctx = genericrequest.WithUser(ctx, &user.DefaultInfo{Name: "jane"})
	ctx = genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{
		APIGroup: kind.group, APIVersion: version, Resource: kind.plural, Subresource: given.Subresource,
		Namespace: metadata.GetNamespace(), Name: metadata.GetName(),
	})
	var errors field.ErrorList
	var warnings []string
	if given.Old == nil {
		metadata.SetUID(types.UID("3c1b"))
		metadata.SetCreationTimestamp(metav1.Unix(1700000000, 0))
		kind.create.PrepareForCreate(ctx, object)
		errors = rest.ValidateCreate(ctx, object, kind.create)
		if len(errors) == 0 {
			warnings = kind.create.WarningsOnCreate(ctx, object)
		}
	} else {
		old, _ := decode(given.Old)
		for _, metadata := range []metav1.Object{metadata, accessor(old)} {
			metadata.SetUID(types.UID("3c1b"))
			metadata.SetCreationTimestamp(metav1.Unix(1700000000, 0))
			metadata.SetResourceVersion("7")
		}
		strategy := kind.update
		switch given.Subresource {
		case "status":
			strategy = kind.status
		case "approval":
			strategy = approvals[name]
		}
		strategy.PrepareForUpdate(ctx, object, old)
		errors = rest.ValidateUpdate(ctx, object, old, strategy)
		if len(errors) == 0 {
			warnings = strategy.WarningsOnUpdate(ctx, object, old)
		}
	}
	result := answer{
		Group: kind.group, Plural: kind.plural, Subresource: given.Subresource, Old: given.Old, Object: given.Object,
		Causes: []string{}, Warnings: warnings,
	}
	for _, err := range errors {
		result.Causes = append(result.Causes, err.Error())
	}
	if result.Warnings == nil {
		result.Warnings = []string{}
	}
	sort.Strings(result.Causes)
	sort.Strings(result.Warnings)
	return result
}
