// kubeall is all server programs of Kubernetes in one, which of them being decided by the name that it is called by. They
// share nearly all of their code: one such program is a quarter of the size of five, and is there in half the time. kubectl
// cannot be among them: it declares some of the same flags.
//
// The packages below are the stock programs' own, each with its main function under the name Main ("provide" copies them).
package main

import (
	"fmt"
	"os"
	"path/filepath"

	apiserver "k8s.io/kubernetes/cmd/kubeall/kube-apiserver"
	controllermanager "k8s.io/kubernetes/cmd/kubeall/kube-controller-manager"
	proxy "k8s.io/kubernetes/cmd/kubeall/kube-proxy"
	scheduler "k8s.io/kubernetes/cmd/kubeall/kube-scheduler"
	kubelet "k8s.io/kubernetes/cmd/kubeall/kubelet"
)

var programs = map[string]func(){
	"kube-apiserver":          apiserver.Main,
	"kube-controller-manager": controllermanager.Main,
	"kube-proxy":              proxy.Main,
	"kube-scheduler":          scheduler.Main,
	"kubelet":                 kubelet.Main,
}

func main() {
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		fmt.Fprintf(os.Stderr, "kubeall: %q is no server of Kubernetes: call it by a name such as kubelet\n", name)
		os.Exit(2)
	}
	program()
}
