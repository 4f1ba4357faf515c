"""A project file on the real engine: its clusters, what is applied to them by their own clients, and whose they are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Result, Shell, eventually, hears_signals, remains, swarm_client

DOC = Path(__file__).parents[2] / "docs" / "project.md"


class Project:
    """A folder with a project file, and commands in it."""

    def __init__(self, shell: Shell, folder: Path) -> None:
        self.shell, self.folder = shell, folder

    def write(self, text: str, path: str = "minicluster.yaml") -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(textwrap.dedent(text))

    def do(self, *words: str, ok: bool = True) -> Result:
        return self.shell.minicluster("-f", str(self.folder / "minicluster.yaml"), *words, ok=ok, timeout=400)

    def pytest(self, text: str) -> Result:
        self.write(text, "tests/test_it.py")
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
        return self.shell.run(*words, cwd=self.folder, ok=False, timeout=400)


New = Callable[[str], Project]


@pytest.fixture
def new(outer: Shell, tmp_path: Path) -> Iterator[New]:
    """Makes projects; their clusters are removed."""
    made: list[Project] = []

    def project(name: str) -> Project:
        (tmp_path / name).mkdir()
        made.append(Project(outer, tmp_path / name))
        return made[-1]

    yield project
    for one in made if remains(outer, "t-pf") else ():
        one.do("down", ok=False)
        one.do("down", "--orphans", ok=False)
    assert remains(outer, "t-pf") == {}


ETCD = """\
version: 1
clusters:
  t-pf-e:
    profile: etcd
    size: {kv: 1}
    apply: [config]
"""

TEST = """
def test_its_own_cluster(minicluster):
    cluster = minicluster("t-pf-e")
    assert cluster.name.startswith("t-pf-e-")
    kv = cluster.node("kv-1")
    assert kv.exec("etcdctl get app/level --print-value-only").stdout == "info\\n"
    assert kv.exec("etcdctl get mine --print-value-only").stdout == ""
    kv.exec("etcdctl put app/level debug")


def test_it_is_as_new(minicluster):
    kv = minicluster("t-pf-e").node("kv-1")
    assert kv.exec("etcdctl get app/level --print-value-only").stdout == "info\\n"
