// A CSI driver for the tests: the mock driver of Kubernetes' own test suite, which remembers what it is asked, with a
// tmpfs mounted where a volume is published, and with the registration that node-driver-registrar does for others.
//
//	csi NAME: serves /csi/csi.sock, and registers it with the kubelet by a socket in /registration.
package main

import (
	"context"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/driver"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/mock/service"
)

type node struct{ service.Service }

func (n node) NodePublishVolume(ctx context.Context, asked *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	answer, err := n.Service.NodePublishVolume(ctx, asked)
	if err == nil {
		err = unix.Mount("csi", asked.TargetPath, "tmpfs", 0, "size=1m")
	}
	return answer, err
}

func (n node) NodeUnpublishVolume(ctx context.Context, asked *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	_ = unix.Unmount(asked.TargetPath, 0) // it may not be mounted any more
	return n.Service.NodeUnpublishVolume(ctx, asked)
}

type plugin struct {
	registration.UnimplementedRegistrationServer
	name string
}

func (p plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	endpoint := "/var/lib/kubelet/plugins/" + p.name + "/csi.sock"
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: p.name, Endpoint: endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (p plugin) NotifyRegistrationStatus(_ context.Context, said *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !said.PluginRegistered {
		println("not registered: " + said.Error)
		os.Exit(1)
	}
	println("registered")
	return &registration.RegistrationStatusResponse{}, nil
}

func listen(path string) net.Listener {
	_ = os.Remove(path) // of an earlier start
	listener, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	return listener
}

func main() {
	name := os.Args[1]
	mock := service.New(service.Config{DisableAttach: true, DriverName: name, PermissiveTargetPath: true, IO: service.OSDirIO{}})
	servers := driver.NewCSIDriver(&driver.CSIDriverServers{Controller: mock, Identity: mock, Node: node{mock}})
	if err := servers.Start(listen("/csi/csi.sock"), nil); err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, plugin{name: name})
	panic(server.Serve(listen("/registration/" + name + "-reg.sock")))
}
