"""Images that the user gives: run as they are, or with an overlay of the profile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.cli.planned import what
from minicluster.cluster import Cluster, dry_run
from minicluster.engine import base_image
from minicluster.engine.protocol import Cancel, Image, ImageBuild, Progress
from minicluster.errors import ImageError, UsageError
from minicluster.model import labels
from minicluster.model.events import Event
from minicluster.model.naming import PART_CACHE
from minicluster.model.spec import ImageSpec, Overrides
from minicluster.operations import images
from minicluster.operations.info import _origins
from minicluster.plan.steps import ProvideImage
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST

Write = Callable[..., Path]

OUTFIT = LEAST.replace("{image: example/node}", "{build: image, overlay: outfit}")
FILES = {
    "image/Dockerfile": "ARG BASE\nFROM ${BASE}\n",
    "outfit/Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\n",
}


def image_of(folder: Path, given: str = "") -> ImageSpec:
    overrides = Overrides(image={"node": given} if given else {})
    return resolve(load(folder), cluster="c", overrides=overrides, subnet="172.28.0.0/24").images["node"]


@pytest.fixture
def empty(engine: FakeEngine) -> FakeEngine:
    """An engine that has no image but the base."""
    engine.every_image = False
    engine.import_image([], base_image.REGISTRY)
    engine.calls.clear()
    return engine


def provide(engine: FakeEngine, image: ImageSpec, heard: list[Event] | None = None) -> None:
    images.provide(engine, "least", (heard if heard is not None else []).append)(image, Cancel())


# What it is called


def test_a_given_image_is_fitted_out_under_a_name_of_ours(write_profile: Write) -> None:
    folder = write_profile(OUTFIT, FILES)
    image = image_of(folder, "mine:1")
    assert image.ref.startswith("minicluster/least-node:")
    assert image == ImageSpec("node", image.ref, "override", str(folder / "outfit"), "mine:1")


def test_the_name_depends_on_the_overlay_and_on_the_image(write_profile: Write) -> None:
    folder = write_profile(OUTFIT, FILES)
    usual, one, two = image_of(folder), image_of(folder, "mine:1"), image_of(folder, "mine:2")
    (folder / "outfit/Dockerfile").write_text("ARG IMAGE\nFROM ${IMAGE}\nRUN true\n")
    changed = image_of(folder, "mine:1")
    assert len({i.ref for i in (usual, one, two, changed)}) == 4
    (folder / "image/Dockerfile").write_text("FROM scratch\n")  # which a given image has nothing to do with
    assert image_of(folder, "mine:1") == changed


def test_without_an_overlay_an_image_is_run_as_it_is(write_profile: Write) -> None:
    assert image_of(write_profile(LEAST), "mine:1") == ImageSpec("node", "mine:1", "override")


# How it is had


def test_a_given_image_is_pulled_where_it_is_missing_and_then_built_upon(
    empty: FakeEngine, write_profile: Write
) -> None:
    folder = write_profile(OUTFIT, FILES)
    image = image_of(folder, "mine:1")
    empty.registry.add("mine:1")
    heard: list[Event] = []
    provide(empty, image, heard)
    assert empty.calls == [("pull_image", "mine:1"), ("build_image", image.ref)]
    ((directory, ref, args),) = empty.builds
    assert (directory, ref) == (folder / "outfit", image.ref)
    assert (args["IMAGE"], args["BASE"]) == ("mine:1", base_image.REGISTRY)
    assert [e.text for e in heard if e.text.startswith(("pulling", "building"))] == [
        "pulling mine:1",
        f"building {image.ref}",
    ]


def test_a_given_image_that_the_engine_has_is_not_pulled(empty: FakeEngine, write_profile: Write) -> None:
    empty.import_image([], "mine:1")
    empty.calls.clear()
    image = image_of(write_profile(OUTFIT, FILES), "mine:1")
    provide(empty, image)
    assert empty.calls == [("build_image", image.ref)]


def test_the_profiles_own_build_gets_no_image_argument(empty: FakeEngine, write_profile: Write) -> None:
    provide(empty, image_of(write_profile(OUTFIT, FILES)))
    ((directory, _ref, args),) = empty.builds
    assert directory.name == "image"
    assert "IMAGE" not in args
    assert args["BASE"] == base_image.REGISTRY


def test_an_image_without_an_overlay_is_pulled_and_not_built(empty: FakeEngine, write_profile: Write) -> None:
    empty.registry.add("mine:1")
    provide(empty, image_of(write_profile(LEAST), "mine:1"))
    assert empty.calls == [("pull_image", "mine:1")]


def test_a_given_image_that_cannot_be_had_is_told_by_its_own_name(empty: FakeEngine, write_profile: Write) -> None:
    with pytest.raises(ImageError) as caught:
        provide(empty, image_of(write_profile(OUTFIT, FILES), "mine:1"))
    assert "mine:1" in caught.value.what
    assert "--image node=REF" in caught.value.fix
    assert empty.builds == []


def test_an_overlay_that_changed_meanwhile_is_not_built_under_the_old_name(
    empty: FakeEngine, write_profile: Write
) -> None:
    folder = write_profile(OUTFIT, FILES)
    empty.import_image([], "mine:1")
    image = image_of(folder, "mine:1")
    (folder / "outfit/Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(ImageError, match="its build has changed"):
        provide(empty, image)
    assert empty.builds == []


# By up


def test_up_runs_what_was_given_and_builds_it_once(empty: FakeEngine, write_profile: Write) -> None:
    folder = write_profile(OUTFIT, FILES)
    empty.registry.add("mine:1")

    def up(**options: object) -> Cluster:
        return Cluster.up(str(folder), name="c", engine=empty, **options)  # type: ignore[arg-type]

    given = up(image={"node": "mine:1"})
    assert given.spec.images["node"].overlay_on == "mine:1"
    assert empty.boxes["c-worker-1"].container.image == given.spec.images["node"].ref
    up(size={"worker": 2})  # what was asked for once stays asked for
    assert {box.container.image for box in empty.boxes.values()} == {given.spec.images["node"].ref}
    assert len(empty.builds) == 1
    up(image={"node": "mine:1"})
    assert len(empty.builds) == 1


def test_a_tag_that_names_another_image_is_built_on_again(empty: FakeEngine, write_profile: Write) -> None:
    folder = write_profile(OUTFIT, FILES)
    empty.import_image([], "mine:dev")

    def up() -> str:
        return Cluster.up(str(folder), name="c", image={"node": "mine:dev"}, engine=empty).spec.images["node"].ref

    first = up()
    assert up() == first
    empty.refs["mine:dev"] = replace(empty.refs["mine:dev"], id="sha256:another")
    second = up()
    assert second != first
    assert {box.container.image for box in empty.boxes.values()} == {second}
    assert [ref for _, ref, _ in empty.builds] == [first, second]
    del empty.refs["mine:dev"]  # what was built on it is still there
    assert up() == second
    assert len(empty.builds) == 2


def test_a_given_image_is_pulled_before_the_plan_and_not_by_a_dry_run(
    empty: FakeEngine, write_profile: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(write_profile(OUTFIT, FILES))
    empty.registry.add("mine:1")
    monkeypatch.setattr("minicluster.discovery.engine_if_any", lambda: empty)
    dry_run(folder, image={"node": "mine:1"})
    assert empty.calls == []
    Cluster.up(folder, name="c", image={"node": "mine:1"}, engine=empty)
    assert [call for call in empty.calls if call[0] == "pull_image"] == [("pull_image", "mine:1")]


class Staged(FakeEngine):
    """An engine whose builds leave images without a name, as Docker's do of stages, and report every step."""

    def build_image(self, build: ImageBuild, progress: Progress, cancel: Cancel | None = None) -> None:
        former = self.refs.get(build.ref)
        for made in ("a" * 12, "b" * 12):
            progress(f"---> {made}")
        for id in ("sha256:" + "a" * 64, "sha256:" + "c" * 64):
            self.refs[id] = Image(id, (), {}, 1, 0)
        super().build_image(build, progress, cancel)
        self.refs[build.ref] = replace(self.refs[build.ref], id="sha256:" + f"{len(self.builds):064x}")
        if former:
            self.refs[former.id] = replace(former, tags=())


