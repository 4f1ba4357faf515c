"""Archives of images are read without an engine: names, IDs, and what each engine can load."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from minicluster.errors import ImageError, UsageError
from minicluster.model.image_ids import Wanted, full_name, parse_held
from minicluster.operations import image_archive

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PLATFORM = "linux/amd64"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layout(*images: tuple[bytes, str, str], outer: bool = False) -> tuple[dict[str, bytes], list[str]]:
    """An OCI layout of images: a configuration, a platform and a name each; their manifests' digests."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    entries: list[dict[str, Any]] = []

    def put(content: bytes) -> str:
        files[f"blobs/{digest(content).replace(':', '/')}"] = content
        return digest(content)

    for config, platform, name in images:
        system, _, machine = platform.partition("/")
        layer = put(b"layer of " + config)
        manifest = {"mediaType": MANIFEST, "config": {"digest": put(config)}, "layers": [{"digest": layer}]}
        entry = {"mediaType": MANIFEST, "digest": put(json.dumps(manifest).encode())}
        entry |= {"platform": {"os": system, "architecture": machine}}
        entries.append({**entry, "annotations": {"io.containerd.image.name": name}} if name else entry)
    digests = [entry["digest"] for entry in entries]
    if outer:
        entries = [{"mediaType": INDEX, "digest": put(json.dumps({"manifests": entries}).encode())}]
        digests.append(entries[0]["digest"])
    return {**files, "index.json": json.dumps({"manifests": entries}).encode()}, digests


def read(content: bytes) -> image_archive.Archive:
    return image_archive.read(io.BytesIO(content), "x.tar", PLATFORM)


def saved(names: Sequence[str] | None, config: bytes = b"{}") -> dict[str, bytes]:
    manifest = [{"Config": "c.json", "RepoTags": names, "Layers": ["l.tar"]}]
    return {"manifest.json": json.dumps(manifest).encode(), "c.json": config, "l.tar": b"layer"}


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_what_docker_saves_stays_as_it_is(compress: Any) -> None:
    content = compress(tar_of(saved(["app:1", "localhost/x"])))
    archive = read(content)
    assert archive.file.read() == content
    names = ("docker.io/library/app:1", "localhost/x:latest")
    assert archive.images == (Wanted(frozenset({digest(b"{}")}), names),)


def test_an_image_without_a_name() -> None:
    assert read(tar_of(saved(None))).images == (Wanted(frozenset({digest(b"{}")}), ()),)


def test_newer_engines_add_a_layout_whose_digests_are_ids_too() -> None:
    files, digests = layout((b"{}", PLATFORM, ""), outer=True)
    (image,) = read(tar_of({**files, **saved(["app:1"])})).images
    assert image.ids == {digest(b"{}"), *digests}


def test_a_layout_becomes_what_every_engine_reads() -> None:
    files, digests = layout((b'{"a": 1}', PLATFORM, "example.org/app:1"))
    archive = read(tar_of(files))
    assert archive.images == (Wanted(frozenset({digest(b'{"a": 1}'), *digests}), ("example.org/app:1",)),)
    with tarfile.open(fileobj=archive.file) as tar:
        (entry,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        assert entry["RepoTags"] == ["example.org/app:1"]
        inner = [tar.extractfile(name) for name in (entry["Config"], *entry["Layers"])]
        assert [found.read() for found in inner if found] == [b'{"a": 1}', b'layer of {"a": 1}']


def test_of_several_platforms_the_engines_is_taken() -> None:
    images = ((b"{}", "linux/arm64", ""), (b'{"b": 1}', PLATFORM, ""), (b"[]", "unknown/unknown", ""))
    files, _digests = layout(*images, outer=True)
    (image,) = read(tar_of(files)).images
    assert digest(b'{"b": 1}') in image.ids
    assert digest(b"{}") not in image.ids


def test_another_platform_is_refused() -> None:
    files, _digests = layout((b"{}", "linux/arm64", ""), outer=True)
    with pytest.raises(ImageError, match=r"x.tar contains no image for linux/amd64") as caught:
        read(tar_of(files))
    assert caught.value.why == "It has linux/arm64."


def test_what_only_engines_can_read_is_left_to_them() -> None:
    archive = read(b"\x28\xb5\x2f\xfd rest")
    assert (archive.file.read(4), archive.images) == (b"\x28\xb5\x2f\xfd", ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not an image archive"),
        (b"hello", "is not an image archive"),
        (tar_of(saved(["x"]))[:700], "is not an image archive"),
        (tar_of({"etc/hosts": b"x"}), "contains no image"),
        (tar_of({"manifest.json": b"[]"}), "contains no image"),
        (tar_of({"manifest.json": b"{"}), "It is damaged"),
        (tar_of({"manifest.json": b'[{"RepoTags": []}]'}), "It is damaged: Config is missing."),
        (tar_of({"index.json": b"{}"}), "It is damaged: manifests is missing."),
        (tar_of({"index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}'}), "is not a digest"),
    ],
)
def test_what_is_no_archive_of_images(content: bytes, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(content)
    assert said in str(caught.value)


def test_what_a_node_lists_is_grouped_by_id() -> None:
    one, two, alias = (f"sha256:{letter * 64}" for letter in "abc")
    found = parse_held(f"{one} app:1\n{one} app:2\n{two} <none>:<none>\n{one} {alias}\nWARNING: x\n{two}\n")
    assert found[0].ids == {one, alias}
    assert found[0].names == {full_name("app:1"): "app:1", full_name("app:2"): "app:2"}
    assert found[1].ids == {two}
