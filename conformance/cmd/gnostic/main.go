// Command gnostic tells whether OpenAPI v3 documents that were written as
// protobuf are the messages that upstream's library makes of their JSON.
//
//	go run ./cmd/gnostic DOCUMENT.json [DOCUMENT.pb]
//
// It prints the SHA-256 of the message of the JSON. Values of any type are
// texts of YAML in it; here they are JSON, as our server writes them. With a
// second file it fails unless that holds the same bytes.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"

	openapi "github.com/google/gnostic-models/openapiv3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	document, err := openapi.ParseDocument(text)
	check(err)
	rewrite(document.ProtoReflect())
	message, err := proto.MarshalOptions{Deterministic: true}.Marshal(document)
	check(err)
	fmt.Printf("%x\n", sha256.Sum256(message))
	if len(os.Args) < 3 {
		return
	}
	given, err := os.ReadFile(os.Args[2])
	check(err)
	if !bytes.Equal(given, message) {
		var other openapi.Document
		check(proto.Unmarshal(given, &other))
		fmt.Printf("%s differs: %d bytes, wanted %d; equal as messages: %v\n", os.Args[2], len(given), len(message), proto.Equal(&other, document))
		os.Exit(1)
	}
}

// rewrite replaces YAML by JSON in every Any of a message.
func rewrite(message protoreflect.Message) {
	if one, ok := message.Interface().(*openapi.Any); ok {
		var value any
		check(yaml.Unmarshal([]byte(one.Yaml), &value))
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		check(encoder.Encode(value))
		one.Yaml = out.String()
		return
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				rewrite(value.List().Get(i).Message())
			}
		default:
			rewrite(value.Message())
		}
		return true
	})
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
