"""ClusterContainer without an engine: what it asks for, and what is said where the library is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from minicluster.errors import UsageError
from minicluster.testing import testcontainers as module
from minicluster.testing.testcontainers import ClusterContainer


def test_without_the_library_it_is_named() -> None:
    code = "import sys; sys.modules['testcontainers'] = None; import minicluster.testing.testcontainers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: minicluster.testing.testcontainers needs testcontainers-python 4: `pip install testcontainers`, "
        "or minicluster with its extra, `pip install '.[testcontainers]'` in a checkout"
    )


@pytest.mark.parametrize("profile", ["etcd", "docs/examples/redis", "Ünusual name that is long", "../.."])
def test_each_has_a_name_of_its_own(profile: str) -> None:
    names = {ClusterContainer(profile).name for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"tc-[a-z0-9-]{8,27}", name) for name in names)
    assert ClusterContainer(profile, name="mine").name == ClusterContainer(profile).with_name("mine").name == "mine"


def test_what_is_asked_for_is_what_up_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def up(profile: str, **options: Any) -> None:
        asked.update(options, profile=profile)
        raise Stop

    monkeypatch.setattr(module.Cluster, "up", up)
    monkeypatch.setattr(module, "clusters", list)
    container = ClusterContainer("etcd", size={"kv": 1}).with_size(kv=3).with_size(other=2).with_setting("tls", "false")
    container.with_setting("quota", "1").with_image("node", "r:1").with_port("client", 5000).with_network("n")
    container.with_mount("kv:/a:/b").with_mount("kv:/c:/d:ro").with_network("m").with_address_mode(
        "bridge"
    ).with_startup_timeout(7).with_name("x")
    with pytest.raises(Stop):
        container.start()
    lease = asked.pop("lease")
    assert lease.owner == lease.owner.this()
    assert asked == {
        "profile": "etcd",
        "name": "x",
        "size": {"kv": 3, "other": 2},
        "set": {"tls": "false", "quota": "1"},
        "image": {"node": "r:1"},
        "port": {"client": 5000},
        "networks": ["n", "m"],
        "mounts": ["kv:/a:/b", "kv:/c:/d:ro"],
        "address_mode": "bridge",
        "timeout": 7,
    }


def test_before_it_starts_there_is_nothing_to_reach() -> None:
    container = ClusterContainer("etcd")
    assert container.status == "not_started"
    container.stop()
    for ask in (container.get_connection_url, container.get_logs, container.get_node, container.reload):
        with pytest.raises(UsageError, match="is not started"):
            ask()
