"""The images of a fake engine."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from minicluster.engine.protocol import Cancel, Image, ImageBuild, Progress
from minicluster.errors import Conflict, ImageError, Interrupted, NotFound
from tests.fakes.box import Box
from tests.fakes.scripted import Scripted


class Images(Scripted):
    """The part of the engine that has to do with images. Public fields are for tests to set."""

    boxes: dict[str, Box]

    def __init__(self) -> None:
        super().__init__()
        self.every_image = True  #: has whatever image it is asked for, but for those missing
        self.missing: set[str] = set()
        self.refs: dict[str, Image] = {}
        self.registry: set[str] = set()  #: references that can be pulled
        self.builds: list[tuple[Path, str, dict[str, str]]] = []  #: folder, reference and arguments of each build
        self.contents: dict[
            str, dict[str, bytes]
        ] = {}  #: files of imported images, or of the builds of others: path -> content, or a link's target

    def images(self) -> list[Image]:
        return list(self.refs.values())

    def has_image(self, ref: str) -> bool:
        return ref in self.refs or (self.every_image and ref not in self.missing)

    def image(self, ref: str) -> Image | None:
        return self.refs.get(ref) or (Image(ref, (ref,), {}, 0, 0) if self.has_image(ref) else None)

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        self._call("pull_image", ref)
        if cancel and cancel.is_set():
            raise Interrupted(f"stopped: pulling image {ref}")
        if ref in self.registry:
            self.refs[ref] = Image(ref, (ref,), {}, 1, 0)
            return
        raise ImageError(f"cannot pull {ref}", "There is no registry here.")

    def build_image(self, build: ImageBuild, progress: Progress, cancel: Cancel | None = None) -> None:
        self._call("build_image", build.ref)
        self.builds.append((build.directory, build.ref, dict(build.args)))
        self.contents[build.ref] = {  # of the build itself
            path.relative_to(build.directory).as_posix(): path.read_bytes()
            for path in build.directory.rglob("*")
            if path.is_file()
        }
        progress("built")
        self.refs[build.ref] = Image(build.ref, (build.ref,), dict(build.labels), 1, 0)

    def import_image(self, archive: Iterable[bytes], ref: str, labels: Mapping[str, str] | None = None) -> None:
        self._call("import_image", ref)
        content = b"".join(archive)
        # Nothing at all is an empty tar.
        with tarfile.open(fileobj=io.BytesIO(content or bytes(1024))) as tar:
            self.contents[ref] = {
                entry.name: entry.linkname.encode() or (tar.extractfile(entry) or io.BytesIO()).read()
                for entry in tar
                if not entry.isdir()
            }
        self.refs[ref] = Image(ref, (ref,), dict(labels or {}), len(content), 0)

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        """Of a tar with a ``manifest.json``, as `docker save` writes it, whatever else is in it."""
        self._call("load_images", "")
        try:
            with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
                manifest = tar.extractfile("manifest.json")
                assert manifest
                refs = [ref for image in json.loads(manifest.read()) for ref in image["RepoTags"]]
        except (tarfile.TarError, KeyError) as error:
            raise ImageError("the engine cannot load it", "no manifest") from error
        for ref in refs:
            self.refs[ref] = Image(ref, (ref,), {}, 1, 0)
        return refs

    def save_image(self, ref: str) -> Iterator[bytes]:
        if not self.has_image(ref):
            raise NotFound(f"no image {ref}")
        manifest = json.dumps([{"RepoTags": [ref]}]).encode()
        entry, buffer = tarfile.TarInfo("manifest.json"), io.BytesIO()
        entry.size = len(manifest)
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(entry, io.BytesIO(manifest))
        yield buffer.getvalue()

    def remove_image(self, ref: str) -> None:
        self._call("remove_image", ref)
        if any(b.container.image == ref for b in self.boxes.values()):
            raise Conflict(f"image {ref} is in use")
        if not self.has_image(ref):
            raise NotFound(f"no image {ref}")
        self.refs.pop(ref, None)
