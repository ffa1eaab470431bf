// Command coredns is CoreDNS with the few plugins that the suite's DNS tests
// use. Its module stands apart: it wants other versions of shared libraries.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/reload"
)

func main() {
	coremain.Run()
}
