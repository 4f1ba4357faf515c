"""Archives of images: those that ``docker save`` writes, and OCI image layouts as a tar, compressed or not."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any

from minicluster.errors import ImageError, UsageError
from minicluster.host import spool
from minicluster.model.image_ids import DIGEST, Wanted, full_name

_ZSTD = b"\x28\xb5\x2f\xfd"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_NAME, _REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_LARGEST = 4 << 20  # bytes of a JSON document
SAVED = (
    "Use a file that `docker save` wrote, or an OCI image archive. `docker export` writes a filesystem: "
    "`docker import` makes an image of that."
)


@dataclass(frozen=True)
class Archive:
    """An archive that every node's engine reads, and the images in it; none where they are not known."""

    file: IO[bytes]
    images: tuple[Wanted, ...]


def read(file: IO[bytes], label: str, platform: str, *, convert: bool = True) -> Archive:
    """Reads what is in an archive; one that only an OCI engine could load becomes one that every engine can.

    Args:
        file: can seek; stays open, or is closed if it is replaced.
        label: what it is called, for errors.
        platform: of several images under one name this one is taken, such as ``linux/amd64``.
        convert: otherwise it stays as it is.

    Raises:
        UsageError: it is no archive of images.
        ImageError: it has no image for this platform.
    """
    start = file.read(4)
    file.seek(0)
    converted: IO[bytes] | None = None
    if start == _ZSTD:  # Python cannot read it, and engines can
        return Archive(file, ())
    try:
        with closing(tarfile.open(fileobj=file, mode="r:*")) as tar:
            documents = _Documents(tar)
            if "manifest.json" in documents.files:
                images = _saved(documents)
            elif "index.json" in documents.files:
                entries = _layout(documents, label, platform)
                images = tuple(wanted for wanted, _entry in entries)
                converted = _converted(documents, [entry for _wanted, entry in entries]) if convert else None
            else:
                raise UsageError(f"{label} contains no image", "It has neither manifest.json nor index.json.", SAVED)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UsageError(f"{label} is not an image archive", _reason(error), SAVED) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{label} is not an image archive", f"It is damaged: {_sentence(error)}", SAVED) from None
    if not images:
        raise UsageError(f"{label} contains no image", "", SAVED)
    if converted:
        file.close()
        return Archive(converted, images)
    file.seek(0)
    return Archive(file, images)


def _reason(error: Exception) -> str:
    if isinstance(error, tarfile.ReadError):  # its text lists every compression that was tried
        return "It is not a tar archive, or it ends too early."
    return f"It cannot be read: {getattr(error, 'strerror', None) or error}."


def _sentence(error: Exception) -> str:
    return f"{error.args[0]} is missing." if isinstance(error, KeyError) else f"{error}."


class _Documents:
    """The files of a tar, and the JSON among them."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.files = {entry.name.removeprefix("./"): entry for entry in tar if entry.isfile() or entry.issym()}

    def bytes(self, name: str) -> bytes:
        """A small file's content."""
        entry = self.files[name]
        if entry.size > _LARGEST:
            raise ValueError(f"{name} has {entry.size} bytes")
        found = self.tar.extractfile(entry)
        if found is None:
            raise KeyError(name)
        return found.read()

    def json(self, name: str) -> Any:
        return json.loads(self.bytes(name))

    def blob(self, digest: str) -> Any:
        return self.json(_blob(digest))


def _blob(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a digest")
    return f"blobs/{digest.replace(':', '/')}"


def _saved(documents: _Documents) -> tuple[Wanted, ...]:
    """The images of what ``docker save`` wrote; newer engines add an OCI layout, whose digests are IDs as well."""
    further: dict[str, set[str]] = {}
    if "index.json" in documents.files:
        for about in documents.json("index.json").get("manifests") or []:
            for config, digests in _digests(documents, about):
                further.setdefault(config, set()).update(digests)
    images = []
    for entry in documents.json("manifest.json"):
        id = f"sha256:{hashlib.sha256(documents.bytes(entry['Config'])).hexdigest()}"
        names = tuple(full_name(ref) for ref in entry.get("RepoTags") or [])
        images.append(Wanted(frozenset({id, *further.get(id, ())}), names))
    return tuple(images)


def _digests(documents: _Documents, about: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Of a manifest or an index in a layout: each configuration in it, and the digests that stand for it."""
    if about.get("digest") is None or _blob(about["digest"]) not in documents.files:
        return []  # of another platform
    content = documents.blob(about["digest"])
    if about.get("mediaType") in _INDEXES or "manifests" in content:
        inner = [pair for one in content.get("manifests") or [] for pair in _digests(documents, one)]
        return [(config, [about["digest"], *digests]) for config, digests in inner]
    config = str((content.get("config") or {}).get("digest", ""))
    return [(config, [about["digest"]])]


def _layout(documents: _Documents, label: str, platform: str) -> list[tuple[Wanted, dict[str, Any]]]:
    """The images of an OCI layout, each with its entry for a ``manifest.json``."""
    found = []
    for about in documents.json("index.json")["manifests"]:
        chosen, outer = _choose(documents, about, label, platform), about["digest"]
        manifest = documents.blob(chosen["digest"])
        config = manifest["config"]["digest"]
        notes = about.get("annotations") or {}
        name = notes.get(_NAME) or (notes.get(_REF_NAME) if re.search("[:/]", notes.get(_REF_NAME, "")) else "")
        names = (full_name(name),) if name else ()
        entry = {
            "Config": _blob(config),
            "RepoTags": list(names) or None,
            "Layers": [_blob(layer["digest"]) for layer in manifest["layers"]],
        }
        found.append((Wanted(frozenset({config, chosen["digest"], outer}), names), entry))
    return found


def _choose(documents: _Documents, about: Mapping[str, Any], label: str, platform: str) -> Mapping[str, Any]:
    """A manifest, or of an index the manifest for a platform."""
    if about.get("mediaType") not in _INDEXES:
        return about
    manifests: Sequence[Mapping[str, Any]] = documents.blob(about["digest"])["manifests"]
    offered = {_platform(one): one for one in manifests if _platform(one) != "unknown/unknown"}  # attestations
    if platform in offered:
        return _choose(documents, offered[platform], label, platform)
    raise ImageError(
        f"{label} contains no image for {platform}", f"It has {', '.join(sorted(offered)) or 'none'}.", SAVED
    )


def _platform(manifest: Mapping[str, Any]) -> str:
    about = manifest.get("platform") or {}
    return f"{about.get('os')}/{about.get('architecture')}"


def _converted(documents: _Documents, entries: Sequence[Mapping[str, Any]]) -> IO[bytes]:
    """The same images as ``docker save`` writes them, which engines without an OCI image store read too."""
    made = spool.temporary()  # closed when its last user drops it
    needed = dict.fromkeys(name for entry in entries for name in (entry["Config"], *entry["Layers"]))
    with spool.writing(), tarfile.open(fileobj=made, mode="w") as tar:
        for name in needed:
            entry = tarfile.TarInfo(name)
            entry.size = documents.files[name].size
            tar.addfile(entry, documents.tar.extractfile(documents.files[name]))
        content = json.dumps(list(entries)).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    made.seek(0)
    return made


def stored(stream: IO[bytes]) -> IO[bytes]:
    """A stream that cannot seek, such as a pipe, as a temporary file."""
    file = spool.temporary()  # the caller closes it
    with spool.writing():
        shutil.copyfileobj(stream, file, 1 << 20)
        file.seek(0)
    return file
