// kube-policies enforces NetworkPolicies on the node that it runs on: the part of kube-router that does this, without its
// routes, its services and its addresses, which the cluster has from others.
//
// kube-router alone learns of a pod's address from the API server, when the pod runs already. So the plugin that connects
// pods to the network (network-policy) tells each new pod's address on a socket, and is answered when the rules for
// it are in place: a pod sends and gets no packet before. As long as there is no NetworkPolicy, nothing is done at all.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/coreos/go-iptables/iptables"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

var version = "unknown"

const (
	chain    = "KUBE-ROUTER-FORWARD"
	patience = 20 * time.Second // for a new pod's rules
	pause    = 10 * time.Millisecond
)

func main() {
	klog.InitFlags(nil)
	config := options.NewKubeRouterConfig()
	config.EnableIPv4 = true
	services := flag.String("service-cluster-ip-range", config.ClusterIPCIDRs[0], "addresses of services")
	balancers := flag.String("loadbalancer-ip-range", "", "addresses of services of type LoadBalancer")
	socket := flag.String("socket", "", "where new pods are told")
	address := flag.String("address", "", "the node's address")
	flag.StringVar(&config.Kubeconfig, "kubeconfig", "", "how the API server is reached")
	flag.StringVar(&config.HostnameOverride, "hostname-override", "", "the node's name")
	show := flag.Bool("version", false, "print the version of kube-router")
	flag.Parse()
	if *show {
		fmt.Println(version)
		return
	}
	config.ClusterIPCIDRs = []string{*services}
	if *balancers != "" {
		config.LoadBalancerCIDRs = []string{*balancers}
	}
	if err := run(config, *socket, *address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(config *options.KubeRouterConfig, socket, address string) error {
	access, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer end()

	factory := informers.NewSharedInformerFactory(client, 0)
	n := &node{
		config: config, client: client, address: address, begun: make(chan struct{}),
		pods:     factory.Core().V1().Pods().Informer(),
		spaces:   factory.Core().V1().Namespaces().Informer(),
		policies: factory.Networking().V1().NetworkPolicies().Informer(),
	}
	if err := n.pods.SetTransform(n.withAddress); err != nil {
		return err
	}
	failed := make(chan error, 2)
	first := cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		n.once.Do(func() {
			go func() {
				if err := n.enforce(ctx); err != nil {
					failed <- err
				}
			}()
		})
	}}
	if _, err := n.policies.AddEventHandler(first); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if socket != "" {
		if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
			return err
		}
		listener, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		go func() { failed <- n.serve(listener) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

type node struct {
	config                 *options.KubeRouterConfig
	client                 kubernetes.Interface
	address                string
	pods, spaces, policies cache.SharedIndexInformer
	told                   sync.Map // the UID of a pod -> its address, before the API server has it
	once                   sync.Once
	begun                  chan struct{} // closed once policies are enforced
	controller             *netpol.NetworkPolicyController
}

// withAddress completes what the API server says about a pod of this node with the address that it has got.
func (n *node) withAddress(object any) (any, error) {
	pod, is := object.(*core.Pod)
	if !is {
		return object, nil
	}
	address, known := n.told.Load(pod.UID)
	if !known {
		return object, nil
	}
	if pod.Status.PodIP != "" {
		n.told.Delete(pod.UID)
		return object, nil
	}
	return n.completed(pod, address.(string)), nil
}

func (n *node) completed(pod *core.Pod, address string) *core.Pod {
	made := pod.DeepCopy()
	made.Status.HostIP = n.address
	made.Status.PodIP = address
	made.Status.PodIPs = []core.PodIP{{IP: address}}
	return made
}

// enforce runs kube-router's controller until the end.
func (n *node) enforce(ctx context.Context) error {
	for _, informer := range []cache.SharedIndexInformer{n.pods, n.spaces, n.policies} {
		cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
	}
	tables, sets, err := netpol.NewIPTablesHandlers(n.config)
	if err != nil {
		return err
	}
	var lock sync.Mutex
	n.controller, err = netpol.NewNetworkPolicyController(
		n.client, n.config, n.pods, n.policies, n.spaces, &lock, tables, sets)
	if err != nil {
		return err
	}
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		n.pods:     n.controller.PodEventHandler,
		n.spaces:   n.controller.NamespaceEventHandler,
		n.policies: n.controller.NetworkPolicyEventHandler,
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	// The controller says after each change that it is alive, and waits until somebody hears it.
	alive := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range alive {
		}
	}()
	close(n.begun)
	var group sync.WaitGroup
	group.Add(1)
	go n.controller.Run(alive, ctx.Done(), &group)
	group.Wait()
	return nil
}

// serve answers "ok" to each line "NAMESPACE NAME UID ADDRESS" when the pod's rules are in place, or says why they are not.
func (n *node) serve(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			line, err := bufio.NewReader(connection).ReadString('\n')
			words := strings.Fields(line)
			if err == nil && len(words) == 4 {
				err = n.admit(words[0], words[1], types.UID(words[2]), words[3])
			} else if err == nil {
				err = fmt.Errorf("expected NAMESPACE NAME UID ADDRESS")
			}
			if err != nil {
				fmt.Fprintln(connection, err)
				return
			}
			fmt.Fprintln(connection, "ok")
		}()
	}
}

// admit returns when the rules for a new pod are in place.
func (n *node) admit(space, name string, uid types.UID, address string) error {
	if len(n.policies.GetStore().ListKeys()) == 0 {
		return nil
	}
	deadline := time.Now().Add(patience)
	select {
	case <-n.begun:
	case <-time.After(patience):
		return fmt.Errorf("NetworkPolicies cannot be enforced yet")
	}
	n.told.Store(uid, address)
	for {
		if found, is, err := n.pods.GetIndexer().GetByKey(space + "/" + name); err == nil && is {
			if pod := found.(*core.Pod); pod.UID == uid {
				if pod.Status.PodIP != address {
					if err := n.pods.GetIndexer().Update(n.completed(pod, address)); err != nil {
						return err
					}
				}
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the API server does not show the pod %s/%s", space, name)
		}
		time.Sleep(pause)
	}
	n.controller.RequestFullSync()
	tables, err := iptables.NewWithProtocol(iptables.ProtocolIPv4)
	if err != nil {
		return err
	}
	about := "POD name:" + name + " namespace: " + space + " "
	for {
		rules, err := tables.List("filter", chain)
		if err == nil {
			for _, rule := range rules {
				if strings.Contains(rule, "-d "+address+"/32 ") && strings.Contains(rule, about) {
					return nil
				}
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no rules for the pod %s/%s", space, name)
		}
		time.Sleep(pause)
	}
}
