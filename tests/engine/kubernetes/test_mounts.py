"""Folders of this machine in pods, and ports of agents on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kubernetes.kube import HOLD, Kube, conformance, container, get, pod, service
from tests.engine.kubernetes.kubelife import variables
from tests.engine.test_mounts import address, contents, free_ports

pytestmark = pytest.mark.long

NAME = "t-kube-mounts"


@cache
def ports() -> int:
    """The first of three on this machine."""
    return free_ports(3, 15000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("host")
    (top / "data/in").mkdir(parents=True)
    (top / "data/kept").write_text("precious")
    (top / "data/in/deep").write_text("deep")
    (top / "to-data").symlink_to("data")
    return top


@pytest.fixture(scope="module")
def kube(outer: Shell, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """One master and one agent, with a folder, ports of the agent and an address of this machine."""
    before = contents(folder)
    try:
        outer.minicluster(
            *("up", "kubernetes", "--name", NAME, "--size", "agent=1", "--mount", f"agent:{folder}/to-data:/data"),
            *("--port", f"agent:80={ports()}", "--port", f"agent:30080={ports() + 1}", "--port", f"api={ports() + 2}"),
            *("--bind-address", address()),
            timeout=1200,
        )
        yield Kube(Shell(outer.env | variables(outer, NAME)), NAME, tmp_path_factory.mktemp("kube"))
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}
    assert contents(folder) == before


@conformance(
    "minicluster", "`--port agent:30080=P` and `--port agent:80=P`: a NodePort and a hostPort, on this machine"
)
def test_ports(kube: Kube) -> None:
    space = kube.space("ports")
    main = container(ports=[{"containerPort": 80, "hostPort": 80}])
    space.create(pod("web", main), service("web", type="NodePort"))
    patch = '{"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}'
    space.kubectl("patch", "service", "web", "--type", "merge", "--patch", patch)
    space.ready("web")
    for host in ("127.0.0.1", address()):
        for port in (ports(), ports() + 1):
            assert eventually(lambda host=host, port=port: get(f"http://{host}:{port}/")) == "web"


@conformance("minicluster", "`--bind-address`: kubectl reaches the API server there, and its certificate holds for it")
def test_address(kube: Kube) -> None:
    server = kube.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").out
    assert server == f"https://{address()}:{ports() + 2}"
    assert kube.kubectl("get", "--raw", "/readyz").out == "ok"


@conformance("minicluster", "`--mount`: a hostPath and a subPath of it; `reset` and `down` leave what is in the folder")
def test_folder(kube: Kube, folder: Path) -> None:
    space, before = kube.space("folder"), contents(folder)
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/in", "subPath": "in"}]
    volume = {"name": "data", "hostPath": {"path": "/data", "type": "Directory"}}
    space.create(pod("reader", container(HOLD, volumeMounts=mounts), volumes=[volume]))
    space.ready("reader")
    assert space.kubectl("exec", "reader", "--", "cat", "/data/kept", "/in/deep").out == "preciousdeep"
    space.kubectl("exec", "reader", "--", "sh", "-c", "echo written >/data/new")
    assert (folder / "data/new").read_text() == "written\n"
    (folder / "data/new").unlink()
    # A persistent volume, too, whose folder its owner gives back with the claim.
    about = {"kind": "PersistentVolume", "metadata": {"name": "data"}}
    spec = {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data/in"}}
    kube.create({**about, "spec": {**spec, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "none"}})
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    space.create({**claim, "spec": {**wanted, "storageClassName": "none", "volumeName": "data"}})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    space.create(pod("claimer", container(HOLD, volumeMounts=mounts), volumes=[volume]))
    space.ready("claimer")
    kube.shell.minicluster("reset", NAME)
    others = ("--all-namespaces", "--field-selector=metadata.namespace!=kube-system")
    assert kube.kubectl("get", "pods", *others, "-o", "name").out == ""
    assert kube.kubectl("get", "pv", "-o", "name").out == ""
    assert contents(folder) == before
