"""Host folders and host ports of nodes: how they are written, where they are refused, and what changes do."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.engine.protocol import ContainerConfig
from minicluster.errors import MiniclusterError, PortTaken, UsageError
from minicluster.model import published
from minicluster.model.codec import decode, encode
from minicluster.model.events import Event
from minicluster.model.spec import MountSpec
from minicluster.operations import up as operations
from minicluster.operations.up_options import UpOptions
from minicluster.plan.steps import Step
from minicluster.profile import catalog
from minicluster.testing import pool
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

P = 18000  # below the range of automatic ports


def up(engine: FakeEngine, **options: Any) -> Cluster:
    return Cluster.up(str(TOY), name="toy", engine=engine, **options)


def planned(engine: FakeEngine, **options: Any) -> tuple[Step, ...]:
    return operations.plan(engine, "toy", UpOptions(profile=str(TOY), name="toy", **options)).plan.steps


def refused(engine: FakeEngine, **options: Any) -> MiniclusterError:
    """The error; nothing was changed."""
    before = {name: box.config for name, box in engine.boxes.items()}
    with pytest.raises(MiniclusterError) as caught:
        up(engine, **options)
    assert {name: box.config for name, box in engine.boxes.items()} == before
    assert bool(engine.nets) == bool(before)
    return caught.value


def config(engine: FakeEngine, node: str) -> ContainerConfig:
    found = engine.boxes[f"toy-{node}"].config
    assert found
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with ``data`` in it."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What users write


@pytest.mark.parametrize(
    ("word", "mount"),
    [
        ("agent:/a:/b", MountSpec("agent", "/a", "/b")),
        ("agent:/a:/b:ro", MountSpec("agent", "/a", "/b", read_only=True)),
        ("agent:/a:/b:rw", MountSpec("agent", "/a", "/b")),
        ("agent-2:/a/../c:/b//d/", MountSpec("agent-2", "/c", "/b/d")),
        ("agent:/with:colon,comma and space:/b:ro", MountSpec("agent", "/with:colon,comma and space", "/b", True)),
        ("agent:/a://b", MountSpec("agent", "/a", "/b")),
    ],
)
def test_a_mount(word: str, mount: MountSpec) -> None:
    assert published.mount(word) == mount
    assert published.mount(str(mount)) == mount


def test_a_path_of_the_host_may_be_relative_or_in_the_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert published.mount("a:./data:/b").host == str(folder / "data")
    assert published.mount("a:data:/b").host == str(folder / "data")
    assert published.mount("a:~/data:/b").host == "/home/me/data"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", "must have the form"),
        ("agent", "must have the form"),
        ("agent:/b", "must have the form"),
        ("./data:/b", "must have the form"),
        ("./data:/b:ro", "must have the form"),
        (":/a:/b", "must have the form"),
        ("agent::/b", "must have the form"),
        ("agent:/a:b", "must be absolute"),
        ("agent:/a:", "must be absolute"),
        ("agent:/a:/b:z", "'z' is neither"),
        ("agent:/a:/b:ro,z", "'ro,z' is neither"),
        ("agent:/a\0:/b", "null"),
    ],
)
def test_no_mount(word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        UpOptions(mounts=[word])
    assert said in f"{caught.value.what} {caught.value.why}"


@pytest.mark.parametrize(
    ("word", "name"),
    [("api", "api"), ("agent:80", "agent:80"), ("agent:80/tcp", "agent:80"), ("agent-1:53/udp", "agent-1:53/udp")],
)
def test_a_port(word: str, name: str) -> None:
    assert published.port_name(word) == name


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("agent:80/sctp", "sctp is not supported"),
        ("agent:80/UDP", "must have the form"),
        ("agent:0", "0 is not a port number"),
        ("agent:65536", "65536 is not a port number"),
        ("agent:", "must have the form"),
        (":80", "must have the form"),
        ("agent:http", "must have the form"),
        ("8080:80:81", "must have the form"),
    ],
)
def test_no_port(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        UpOptions(port={word: 8080})


@pytest.mark.parametrize("text", ["localhost", "::1", "1.2.3", "10.0.0.256", "0.0.0.0", "", "10.0.0.1/24"])
def test_no_address_to_bind(text: str) -> None:
    with pytest.raises(UsageError, match="--bind-address"):
        UpOptions(bind_address=text)


def test_the_command_line_reads_them(engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    run = CliRunner()
    words = ["--mount", "agent:data:/data:ro", "--port", f"agent:80/tcp={P}", "--port", f"api={P + 9}"]
    assert run.invoke(app, ["up", str(TOY), "--name", "toy", *words]).exit_code == 0
    spec = Cluster.open("toy", engine=engine).spec
    assert spec.overrides.mounts == (MountSpec("agent", str(folder / "data"), "/data", read_only=True),)
    assert spec.overrides.port == {"agent:80": P, "api": P + 9}
    answer = run.invoke(app, ["up", "--name", "toy", "--mount", "none", "--port", "agent:80=none"])
    assert answer.exit_code == 0, answer.output
    spec = Cluster.open("toy", engine=engine).spec
    assert spec.overrides.mounts == ()
    assert spec.overrides.port == {"api": P + 9}


# Mounts


def test_nodes_of_the_role_get_them_and_keep_them(engine: FakeEngine, folder: Path) -> None:
    spec = up(engine, mounts=["agent:data:/data:ro", "master-1:data:/m"]).spec
    data = str(folder / "data")
    assert config(engine, "agent-1").mounts == config(engine, "agent-2").mounts
    assert config(engine, "agent-1").mounts == (MountSpec("agent", data, "/data", read_only=True),)
    assert config(engine, "master-1").mounts == (MountSpec("master-1", data, "/m"),)
    assert decode(encode(spec)) == spec
    os.chdir("/")
    assert up(engine, size={"agent": 3}).spec.overrides == spec.overrides.__class__(
        size={"agent": 3}, mounts=spec.overrides.mounts
    )
    assert config(engine, "agent-3").mounts == config(engine, "agent-1").mounts


def test_a_change_recreates_only_the_nodes_that_it_is_about_and_says_why(engine: FakeEngine, folder: Path) -> None:
    up(engine, mounts=["agent:data:/data"])
    steps = planned(engine, mounts=["agent:data:/data:ro"])
    data = folder / "data"
    causes = {step.node: step.cause for step in steps if step.id.startswith("remove agent")}
    assert causes == dict.fromkeys(
        ("agent-1", "agent-2"), f"its spec has changed: mounts {data}:/data -> {data}:/data:ro"
    )
    assert not [step for step in steps if step.id == "remove master-1"]
    before = engine.boxes["toy-master-1"].container.id
    assert up(engine, mounts=["agent:data:/data"]).change.changed is False  # type: ignore[union-attr]
    up(engine, mounts=[])
    assert config(engine, "agent-1").mounts == ()
    assert engine.boxes["toy-master-1"].container.id == before


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("agent:gone:/data", "no such file or folder"),
        ("worker:data:/data", "no role or node named 'worker'"),
        ("agent-3:data:/data", "no role or node named 'agent-3'"),
        ("agent:data:/", "It would hide"),
        ("agent:data:/var/lib/data", "the node's volume"),
        ("agent:data:/var/lib/data/in", "the node's volume"),
        ("agent:data:/var/lib", "the node's volume"),
        ("agent:data:/run/x", "a folder in memory"),
        ("agent:data:/tmp/x", "temporary files"),
        ("agent:data:/proc/x", "a folder of the kernel"),
        ("agent:data:/usr/lib", "the system's folder"),
        ("master:data:/etc", "the node's file /etc/conf"),
        ("master:data:/usr/bin/tool", "the node's file /usr/bin/tool"),
        ("master:data:/etc/tls/x", "folder of certificates"),
    ],
)
def test_where_nothing_can_be_mounted(engine: FakeEngine, folder: Path, word: str, said: str) -> None:
    error = refused(engine, mounts=[word])
    assert said in f"{error.what} {error.why}"


def test_two_at_one_place(engine: FakeEngine, folder: Path) -> None:
    (folder / "more").mkdir()
    assert "both are at /data" in refused(engine, mounts=["agent:data:/data", "agent-1:more:/data"]).what
    assert "one is inside" in refused(engine, mounts=["agent:data:/data", "agent:more:/data/more"]).what
    up(engine, mounts=["agent:data:/data", "agent:data:/data", "agent:more:/data-more", "master:data:/data"])
    assert [mount.path for mount in config(engine, "agent-1").mounts] == ["/data", "/data-more"]


def test_a_node_that_is_removed_does_not_stop_later_changes(engine: FakeEngine, folder: Path) -> None:
    up(engine, mounts=["agent-2:data:/data"], port={"agent-2:80": P})
    up(engine, size={"agent": 1})
    up(engine, size={"agent": 1})
    up(engine, size={"agent": 2})
    assert [mount.path for mount in config(engine, "agent-2").mounts] == ["/data"]
    assert config(engine, "agent-2").ports == {"80/tcp": P}


def test_an_engine_elsewhere_refuses(engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "sees", lambda _path: False)
    assert "the engine does not have" in refused(engine, mounts=["agent:data:/data"]).what
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    engine.shares_localhost = False
    assert "runs in a container" in refused(engine, mounts=["agent:data:/data"]).what
    for endpoint in ("tcp://10.0.0.1:2376", "ssh://me@there"):
        engine.endpoint = endpoint
        error = refused(engine, mounts=["agent:data:/data"], address_mode="localhost")
        assert "the engine is on another machine" in error.what
        assert "minicluster cp" in error.fix


def test_a_folder_that_is_gone_is_told_at_the_next_change(engine: FakeEngine, folder: Path) -> None:
    up(engine, mounts=["agent:data:/data"])
    (folder / "data").rmdir()
    assert "--mount none" in refused(engine, size={"agent": 3}).fix
    up(engine, mounts=[])


# Ports


def test_ports_count_up_and_are_kept_also_when_scaling(engine: FakeEngine) -> None:
    cluster = up(engine, port={"agent:80": P, "agent:53/udp": P, "master:80": P + 100})
    assert config(engine, "agent-1").ports == {"80/tcp": P, "53/udp": P}
    assert config(engine, "agent-2").ports == {"80/tcp": P + 1, "53/udp": P + 1}
    up(engine, size={"agent": 3})
    assert config(engine, "agent-3").ports == {"80/tcp": P + 2, "53/udp": P + 2}
    cluster = Cluster.open("toy", engine=engine)
    assert [e.url for e in cluster.endpoints() if e.node == "agent-2"] == [
        f"tcp://127.0.0.1:{P + 1}",
        f"udp://127.0.0.1:{P + 1}",
    ]
    found = cluster.node("agent-2").endpoint("agent:53/udp")
    assert (found.host, found.port, found.node_port) == ("127.0.0.1", P + 1, 53)
    assert decode(encode(cluster.spec)) == cluster.spec
    before = config(engine, "master-1")
    up(engine, port={"agent:80": None, "agent:53/udp": None})
    assert config(engine, "agent-1").ports == {}
    assert config(engine, "master-1") is before


def test_a_change_of_ports_says_why(engine: FakeEngine) -> None:
    up(engine, port={"agent:80": P})
    steps = planned(engine, port={"agent:80": P + 10})
    (cause,) = {step.cause for step in steps if step.id == "remove agent-2"}
    assert cause == f"its spec has changed: published ports 80/tcp on {P + 1} -> 80/tcp on {P + 11}"


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ({"agent:80": 65535}, "agent-2 would have port 65536"),
        ({"agent:80": P, "agent:81": P + 1}, "agent-2 and agent-1 cannot both have 18001"),
        ({"agent:80": P, "master:80": P + 1}, "cannot both have 18001"),
        ({"api": P, "agent:80": P}, "cannot both have 18000"),
        ({"agent:80": P, "agent-2:80": P + 9}, "agent-2 has that port by --port agent:80 already"),
        ({"master:2376": P}, "port 2376 of master is published as endpoint api"),
        ({"worker:80": P}, "no role or node named 'worker'"),
        ({"agent-3:80": P}, "no role or node named 'agent-3'"),
        ({"apo": P}, "no endpoint named 'apo'"),
    ],
)
def test_ports_that_cannot_be_had(engine: FakeEngine, port: dict[str, int], said: str) -> None:
    assert said in refused(engine, port=port).what


def test_ports_do_not_clash_between_tcp_and_udp_nor_with_automatic_ones(engine: FakeEngine) -> None:
    automatic = up(engine).spec.nodes[0].endpoints[0].host_port
    cluster = up(engine, port={"agent:80": P, "agent:80/udp": P, "agent-1:1/udp": automatic})
    assert cluster.spec.nodes[0].endpoints[0].host_port == automatic


def test_a_port_does_not_move_to_another_node(engine: FakeEngine) -> None:
    up(engine, port={"agent:80": P})
    assert f"agent-1 would have port {P + 1}, which agent-2 has" in refused(engine, port={"agent:80": P + 1}).what


@pytest.fixture
def busy() -> Iterator[dict[str, int]]:
    """A port that another process has, by protocol."""
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    sockets = {name: socket.socket(type=kind) for name, kind in kinds.items()}
    for one in sockets.values():
        one.bind(("127.0.0.1", 0))
    sockets["tcp"].listen()
    yield {name: one.getsockname()[1] for name, one in sockets.items()}
    for one in sockets.values():
        one.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_in_use_is_told_before_anything_is_created(
    engine: FakeEngine, busy: dict[str, int], protocol: str
) -> None:
    port = busy[protocol]
    error = refused(engine, port={f"agent:80/{protocol}": port - 1})
    assert f"agent-2 would have port {port}, which is in use" in error.what
    assert f"127.0.0.1:{port}/{protocol}" in error.why
    up(engine, port={f"agent-1:80/{'udp' if protocol == 'tcp' else 'tcp'}": port})


def test_an_engine_elsewhere_tells_a_port_in_use_itself(engine: FakeEngine, busy: dict[str, int]) -> None:
    engine.shares_localhost = False
    up(engine, port={"agent-1:80": busy["tcp"]}, address_mode="localhost")
    engine.ports_in_use.add(P)
    with pytest.raises(PortTaken):
        up(engine, port={"agent-2:80": P}, address_mode="localhost")


# The address


def test_an_address_is_bound_shown_certified_and_kept(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    first = up(engine, bind_address="127.0.0.2", port={"agent:80": P})
    for cluster in (first, Cluster.open("toy", engine=engine), up(engine)):
        assert cluster.spec.bind_address == "127.0.0.2"
        assert cluster.endpoint("api").host == cluster.endpoint("agent:80").host == "127.0.0.2"
        assert "127.0.0.2" in cluster.env()["TOY_URL"]
        assert "127.0.0.2" in cluster.spec.nodes[0].certificates[0].addresses
    assert config(engine, "agent-1").bind_address == "127.0.0.2"
    local = Cluster.open("toy", engine=engine, address_mode="localhost")
    assert local.endpoint("api").host == "127.0.0.1"
    back = up(engine, bind_address="127.0.0.1")
    assert back.spec.bind_address == back.endpoint("api").host == "127.0.0.1"


def test_an_address_of_another_machine_is_refused(engine: FakeEngine) -> None:
    assert "does not have that address" in refused(engine, bind_address="192.0.2.77").what


def test_it_takes_precedence_over_that_of_the_engines_url(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    engine.endpoint, engine.shares_localhost = "tcp://127.9.9.9:2376", False
    assert up(engine, bind_address="10.1.1.1").endpoint("api").host == "10.1.1.1"


@pytest.mark.parametrize(
    ("profile", "settings", "said"),
    [
        ("etcd", {}, ""),
        ("etcd", {"tls": "false"}, "read and change all keys (client)"),
        ("consul", {}, "read and change keys and services (http)"),
        ("consul", {"acl": "true"}, ""),
        ("zookeeper", {}, "read and change all znodes (client)"),
        ("mesos", {}, "register frameworks and run tasks (master)"),
        ("swarm", {}, ""),
        ("kubernetes", {}, ""),
    ],
)
def test_endpoints_without_a_login_are_told(profile: str, settings: dict[str, str], said: str) -> None:
    from minicluster.model.spec import Overrides
    from minicluster.operations.connect import exposed
    from minicluster.profile.resolve import resolve

    loaded, overrides = catalog.load(profile, settings), Overrides(set=settings)
    for address in ("127.0.0.1", "127.0.0.2", "10.0.0.5"):
        spec = resolve(loaded, cluster="c", overrides=overrides, subnet="172.28.0.0/24", bind_address=address)
        text = exposed(spec)
        assert bool(text) == bool(said and address == "10.0.0.5")
        assert not text or said in text


def test_up_prints_that_warning(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    text = (TOY / "profile.yaml").read_text()
    text = re.sub(r"api: \{port: 2376, ", 'api: {port: 2376, anyone: "do all", ', text)
    engine.shares_localhost, heard = False, list[Event]()
    copy = tmp_path / "toy"
    copy.mkdir()
    for path in TOY.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(TOY)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(TOY)).write_bytes(path.read_bytes())
    (copy / "profile.yaml").write_text(text)
    Cluster.up(str(copy), name="toy", engine=engine, bind_address="10.0.0.5", listener=heard.append)
    warning = "Warning: every client that reaches 10.0.0.5 can, without a login: do all (api)."
    assert [e.text for e in heard if e.kind == "note"] == [warning]


# The pytest plugin


def test_the_pool_compares_what_specs_have(folder: Path) -> None:
    plain = pool._plain({"port": {"agent:80/tcp": P}, "mounts": ["agent:data:/data:rw"]})
    assert plain == {"port": {"agent:80": P}, "mounts": [f"agent:{folder}/data:/data"]}
