"""What a first `up` resolved is read again, and only where nothing can have changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minicluster import paths
from minicluster.model.spec import Overrides, Spec
from minicluster.profile import catalog, folders, resolve as full, spec_cache

SUBNET = "172.28.0.0/24"


def resolve_spec(
    source: str = "etcd",
    cluster: str = "c",
    overrides: Overrides | None = None,
    subnet: str = SUBNET,
    publish: str = "127.0.0.1",
    port_is_free: Callable[[int], bool] = lambda _port: True,
) -> Spec:
    return spec_cache.resolve(source, cluster, overrides or Overrides(), subnet, publish, port_is_free)


def kept() -> list[Path]:
    return sorted((paths.cache_home() / "specs").glob("*"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The profiles that were loaded meanwhile."""
    seen: list[str] = []
    load = catalog.load

    def spy(name: str, settings: Any = None) -> Any:
        seen.append(name)
        return load(name, settings)

    monkeypatch.setattr(catalog, "load", spy)
    return seen


@pytest.mark.parametrize("profile", folders.names())
def test_the_same_comes_out_without_the_profile_being_read(profile: str, loads: list[str]) -> None:
    asked = Overrides(image={}, port={}, restart="always", networks=("web",))
    was = resolve_spec(profile, overrides=asked)
    assert resolve_spec(profile, overrides=asked) == was
    assert loads == [profile]


@pytest.mark.parametrize(
    "other",
    [
        {"cluster": "d"},
        {"subnet": "172.28.1.0/24"},
        {"publish": "172.28.0.1"},
        {"overrides": Overrides(size={"kv": 5})},
        {"overrides": Overrides(image={"node": "etcd:1"})},
        {"overrides": Overrides(port={"client": 2379})},
        {"overrides": Overrides(restart="always")},
    ],
)
def test_other_wishes_come_to_another_spec(other: dict[str, Any]) -> None:
    was = resolve_spec()
    assert resolve_spec(**other) != was
    assert len(kept()) == 2
    assert resolve_spec() == was


def test_a_port_that_is_taken_meanwhile_is_not_given_out_again() -> None:
    was = resolve_spec()
    port = was.nodes[1].endpoints[0].host_port
    now = resolve_spec(port_is_free=lambda p: p != port)
    assert port not in {e.host_port for _node, e in now.endpoints()}
    assert now.nodes[0].endpoints == was.nodes[0].endpoints


def test_a_port_that_was_taken_once_is_the_nodes_again_when_it_is_free() -> None:
    port = resolve_spec("etcd", "other").nodes[1].endpoints[0].host_port
    for path in kept():
        path.unlink()
    assert resolve_spec("etcd", "other", port_is_free=lambda p: p != port).nodes[1].endpoints[0].host_port != port
    assert resolve_spec("etcd", "other").nodes[1].endpoints[0].host_port == port


def test_a_port_that_was_asked_for_stays_the_one() -> None:
    asked = Overrides(port={"client": 2379})
    assert resolve_spec(overrides=asked) == resolve_spec(
        overrides=asked, port_is_free=lambda p: p not in (2379, 2380, 2381)
    )


def test_a_changed_profile_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loads: list[str]) -> None:
    copy = tmp_path / "profiles"
    shutil.copytree(folders.bundled_directory(), copy)
    monkeypatch.setattr(folders, "bundled_directory", lambda: copy)
    was = resolve_spec()
    text = (copy / "etcd" / "profile.yaml").read_text()
    (copy / "etcd" / "profile.yaml").write_text(text.replace("summary: ", "summary: Another ", 1))
    assert resolve_spec().summary == f"Another {was.summary}"
    assert len(loads) == 2


def test_changed_code_resolves_again(monkeypatch: pytest.MonkeyPatch, loads: list[str]) -> None:
    resolve_spec()
    monkeypatch.setattr(spec_cache, "_CODE", "another")
    resolve_spec()
    assert len(loads) == 2


def test_what_may_be_a_secret_is_not_kept() -> None:
    resolve_spec(overrides=Overrides(set={"tls": "false"}))
    assert kept() == []


def test_the_users_own_profiles_are_always_read(write_profile: Callable[..., Path]) -> None:
    folder = write_profile()
    assert resolve_spec(str(folder)) == resolve_spec(str(folder))
    assert kept() == []


@pytest.mark.parametrize("content", ["", "not base64!", "eJwDAAAAAAE="])
def test_what_cannot_be_read_is_made_again(content: str) -> None:
    was = resolve_spec()
    (path,) = kept()
    path.write_text(content)
    assert resolve_spec() == was
    assert path.read_text() != content


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert resolve_spec() == resolve_spec()


def test_entries_that_were_not_used_are_removed(monkeypatch: pytest.MonkeyPatch, loads: list[str]) -> None:
    monkeypatch.setattr(spec_cache, "_LIMIT", 2)
    resolve_spec(cluster="a")
    resolve_spec(cluster="b")
    for path in kept():
        os.utime(path, (0, 0))
    for cluster in ("a", "c", "a"):
        resolve_spec(cluster=cluster)
    assert len(kept()) == 2
    assert len(loads) == 3


@pytest.mark.parametrize("profile", folders.names())
def test_what_a_first_up_gave_is_what_the_next_one_gives(profile: str, loads: list[str]) -> None:
    was = resolve_spec(profile)
    loads.clear()
    assert spec_cache.is_unchanged(profile, was, was.overrides, "127.0.0.1")
    assert spec_cache.is_unchanged(was.source, was, Overrides(), "127.0.0.1")
    assert loads == []
    loaded = catalog.load(profile, {})
    arguments = {"cluster": "c", "overrides": Overrides(), "subnet": SUBNET, "bind_address": "127.0.0.1"}
    again = full.resolve(loaded, previous=was, port_is_free=lambda _port: False, source=loaded.source, **arguments)
    assert again == was


def test_a_cluster_that_has_something_else_is_resolved_again() -> None:
    was = resolve_spec()
    other = replace(was, summary="other")
    assert not spec_cache.is_unchanged("etcd", other, Overrides(), "127.0.0.1")
    assert not spec_cache.is_unchanged("etcd", was, Overrides(size={"kv": 5}), "127.0.0.1")
    assert not spec_cache.is_unchanged("etcd", was, Overrides(), "172.28.0.1")
    assert not spec_cache.is_unchanged("consul", was, Overrides(), "127.0.0.1")
    moved = resolve_spec(port_is_free=lambda port: port != was.nodes[0].endpoints[0].host_port)
    assert not spec_cache.is_unchanged("etcd", moved, Overrides(), "127.0.0.1")
    assert spec_cache.is_unchanged("etcd", was, Overrides(), "127.0.0.1")


def test_what_is_never_kept_is_always_resolved_again() -> None:
    asked = Overrides(set={"heartbeat": "60"})
    assert not spec_cache.is_unchanged("etcd", resolve_spec(overrides=asked), asked, "127.0.0.1")
