// Applycases writes what upstream's field manager makes of random applies and updates, one sequence a line:
// the golden data of crates/apimachinery/tests/apply_upstream.rs.
//
//	go run ./cmd/applycases > ../crates/apimachinery/tests/data/apply_upstream.jsonl
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/managedfields/managedfieldstest"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const thing = `{
  "type": "object",
  "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Thing"}],
  "properties": {
    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
    "metadata": {"type": "object", "properties": {
      "name": {"type": "string"}, "uid": {"type": "string"},
      "labels": {"type": "object", "additionalProperties": {"type": "string"}},
      "managedFields": {"type": "array", "items": {"type": "object", "properties": {}}}
    }},
    "spec": {"type": "object", "properties": {
      "n": {"type": "integer"},
      "text": {"type": "string"},
      "map": {"type": "object", "additionalProperties": {"type": "string"}},
      "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"}}},
      "list": {"type": "array", "items": {"type": "string"}},
      "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
      "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"],
        "items": {"type": "object", "properties": {
          "k": {"type": "integer"}, "p": {"type": "string", "default": "TCP"},
          "v": {"type": "string"}, "sub": {"type": "object", "properties": {
            "x": {"type": "string"}, "y": {"type": "string"}}}}}},
      "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
      "either": {"x-kubernetes-int-or-string": true}
    }}
  }
}`

type step struct {
	Operation string         `json:"operation"`
	Manager   string         `json:"manager"`
	Force     bool           `json:"force,omitempty"`
	Sent      map[string]any `json:"sent"`
	Error     string         `json:"error,omitempty"`
	Live      map[string]any `json:"live,omitempty"`
}

func main() {
	model := &spec.Schema{}
	if err := json.Unmarshal([]byte(thing), model); err != nil {
		log.Fatal(err)
	}
	types, err := managedfields.NewTypeConverter(map[string]*spec.Schema{"thing": model}, false)
	if err != nil {
		log.Fatal(err)
	}
	gvk := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Thing"}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for seed := int64(0); seed < 120; seed++ {
		manager := managedfieldstest.NewFakeFieldManager(types, gvk)
		if err := out.Encode(sequence(rand.New(rand.NewSource(seed)), manager)); err != nil {
			log.Fatal(err)
		}
	}
}

func sequence(r *rand.Rand, manager *managedfields.FieldManager) []step {
	live := object(nil)
	var steps []step
	for i := 0; i < 5; i++ {
		s := step{Manager: fmt.Sprintf("m%d", r.Intn(3))}
		var made runtime.Object
		var err error
		if r.Intn(3) > 0 {
			s.Operation = "Apply"
			s.Force = r.Intn(3) == 0
			sent := object(map[string]any{"name": "x"})
			if value := value(r, true); value != nil || r.Intn(2) == 0 {
				sent.Object["spec"] = value
			}
			if sent.Object["spec"] == nil {
				delete(sent.Object, "spec")
			}
			s.Sent = copied(sent.Object)
			made, err = manager.Apply(live.DeepCopy(), sent, s.Manager, s.Force)
		} else {
			s.Operation = "Update"
			sent := live.DeepCopy()
			metadata, _ := sent.Object["metadata"].(map[string]any)
			if metadata == nil {
				metadata = map[string]any{"name": "x"}
				sent.Object["metadata"] = metadata
			}
			old, _ := sent.Object["spec"].(map[string]any)
			sent.Object["spec"] = changed(r, old)
			s.Sent = copied(sent.Object)
			made, err = manager.Update(live.DeepCopy(), sent, s.Manager)
		}
		if err != nil {
			s.Error = err.Error()
		} else {
			live = made.(*unstructured.Unstructured)
			metadata, _ := live.Object["metadata"].(map[string]any)
			if metadata == nil {
				metadata = map[string]any{}
				live.Object["metadata"] = metadata
			}
			metadata["uid"] = "1"
			// Times are of this run: every entry that has one gets the same.
			if list, ok := metadata["managedFields"].([]any); ok {
				for _, entry := range list {
					if e := entry.(map[string]any); e["time"] != nil {
						e["time"] = "2023-01-01T00:00:00Z"
					}
				}
				sort.SliceStable(list, func(i, j int) bool { return order(list[i]) < order(list[j]) })
			}
			s.Live = copied(live.Object)
		}
		steps = append(steps, s)
	}
	return steps
}

// order is upstream's, for entries of one second.
func order(entry any) string {
	e := entry.(map[string]any)
	return fmt.Sprint(e["operation"], e["time"] != nil, e["manager"])
}

func object(metadata map[string]any) *unstructured.Unstructured {
	o := map[string]any{"apiVersion": "example.com/v1", "kind": "Thing"}
	if metadata != nil {
		o["metadata"] = metadata
	}
	return &unstructured.Unstructured{Object: o}
}

func copied(o map[string]any) map[string]any { return runtime.DeepCopyJSON(o) }

func text(r *rand.Rand) string { return string(rune('a' + r.Intn(3))) }

// texts are different from each other when the list has to be a set, most of the time.
func texts(r *rand.Rand, set bool) []any {
	list := []any{}
	seen := map[string]bool{}
	for i := r.Intn(4); i > 0; i-- {
		t := text(r)
		if set && seen[t] && r.Intn(40) > 0 {
			continue
		}
		seen[t] = true
		list = append(list, t)
	}
	return list
}

func textMap(r *rand.Rand) map[string]any {
	m := map[string]any{}
	for i := r.Intn(3); i > 0; i-- {
		m[text(r)] = text(r)
	}
	return m
}

func field(r *rand.Rand, name string) any {
	if r.Intn(25) == 0 {
		return nil
	}
	switch name {
	case "n":
		return int64(r.Intn(3))
	case "text":
		return text(r)
	case "map":
		return textMap(r)
	case "atom":
		m := map[string]any{}
		for _, k := range []string{"a", "b"} {
			if r.Intn(2) == 0 {
				m[k] = text(r)
			}
		}
		return m
	case "list":
		return texts(r, false)
	case "set":
		return texts(r, true)
	case "items":
		list := []any{}
		seen := map[string]bool{}
		for i := r.Intn(4); i > 0; i-- {
			item := map[string]any{"k": int64(r.Intn(3))}
			key := fmt.Sprint(item["k"])
			switch r.Intn(4) {
			case 0:
				item["p"] = "UDP"
				key += "UDP"
			case 1:
				item["p"] = "TCP"
			}
			if seen[key] && r.Intn(40) > 0 {
				continue
			}
			seen[key] = true
			if r.Intn(2) == 0 {
				item["v"] = text(r)
			}
			if r.Intn(3) == 0 {
				sub := map[string]any{}
				for _, k := range []string{"x", "y"} {
					if r.Intn(2) == 0 {
						sub[k] = text(r)
					}
				}
				item["sub"] = sub
			}
			list = append(list, item)
		}
		return list
	case "any":
		switch r.Intn(3) {
		case 0:
			return map[string]any{"q": text(r), "l": texts(r, false)}
		case 1:
			return map[string]any{"m": map[string]any{text(r): int64(1)}}
		default:
			return map[string]any{"q": map[string]any{"deep": text(r)}}
		}
	default:
		if r.Intn(2) == 0 {
			return int64(r.Intn(2))
		}
		return text(r)
	}
}

var names = []string{"n", "text", "map", "atom", "list", "set", "items", "any", "either"}

func value(r *rand.Rand, some bool) map[string]any {
	m := map[string]any{}
	for _, name := range names {
		if r.Intn(3) == 0 {
			m[name] = field(r, name)
		}
	}
	if r.Intn(60) == 0 {
		m["unknown"] = "x"
	}
	return m
}

func changed(r *rand.Rand, old map[string]any) map[string]any {
	m := map[string]any{}
	for k, v := range old {
		m[k] = v
	}
	for i := 1 + r.Intn(3); i > 0; i-- {
		name := names[r.Intn(len(names))]
		if r.Intn(4) == 0 {
			delete(m, name)
		} else {
			m[name] = field(r, name)
		}
	}
	return m
}