def test_a_build_leaves_nothing_without_a_name(write_profile: Write) -> None:
    """Except what another build has left: only images of its own steps are removed, and the one that it replaces."""
    engine = Staged()
    engine.every_image = False
    for ref in (base_image.REGISTRY, "mine:1"):
        engine.import_image([], ref)
    image = image_of(write_profile(OUTFIT, FILES), "mine:1")
    provide(engine, image)
    images._build(engine, "least", image, Cancel(), lambda _: None, force=True)
    assert [i.id for i in engine.images() if not i.tags] == ["sha256:" + "c" * 64]


def test_an_image_that_is_fitted_out_is_built_not_pulled() -> None:
    image = ImageSpec("node", "minicluster/etcd-node:1", "override", "/build", "mine:1")
    assert what(ProvideImage(image)).startswith("build image minicluster/etcd-node:1")


# Out of a registry


@pytest.mark.parametrize("given", ["", "mine:1"])
def test_an_image_that_is_pulled_is_fitted_out_where_the_profile_says_how(
    empty: FakeEngine, write_profile: Write, given: str
) -> None:
    pulled = OUTFIT.replace("build: image", "image: example/node")
    folder = write_profile(pulled, {"outfit/Dockerfile": "ARG IMAGE\nFROM ${IMAGE}\n"})
    image = image_of(folder, given)
    wanted = given or "example/node"
    assert (image.source, image.overlay_on) == ("override" if given else "image", wanted)
    empty.registry.add(wanted)
    provide(empty, image)
    assert empty.calls == [("pull_image", wanted), ("build_image", image.ref)]
    assert empty.builds[0][2]["IMAGE"] == wanted
    assert what(ProvideImage(image)) == f"build image {image.ref} on {wanted}"


