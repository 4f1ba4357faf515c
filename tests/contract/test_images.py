"""Images: importing, building, listing, saving, loading, removing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from minicluster.engine.base_image import build_labels
from minicluster.engine.protocol import Cancel, ImageBuild
from minicluster.errors import Conflict, ImageError, Interrupted, NotFound
from minicluster.model.labels import BUILD
from tests.contract.conftest import World


def import_small(world: World, part: str = "image") -> str:
    """A new image with one file in it."""
    ref = f"{world.name(part)}:1"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("name")
        entry.size = len(ref)
        tar.addfile(entry, io.BytesIO(ref.encode()))
    world.refs.append(ref)
    world.engine.import_image(iter([buffer.getvalue()]), ref)
    return ref


def test_importing_and_removing(world: World) -> None:
    engine, ref = world.engine, import_small(world)
    assert engine.has_image(ref)
    image = next(image for image in engine.images() if ref in image.tags)
    assert image.tags == (ref,)
    assert engine.image(ref) == engine.image(image.id) == image
    engine.remove_image(ref)
    assert engine.image(ref) is None
    assert not engine.has_image(ref)
    with pytest.raises(NotFound):
        engine.remove_image(ref)


def test_saving_and_loading(world: World) -> None:
    engine, ref = world.engine, import_small(world)
    archive = b"".join(engine.save_image(ref))
    engine.remove_image(ref)
    assert engine.load_images(iter([archive])) == [ref]
    assert engine.has_image(ref)
    with pytest.raises(NotFound):
        next(engine.save_image(f"{ref}0"))


@pytest.mark.parametrize("content", [b"no tar", b""])
def test_loading_what_is_no_image(world: World, content: bytes) -> None:
    with pytest.raises(ImageError):
        world.engine.load_images(iter([content]))


def test_an_image_in_use_is_not_removed(world: World) -> None:
    ref = import_small(world)
    world.container(image=ref)
    with pytest.raises(Conflict):
        world.engine.remove_image(ref)
    assert world.engine.has_image(ref)


def test_building(world: World, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "Dockerfile").write_text("FROM scratch\nARG WHAT\nLABEL what=$WHAT\nCOPY more /\n")
    (tmp_path / "folder" / "more").write_text("more")
    engine, ref = world.engine, f"{world.name('built')}:1"
    world.refs.append(ref)
    said: list[str] = []
    engine.build_image(ImageBuild(tmp_path / "folder", ref, build_labels("p", "i"), {"WHAT": "x"}), said.append)
    assert said
    image = next(image for image in engine.images() if ref in image.tags)
    assert image.labels[BUILD] == "p/i"


def test_building_from_a_tar(world: World, tmp_path: Path) -> None:
    engine, ref = world.engine, f"{world.name('built')}:2"
    world.refs.append(ref)
    with tarfile.open(tmp_path / "context.tar", "w") as tar:
        for name, text in (("Other", "FROM scratch\nLABEL a=b\nCOPY x /\n"), ("x", "x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    engine.build_image(ImageBuild(tmp_path / "context.tar", ref, {}, {}, "Other"), lambda _line: None)
    assert engine.has_image(ref)


def test_pulling_what_no_registry_has(world: World) -> None:
    with pytest.raises(ImageError):
        world.engine.pull_image("localhost:1/none:none", lambda _: None, timeout=20)
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Interrupted):
        world.engine.pull_image("localhost:1/none:none", lambda _: None, cancel=cancel)
