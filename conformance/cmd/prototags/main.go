// Command prototags prints, as JSON, what only the Go types of Kubernetes know
// about their fields: the order, the JSON name, the Go type, whether an empty
// value is encoded, and the protobuf tag. It walks every type that the client
// scheme, apiextensions/v1 and apiregistration/v1 register.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// field is one JSON field of a struct; embedded structs are flattened.
type field struct {
	// Name is the JSON name.
	Name string `json:"name"`
	// Type is a scalar word (string, int32, time, quantity …) or the name of a
	// struct, below any number of "[]" and "{}" (a map with string keys).
	Type string `json:"type"`
	// Tag holds the protobuf field numbers, outermost first: "2.1" is field 1
	// of a message that JSON flattens. Empty if the type has no protobuf form.
	Tag string `json:"tag,omitempty"`
	// Always is what an empty value is encoded as; absent if it is left out.
	Always *string `json:"always,omitempty"`
	// Pointer is true for pointers: absent and zero differ.
	Pointer bool `json:"pointer,omitempty"`
	// Go is the type as Go prints it, where a name in it is no struct's:
	// v1.RestartPolicy, []v1.FinalizerName.
	Go string `json:"go,omitempty"`
	// In names the embedded structs that have the field, outermost first.
	In string `json:"in,omitempty"`
	// Patch and Key are the strategic merge patch tags.
	Patch string `json:"patch,omitempty"`
	Key   string `json:"key,omitempty"`
}

// structs maps the OpenAPI name of a struct to its fields, in Go's order.
var structs = map[string][]field{}

// words are the types that JSON does not show as the struct they are in Go.
var words = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "object",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "intstr",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "object",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "any",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "schemaorlist",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "schemaorbool",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "schemaorstrings",
}

// openAPIName turns k8s.io/api/core/v1.Pod into io.k8s.api.core.v1.Pod.
func openAPIName(t reflect.Type) string {
	path := strings.Split(t.PkgPath(), "/")
	host := strings.Split(path[0], ".")
	for i, j := 0, len(host)-1; i < j; i, j = i+1, j-1 {
		host[i], host[j] = host[j], host[i]
	}
	return strings.Join(append(append(host, path[1:]...), t.Name()), ".")
}

func typeOf(t reflect.Type) string {
	if word, ok := words[t.PkgPath()+"."+t.Name()]; ok {
		return word
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeOf(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + typeOf(t.Elem())
	case reflect.Map:
		return "{}" + typeOf(t.Elem())
	case reflect.Struct:
		walk(t)
		return openAPIName(t)
	case reflect.Interface:
		return "any"
	default:
		return t.Kind().String()
	}
}

// always is what encoding/json writes for the zero value of a field without
// omitempty; a struct by value is written in spite of omitempty.
func always(t reflect.Type, omitEmpty, omitZero bool) *string {
	text := ""
	switch kind := t.Kind(); {
	case omitZero:
		return nil
	case kind == reflect.Struct:
		switch typeOf(t) {
		case "time", "microtime":
			text = "null"
		case "quantity":
			text = `"0"`
		case "intstr":
			text = "0"
		case "duration":
			text = `"0s"`
		case "object", "any":
			text = "null"
		default:
			text = "{}"
		}
	case omitEmpty:
		return nil
	case kind == reflect.Pointer || kind == reflect.Slice || kind == reflect.Map || kind == reflect.Interface:
		text = "null"
	case kind == reflect.String:
		text = `""`
	case kind == reflect.Bool:
		text = "false"
	default:
		text = "0"
	}
	return &text
}

// named tells whether t, or what it holds, has a name that typeOf does not keep.
func named(t reflect.Type) bool {
	if _, ok := words[t.PkgPath()+"."+t.Name()]; ok || t.Kind() == reflect.Struct {
		return false
	}
	if t.PkgPath() != "" {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return named(t.Elem())
	case reflect.Map:
		return named(t.Key()) || named(t.Elem())
	}
	return false
}

// goName is the type of a field in errors of decoding: what it points to.
func goName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if !named(t) {
		return ""
	}
	return t.String()
}

func fieldsOf(t reflect.Type, prefix, in string) []field {
	out := []field{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		tag := ""
		if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 1 {
			tag = prefix + parts[1]
		}
		if name == "" && f.Anonymous {
			if f.Type.Name() == "TypeMeta" {
				out = append(out, field{Name: "kind", Type: "string"}, field{Name: "apiVersion", Type: "string"})
				continue
			}
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if tag != "" {
				tag += "."
			}
			out = append(out, fieldsOf(inner, tag, strings.TrimPrefix(in+"."+f.Name, "."))...)
			continue
		}
		if name == "" {
			name = f.Name
		}
		// A list with a name of its own is a message with its items at field 1.
		if _, named := reflect.PointerTo(f.Type).MethodByName("Marshal"); named && f.Type.Kind() == reflect.Slice && tag != "" {
			tag += ".1"
		}
		out = append(out, field{
			Name: name, Type: typeOf(f.Type), Tag: tag,
			Always:  always(f.Type, strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")),
			Pointer: f.Type.Kind() == reflect.Pointer,
			Go:      goName(f.Type), In: in,
			Patch:   f.Tag.Get("patchStrategy"), Key: f.Tag.Get("patchMergeKey"),
		})
	}
	return out
}

func walk(t reflect.Type) {
	name := openAPIName(t)
	if _, seen := structs[name]; seen {
		return
	}
	structs[name] = nil // recursion ends here
	structs[name] = fieldsOf(t, "", "")
}

func main() {
	for _, s := range []*runtime.Scheme{scheme.Scheme} {
		for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme} {
			if err := add(s); err != nil {
				panic(err)
			}
		}
		kinds := s.AllKnownTypes()
		var order []string
		types := map[string]reflect.Type{}
		for gvk, t := range kinds {
			order = append(order, gvk.String())
			types[gvk.String()] = t
		}
		sort.Strings(order)
		for _, key := range order {
			walk(types[key])
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(structs); err != nil {
		panic(err)
	}
}