def test_a_missing_image_names_every_way_out(empty: FakeEngine, write_profile: Write) -> None:
    with pytest.raises(ImageError) as caught:
        provide(empty, image_of(write_profile(LEAST)))
    assert "example/node" in caught.value.what
    assert caught.value.why == "There is no registry here."
    for way in ("--image node=REF", "minicluster image import FILE", "registry-mirrors"):
        assert way in caught.value.fix


# From a file


def saved(path: Path, *refs: str, mode: str = "w") -> Path:
    """A tar as `docker save` writes it, as far as the fake engine reads it."""
    manifest = json.dumps([{"Config": "c.json", "RepoTags": list(refs), "Layers": []}]).encode()
    entry = tarfile.TarInfo("manifest.json")
    entry.size = len(manifest)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(entry, io.BytesIO(manifest))
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_images_come_from_a_file(empty: FakeEngine, tmp_path: Path, name: str, mode: str) -> None:
    heard: list[Event] = []
    file = saved(tmp_path / name, "mesos/master:1", "mesos/agent:1", mode=mode)
    assert images.load(file, engine=empty, listener=heard.append) == ["mesos/master:1", "mesos/agent:1"]
    assert empty.has_image("mesos/agent:1")
    assert [e.text.startswith(f"loading {file}") for e in heard] == [True]


