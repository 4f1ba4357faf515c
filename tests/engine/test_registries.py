"""Registries, real ones: the local one, a private one with TLS and a password, one without TLS, and mirrors."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster import pki
from minicluster.model.spec import CertificateSpec
from tests.engine.conftest import Shell, eventually, remains, swarm_client
from tests.engine.kubernetes.kubelife import variables
from tests.engine.test_mesos import IMAGES, stand_in

__all__ = ["stand_in"]  # a fixture

pytestmark = pytest.mark.long  # registries of images take seconds each

LOCAL, PRIVATE, PLAIN = "minicluster-registry", "t-reg-private", "t-reg-plain"
USER, PASSWORD = "tester", "correct-horse-battery"
#: The password as htpasswd -B writes it.
HASHED = "$2b$04$rKwxllSYgQ51mH6Q2AVgp.vCj/pjLSNctFoHPGTSCDr7V./pWW2u2"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
WITHOUT_TLS = """
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""


@pytest.fixture(scope="module")
def local(outer: Shell) -> Iterator[str]:
    """The local registry, of which an engine has one; the value is what names of its images begin with."""
    with open(Path(tempfile.gettempdir()) / "minicluster-tests-registry.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if outer.minicluster("registry", "status", "-o", "json").json["state"] != "none":
            pytest.skip("this engine has a local registry, whose images may be the user's")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        try:
            found = outer.minicluster("registry", "start", "--port", str(port), "-o", "json", timeout=900).json
            assert found["host"] == f"localhost:{port}"
            yield found["host"]
        finally:
            outer.minicluster("registry", "stop", "--remove-data", ok=False)
        assert remains(outer, LOCAL) == {}


@pytest.fixture(scope="module")
def demo(outer: Shell, node_image: str, local: str) -> Iterator[str]:
    """A small image that users push to the local registry with the stock client."""
    ref, copy = f"{local}/team/web:1", "t-reg-copy"
    try:
        with tempfile.TemporaryDirectory() as folder:
            outer.docker("create", "--name", copy, node_image)
            outer.docker("cp", f"{copy}:/usr/share/minicluster/demo.tar", folder)
            outer.docker("import", "--change", 'CMD ["/serve"]', f"{folder}/demo.tar", ref)
        outer.docker("push", ref)
        yield ref
    finally:
        outer.docker("rm", copy, ok=False)
        outer.docker("rmi", ref, ok=False)


@pytest.fixture(scope="module")
def others(outer: Shell, local: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A private registry and one without TLS; the value is a shell whose docker is logged in to the private one."""
    folder = tmp_path_factory.mktemp("registries")
    image = outer.docker("inspect", LOCAL, "--format", "{{.Config.Image}}").out.strip()
    issued = pki.Authority().issue(CertificateSpec("", PRIVATE, names=(PRIVATE,)))
    for name, content in {"ca.pem": issued.ca, "cert.pem": issued.certificate, "key.pem": issued.key}.items():
        (folder / "tls").mkdir(exist_ok=True)
        (folder / "tls" / name).write_bytes(content)
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    (folder / "registry.yml").write_text(WITHOUT_TLS)
    (folder / "config.json").write_text(json.dumps({"auths": {f"{PRIVATE}:5000": {"auth": AUTH}}}))
    htpasswd = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "test"}
    htpasswd["REGISTRY_AUTH_HTPASSWD_PATH"] = "/etc/minicluster/htpasswd"
    options = [word for name, value in htpasswd.items() for word in ("--env", f"{name}={value}")]
    try:
        outer.docker("create", "--name", PRIVATE, *options, image)
        outer.docker("cp", f"{folder}/tls", f"{PRIVATE}:/etc/minicluster/")
        outer.docker("cp", f"{folder}/htpasswd", f"{PRIVATE}:/etc/minicluster/")
        outer.docker("create", "--name", PLAIN, image)
        outer.docker("cp", f"{folder}/registry.yml", f"{PLAIN}:/etc/minicluster/")
        outer.docker("start", PRIVATE, PLAIN)
        yield Shell(outer.env | {"DOCKER_CONFIG": str(folder)})
    finally:
        outer.docker("rm", "-fv", PRIVATE, PLAIN, ok=False)


def told(others: Shell, *more: str) -> list[str]:
    """Options for all of them; of the two mirrors the first one is down."""
    private = f"{PRIVATE}:5000" if more else f"{PRIVATE}:5000,ca={others.env['DOCKER_CONFIG']}/tls/ca.pem"
    options = ["--registry-mirror", f"http://{PLAIN}:9", "--registry-mirror", f"http://{PLAIN}:5000"]
    return [*options, "--registry", f"{PLAIN}:5000,insecure", "--registry", private, *more]


@contextlib.contextmanager
def cluster(shell: Shell, profile: str, name: str, *options: str) -> Iterator[None]:
    try:
        shell.minicluster("up", profile, "--name", name, *options, timeout=900)
        yield
    finally:
        shell.minicluster("down", name, ok=False)
    assert remains(shell, name) == {}


def in_node(shell: Shell, node: str, *argv: str, ok: bool = True) -> str:
    done = shell.docker("exec", node, *argv, ok=ok)
    return done.out + done.err


def joined(outer: Shell) -> list[str]:
    found: list[str] = outer.minicluster("registry", "status", "-o", "json").json["clusters"]
    return [name for name in found if name.startswith("t-reg-")]  # other tests' clusters join it as well


def test_services_pull_what_was_pushed_by_the_same_name(outer: Shell, local: str, demo: str) -> None:
    """In clusters that were created before the registry, and after it; `down` of one disturbs no other."""
    with cluster(outer, "swarm", "t-reg-after", "--size", "agent=0"):
        outer.minicluster("registry", "stop", "--remove-data")
        with cluster(outer, "swarm", "t-reg-before", "--size", "agent=1"):
            port = local.partition(":")[2]
            outer.minicluster("registry", "start", "--port", port)
            assert joined(outer) == ["t-reg-after", "t-reg-before"]
            outer.docker("push", demo)
            client = swarm_client(outer, "t-reg-before")
            service = ("service", "create", "--name", "web", "--mode", "global", "--endpoint-mode", "dnsrr", "--detach")
            client.docker(*service, demo)
            eventually(lambda: on_nodes(client) == {"master-1", "agent-1"}, what="each node pulls and runs it")
            # As a user who stops working: the node and the registry come back as they were.
            outer.minicluster("registry", "stop")
            outer.minicluster("restart", "-c", "t-reg-before", "agent-1")
            outer.minicluster("registry", "start")
            in_node(outer, "t-reg-before-agent-1", "docker", "rmi", "--force", demo)
            in_node(outer, "t-reg-before-agent-1", "docker", "pull", demo)
            assert outer.minicluster("up", "--name", "t-reg-before", "-o", "json").json["changed"] is False
        assert joined(outer) == ["t-reg-after"]
        in_node(outer, "t-reg-after-master-1", "docker", "pull", demo)
        outer.minicluster("scale", "-c", "t-reg-after", "agent=1")
        in_node(outer, "t-reg-after-agent-1", "docker", "pull", demo)
    assert joined(outer) == []


def on_nodes(client: Shell) -> set[str]:
    rows = client.docker("service", "ps", "web", "--format", "{{.Node}} {{.CurrentState}}").out.splitlines()
    return {row.split()[0] for row in rows if row.split()[1] == "Running"}


def test_nested_engines_use_registries_with_their_certificates_credentials_and_mirrors(
    others: Shell, demo: str
) -> None:
    name = "t-reg-swarm"
    with cluster(others, "swarm", name, "--size", "agent=1", *told(others)):
        said = others.minicluster("-v", "up", "--name", name)
        for registry in (PRIVATE, PLAIN):
            others.docker("network", "connect", f"{name}-net", registry)
        master, agent = f"{name}-master-1", f"{name}-agent-1"
        private, plain = f"{PRIVATE}:5000/web:1", f"{PLAIN}:5000/library/web:1"
        in_node(others, master, "docker", "pull", demo)
        for ref in (private, plain):
            in_node(others, master, "docker", "tag", demo, ref)
            in_node(others, master, "docker", "push", ref)
            in_node(others, agent, "docker", "pull", ref)
        # web:1 is docker.io/library/web:1: only the second mirror has it.
        in_node(others, agent, "docker", "pull", "web:1")
        file = "/root/.docker/config.json"
        assert in_node(others, agent, "stat", "-c", "%a", file).strip() == "600"
        assert AUTH in in_node(others, agent, "cat", file)

        # Nothing else has the credentials.
        texts = [said.out + said.err]
        texts += [
            others.minicluster("info", name, "-o", "json").out,
            others.minicluster("status", name, "-o", "json").out,
        ]
        texts += [others.minicluster("up", "swarm", "--name", f"{name}2", *told(others), "--dry-run", "-o", "json").out]
        for kind in ("container", "network", "volume"):
            objects = (kind, "ls", *(["-a"] if kind == "container" else []), "-q", "--filter", f"name={name}")
            texts.append(others.docker("inspect", *others.docker(*objects).out.split()).out)
        assert f"{name}-spec-1" in texts[-1]
        assert not [text for text in texts if PASSWORD in text or AUTH in text]

        # Logged out: the next `up` takes them from the nodes, which stay.
        (Path(others.env["DOCKER_CONFIG"]) / "config.json").write_text("{}")
        try:
            assert others.minicluster("up", "--name", name, "-o", "json").json["changed"] is False
        finally:
            config = json.dumps({"auths": {f"{PRIVATE}:5000": {"auth": AUTH}}})
            (Path(others.env["DOCKER_CONFIG"]) / "config.json").write_text(config)
        assert AUTH not in in_node(others, agent, "cat", file)
        in_node(others, agent, "docker", "rmi", private)
        assert "no basic auth credentials" in in_node(others, agent, "docker", "pull", private, ok=False)


def test_pods_pull_from_every_kind_of_registry(others: Shell, local: str, demo: str) -> None:
    name = "t-reg-kube"
    authority = Path(others.env["DOCKER_CONFIG"]) / "tls" / "ca.pem"
    with cluster(others, "kubernetes", name, "--size", "agent=1", *told(others, "--ca", str(authority))):
        for registry in (PRIVATE, PLAIN):
            others.docker("network", "connect", f"{name}-net", registry)
        with cluster(others, "swarm", "t-reg-push", "--size", "agent=0", *told(others)):
            pushed = {PRIVATE: f"{PRIVATE}:5000/team/web:1", PLAIN: f"{PLAIN}:5000/library/web:1"}
            in_node(others, "t-reg-push-master-1", "docker", "pull", demo)
            for registry, ref in pushed.items():
                others.docker("network", "connect", "t-reg-push-net", registry)
                in_node(others, "t-reg-push-master-1", "docker", "tag", demo, ref)
                in_node(others, "t-reg-push-master-1", "docker", "push", ref)
        client = Shell(others.env | variables(others, name))
        images = {"local": demo, "private": pushed[PRIVATE], "plain": pushed[PLAIN], "mirror": "web:1"}
        for pod, image in images.items():
            client.run("kubectl", "run", pod, "--image", image, "--image-pull-policy", "Always", "--restart", "Never")
        client.run("kubectl", "wait", "pod", *images, "--for", "condition=Ready", "--timeout", "90s")
        assert in_node(others, f"{name}-agent-1", "stat", "-c", "%a", "/root/.docker/config.json").strip() == "600"

        # Without credentials the private one refuses.
        others.minicluster("up", "--name", name, "--registry", f"{PRIVATE}:5000,credentials=no")
        client.run("kubectl", "run", "refused", "--image", pushed[PRIVATE], "--image-pull-policy", "Always")
        waiting = ("get", "pod", "refused", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.message}")
        eventually(lambda: "no basic auth credentials" in client.run("kubectl", *waiting).out)


@pytest.mark.usefixtures("stand_in")
def test_engines_of_mesos_agents_pull_from_the_local_registry(others: Shell, demo: str) -> None:
    name, docker = "t-reg-mesos", "/opt/minicluster/engine/bin/docker"
    with cluster(others, "mesos", name, "--size", "agent=1", "--size", "scheduler=0", *IMAGES, *told(others)):
        in_node(others, f"{name}-agent-1", docker, "pull", demo)
        others.docker("network", "connect", f"{name}-net", PRIVATE)
        private = f"{PRIVATE}:5000/mesos/web:1"
        in_node(others, f"{name}-agent-1", docker, "tag", demo, private)
        in_node(others, f"{name}-agent-1", docker, "push", private)


def test_what_cannot_be_is_said(outer: Shell, tmp_path: Path) -> None:
    refused = outer.minicluster("up", "etcd", "--name", "t-reg-etcd", "--registry-mirror", "http://m", ok=False)
    assert refused.code == 2
    assert "no nodes that pull images" in refused.err
    (tmp_path / "key.pem").write_text("no certificate")
    refused = outer.minicluster("up", "swarm", "--name", "t-reg-x", "--ca", str(tmp_path / "key.pem"), ok=False)
    assert refused.code == 2
    assert "has no certificate" in refused.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        if outer.minicluster("registry", "status", "-o", "json").json["state"] == "none":
            refused = outer.minicluster("registry", "start", "--port", port, ok=False)
            assert refused.code == 1
            assert "--port" in refused.err