"""


def test_a_project_has_its_cluster_and_no_other_takes_it(outer: Shell, new: New) -> None:
    mine, other = new("mine"), new("other")
    mine.write(ETCD)
    mine.write("info", "config/app/level")
    other.write(ETCD.replace("    apply: [config]\n", ""))
    # In the folder itself, where the file is searched for.
    said = outer.run(*outer.command("up"), cwd=mine.folder).err
    assert f"using {mine.folder}/minicluster.yaml" in said
    assert mine.do("etcdctl", "get", "app/level", "--print-value-only").out == "info\n"
    label = '{{index .Config.Labels "io.minicluster.project"}}'
    assert outer.docker("inspect", "-f", label, "t-pf-e-kv-1").out.strip() == f"{mine.folder}/minicluster.yaml"
    for words in (["up"], ["down", "t-pf-e"]):
        refused = other.do(*words, ok=False)
        assert refused.code == 2
        assert f"It was made from {mine.folder}/minicluster.yaml." in refused.err
    assert other.do("down").code == 0
    assert mine.do("status").out.startswith("t-pf-e (etcd): ready")
    mine.do("down")


@pytest.mark.long
def test_tests_have_a_cluster_of_their_own(new: New) -> None:
    mine = new("mine")
    mine.write(ETCD)
    mine.write("info", "config/app/level")
    mine.do("up")
    mine.do("etcdctl", "put", "mine", "kept")
    mine.do("kill", "kv-1")  # tests do not repair it either
    done = mine.pytest(TEST)
    assert done.code == 0, done.out
    assert "exited" in mine.do("status").out
    mine.do("start")
    assert mine.do("etcdctl", "get", "mine", "--print-value-only").out == "kept\n"


@pytest.mark.long
def test_several_clusters_start_at_once_and_ctrl_c_removes_them_all(outer: Shell, new: New) -> None:
    mine = new("mine")
    mine.write("version: 1\nclusters: {t-pf-a: {profile: etcd}, t-pf-b: {profile: etcd}}\n")
    words = outer.command("up")
    process = subprocess.Popen(words, cwd=mine.folder, env=os.environ | outer.env, stderr=subprocess.PIPE, text=True)
    hears_signals(process)
    eventually(lambda: len(outer.docker("ps", "-q", "--filter", "name=t-pf-").out.split()) >= 4)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert remains(outer, "t-pf") == {}

    said = mine.do("up", "-o", "json")
    assert [one["cluster"] for one in said.json] == ["t-pf-a", "t-pf-b"]
    mine.write("version: 1\nclusters: {t-pf-a: {profile: etcd, size: {kv: 1}}}\n")
    assert "t-pf-b is no longer in minicluster.yaml" in mine.do("up").err
    assert mine.do("status").out.startswith("t-pf-a (etcd): ready\nquorum: 1 of 1")
    mine.do("down", "--orphans")
    assert list(remains(outer, "t-pf-b")) == []
    assert list(remains(outer, "t-pf-a"))


@pytest.mark.long
def test_images_are_loaded_and_stacks_deployed(outer: Shell, new: New) -> None:
    mine = new("mine")
    (mine.folder / "hello").write_text("hello")
    archive = subprocess.run(["tar", "-c", "hello"], cwd=mine.folder, capture_output=True, check=True).stdout
    env = os.environ | outer.env
    subprocess.run(["docker", "import", "-", "t-pf-hello:1"], input=archive, env=env, check=True, capture_output=True)
    mine.write("""
        version: 1
        clusters:
          t-pf-s: {profile: swarm, size: {agent: 1}, load: ["t-pf-hello:1"], apply: [web/compose.yaml]}
    """)
    mine.write(
        """
        services:
          hello:
            image: localhost/minicluster/demo
            deploy: {replicas: 2, endpoint_mode: dnsrr}
        """,
        "web/compose.yaml",
    )
    try:
        assert "t-pf-hello:1" in mine.do("up").err
        swarm = swarm_client(outer, "t-pf-s")
        replicas = ("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
        eventually(lambda: swarm.docker(*replicas).out == "web_hello 2/2\n")
        images = ("docker", "image", "ls", "-q", "t-pf-hello")
        for node in ("master-1", "agent-1"):
            assert outer.minicluster("exec", "-c", "t-pf-s", node, "--", *images).out
        assert "t-pf-hello:1" not in mine.do("up").err  # every node has it
        mine.do("up", "--size", "agent=2")
        assert outer.minicluster("exec", "-c", "t-pf-s", "agent-2", "--", *images).out
    finally:
        outer.docker("rmi", "t-pf-hello:1", ok=False)


@pytest.mark.long
def test_kubernetes_applies_folders_and_kustomizations(new: New) -> None:
    mine = new("mine")
    mine.write("""
        version: 1
        clusters:
          t-pf-k: {profile: kubernetes, size: {agent: 1}, apply: [deploy/, over]}
    """)
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {level: info}\n"
    mine.write(config_map.replace("NAME", "plain"), "deploy/map.yaml")
    mine.write(config_map.replace("NAME", "map"), "base/map.yaml")
    mine.write("resources: [map.yaml]\n", "base/kustomization.yaml")
    mine.write("resources: [../base]\nnamePrefix: over-\n", "over/kustomization.yaml")
    said = mine.do("up").err
    assert f"applied {mine.folder}/deploy: configmap/plain created" in said
    assert f"applied {mine.folder}/over: configmap/over-map created" in said
    mine.write("kind: [", "deploy/map.yaml")
    refused = mine.do("up", ok=False)
    assert refused.code == 1
    assert "deploy could not be applied" in refused.err
    found = mine.do("kubectl", "get", "configmap", "plain", "over-map", "-o", "name").out
    assert found == "configmap/plain\nconfigmap/over-map\n"


@pytest.mark.long
def test_consul_gets_keys_and_configuration_entries(new: New) -> None:
    mine = new("mine")
    mine.write("""
        version: 1
        clusters:
          t-pf-c: {profile: consul, size: {master: 1, agent: 0}, set: {version: 1.8.7}, apply: [conf]}
    """)
    mine.write("v1", "conf/app/x")
    mine.write('Kind = "service-defaults"\nName = "web"\nProtocol = "http"\n', "conf/web.hcl")
    mine.do("up")
    assert mine.do("consul", "kv", "get", "app/x").out.strip() == "v1"
    read = mine.do("consul", "config", "read", "-kind", "service-defaults", "-name", "web").out
    assert '"Protocol": "http"' in read


@pytest.mark.long
def test_zookeeper_gets_nodes_and_their_changes(new: New) -> None:
    mine = new("mine")
    mine.write("version: 1\nclusters: {t-pf-z: {profile: zookeeper, size: {kv: 1}, apply: [nodes]}}\n")
    odd = 'it\'s "quoted" $x\nline 2'
    mine.write(odd, "nodes/a/b/c")
    mine.do("up")
    assert odd in mine.do("zkCli", "get", "/a/b/c").out
    mine.write("other", "nodes/a/b/c")
    mine.do("up")
    assert "other" in mine.do("zkCli", "get", "/a/b/c").out
    mine.write("x", "nodes/zookeeper/config")
    refused = mine.do("up", ok=False)
    assert refused.code == 1
    assert "nodes/zookeeper/config could not be applied" in refused.err
    assert "Insufficient permission" in refused.err


@pytest.mark.long
def test_the_page_typed_as_written(outer: Shell, new: New) -> None:
    mine = new("shop")
    page = DOC.read_text().replace("shop", "t-pf-shop")
    found = re.findall(r"```(sh|yaml|python)\n(.*?)```", page, re.DOTALL)
    (test,) = (text for kind, text in found if kind == "python")
    for kind, text in found[:4]:
        if kind == "yaml":
            mine.write(text)
            continue
        script = text.replace("minicluster ", f"{' '.join(outer.command())} ")
        done = outer.run("sh", "-euc", script, cwd=mine.folder, timeout=400)
        if "etcdctl" in text:
            assert done.out.endswith("app/level\ninfo\n"), done.out
            ran = mine.pytest(test)
            assert ran.code == 0, ran.out
    assert "minicluster down" in text
    assert remains(outer, "t-pf") == {}
