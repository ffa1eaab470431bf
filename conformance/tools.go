//go:build tools

// Package conformance holds the programs that test Plimsoll against upstream
// Kubernetes. This file pins the upstream programs that are built as peers.
package conformance

import (
	_ "go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/kubernetes/cmd/kube-apiserver/app"
)
