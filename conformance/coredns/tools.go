//go:build tools

// Package coredns pins CoreDNS, which the suite's pods run. It stands apart
// because it wants other versions of Kubernetes' libraries.
package coredns

import _ "github.com/coredns/coredns"