def test_a_file_that_is_not_there(empty: FakeEngine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.tar") as caught:
        images.load(tmp_path / "none.tar", engine=empty)
    assert "No such file" in caught.value.why
    with pytest.raises(UsageError, match="cannot read"):
        images.load(tmp_path, engine=empty)
    assert empty.calls == []


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b" + b"junk" * 200])
def test_a_file_that_is_no_tar_is_not_sent_to_the_engine(empty: FakeEngine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        images.load(tmp_path / "x", engine=empty)
    assert str(tmp_path / "x") in caught.value.what
    assert empty.calls == []


def test_a_tar_without_an_image_says_what_was_meant(empty: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("x")
    with tarfile.open(tmp_path / "rootfs.tar", "w") as tar:
        tar.add(tmp_path / "etc", "etc")
    with pytest.raises(ImageError) as caught:
        images.load(tmp_path / "rootfs.tar", engine=empty)
    assert caught.value.what == f"{tmp_path}/rootfs.tar contains no image that the engine can load"
    assert caught.value.why == "no manifest"
    assert "docker save" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x1f\x8b\x08\x00rest", bytes(range(256)) * 9, b"\xfd7zXZ\x00"])
def test_what_is_no_archive_is_told_in_words(empty: FakeEngine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        images.load(tmp_path / "x.tar", engine=empty)
    assert "x.tar" in caught.value.what
    assert "Error(" not in str(caught.value)
    assert "method" not in str(caught.value)
    assert len(caught.value.why.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("open /var/lib/docker/tmp/docker-import-1/repositories: no such file or directory", "manifest.json"),
        ("Error processing tar file(exit status 1): unexpected EOF", "cut short"),
    ],
)
def test_what_the_engine_says_of_an_archive_is_told_in_words(
    empty: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, why: str
) -> None:
    def refuse(_archive: object) -> list[str]:
        raise ImageError("the engine cannot load it", said)

    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    monkeypatch.setattr(empty, "load_images", refuse)
    with pytest.raises(ImageError) as caught:
        images.load(tmp_path / "x.tar", engine=empty)
    assert why in caught.value.why
    assert "/var/lib" not in str(caught.value)


# Parts


@pytest.fixture
def built(engine: FakeEngine) -> FakeEngine:
    """An engine with parts, the builder of parts, and a node image of them."""
    about = {"zookeeper": ("3.9.6", "maven", {}), "etcd": ("v3.7.3", "/x/etcd", {labels.UNPINNED: "yes"})}
    for name, (version, source, more) in about.items():
        ref = f"minicluster/part-{name}:{version}-1"
        of_part = {labels.BUILD: f"part/{name}", labels.PART: f"{name} {version}", labels.SOURCE: source}
        engine.import_image([bytes(1024)], ref, of_part | {labels.LICENSE: "Apache-2.0"} | more)
    builder = {labels.BUILD: "part/builder"}
    engine.import_image([bytes(1024)], "minicluster/part-builder:1", builder)
    origins = {"etcd": "v3.7.3 (go)"}
    node = {labels.BUILD: "etcd/node", labels.PARTS: json.dumps(origins)}
    engine.import_image([bytes(1024)], "minicluster/etcd-node:1", node)
    # An image of the user's on top inherits the labels.
    engine.import_image([bytes(1024)], "mine:1", of_part)
    return engine


def test_parts_are_listed_with_their_source(built: FakeEngine) -> None:
    assert [(part.name, part.version, part.source, part.license) for part in images.parts(built)] == [
        ("etcd", "v3.7.3", "/x/etcd (unpinned)", "Apache-2.0"),
        ("zookeeper", "3.9.6", "maven", "Apache-2.0"),
    ]


def test_the_cache_of_the_compiler_is_removed(built: FakeEngine) -> None:
    assert images.remove_cache(built) == []
    assert images.cache_size(built) is None
    built.create_volume(PART_CACHE, {labels.BUILD: "part/cache"})
    assert images.cache_size(built) == 1 << 20
    assert images.remove_cache(built) == [PART_CACHE]
    assert built.vols == {}


def test_node_images_say_which_parts_they_are_of(built: FakeEngine) -> None:
    assert _origins(built, ["minicluster/etcd-node:1", "minicluster/part-builder:1", "none:1"]) == {
        "etcd": "v3.7.3 (go)"
    }


def test_a_build_gets_its_parts_as_arguments_and_info_shows_their_sources(empty: FakeEngine) -> None:
    empty.works = lambda job: (0, [], {"usr/bin/x": b""})
    sources = ("docker", "docker-cli", "containerd", "runc")
    settings = {f"{part}.source": "debian" for part in sources}
    cluster = Cluster.up("swarm", name="s", size={"master": 1, "agent": 0}, set=settings, engine=empty)
    arguments = next(args for _folder, ref, args in empty.builds if ref.startswith("minicluster/swarm-node:"))
    parts = {part.name: part.ref for part in cluster.spec.images["node"].parts}
    assert {name: arguments[f"PART_{name.upper().replace('-', '_')}"] for name in parts} == parts
    assert cluster.info().parts == {
        "docker": "26.1.5 (debian)",
        "docker-cli": "26.1.5 (debian)",
        "containerd": "1.7.24 (debian)",
        "runc": "1.1.15 (debian)",
    }
    assert {job.labels[labels.BUILD] for job in empty.jobs} == {f"part/{name}" for name in parts}
    assert not [name for name in empty.boxes if "part" in name]
