"""Parts: the programs that node images are put together of, their versions, and the sources that give them.

A part is a folder ``_parts/NAME`` beside the profiles with a ``part.yaml``. docs/parts.md describes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model.spec import PartSpec
from minicluster.paths import expanded
from minicluster.profile.image_tag import file_hash
from minicluster.profile.part_schema import SOURCES, Go, Part, SourceName
from minicluster.profile.wording import must
from minicluster.profile.yamldoc import parse


def folder(name: str) -> Path:
    """The folder of a part. Raises ``UsageError`` where there is none."""
    from minicluster.profile import folders

    root = folders.bundled_directory() / "_parts"
    if not (root / name / "part.yaml").is_file():
        raise UsageError(f"no part named {name!r}", "", nearest(name, names()))
    return root / name


def build_folder() -> Path:
    """The folder with the scripts that compile parts and take them out of packages."""
    from minicluster.profile import folders

    return folders.bundled_directory() / "_parts" / "_build"


def names() -> list[str]:
    """Names of all parts, sorted."""
    from minicluster.profile import folders

    return sorted(path.parent.name for path in (folders.bundled_directory() / "_parts").glob("*/part.yaml"))


@cache
def load(name: str) -> Part:
    """A part's description.

    Raises:
        UsageError: there is no such part.
        ProfileError: its description is not valid.
    """
    document = parse(folder(name) / "part.yaml")
    try:
        part = Part.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, key = document.where(first["loc"]), ".".join(map(str, first["loc"]))
        raise ProfileError(f"{where}: {key} {must(first)}", "", "docs/parts.md describes part.yaml.") from None
    for version, about in {part.default: part.versions.get(part.default), **part.versions}.items():
        if about is None or not re.fullmatch(part.supported, version):
            raise ProfileError(f"{document.where(('default',))}: {version} is not a version of {name}")
        if lacking := [source for source in about.sources if getattr(part.sources, source) is None]:
            raise ProfileError(f"{document.where(('versions', version))}: {name} has no source {lacking[0]}")
        release = part.sources.release if "release" in about.sources else None
        if release and not (about.sha256 or release.checksum):
            raise ProfileError(f"{document.where(('versions', version))}: no checksum of the release of {version}")
    return part


def choose(name: str, wanted: str, option: str, *, source: str = "") -> str:
    """The version that a text asks for: all of one, or its beginning, which chooses the newest that is known.

    Args:
        wanted: "" is the default.
        option: what asks, for errors: ``--set version=29``.
        source: an archive or program of the user's may be of any version.

    Raises:
        UsageError: it is no version of the part, or of none that is supported.
    """
    part = load(name)
    if not wanted:
        return part.default
    number = wanted.removeprefix("v")
    for version in part.versions:
        if version.removeprefix("v") == number:
            return version
    for version in part.versions:
        if version.removeprefix("v").startswith(number + "."):
            return version
    prefix = "v" if part.default.startswith("v") else ""
    if re.fullmatch(part.supported, prefix + number):
        if _given(source) or _verifiable(part):
            return prefix + number
        raise UsageError(
            f"{option}: {name} {wanted} is not listed, and no checksum of it is published",
            "",
            f"Choose one of {', '.join(part.versions)}, or name a file: --set {name}.source=FILE.",
        )
    if _given(source) and re.fullmatch(r"\d+(\.\d+){1,3}[\w.+-]*", number):
        return prefix + number
    known = ", ".join(part.versions)
    near = [version for version in part.versions if version.removeprefix("v").startswith(number)]
    fix = f"Choose one of these, or its beginning, such as {_beginning(near[0] if near else part.default)}."
    raise UsageError(f"{option}: {name} {wanted} is not supported", f"Known versions: {known}.", fix)


def _offered(part: Part, version: str) -> bool:
    """Whether a version is chosen where it is asked for."""
    return version in part.versions or (re.fullmatch(part.supported, version) is not None and _verifiable(part))


def _verifiable(part: Part) -> bool:
    """Whether a version that is not listed can be had, and compared with something."""
    return part.sources.image is not None or (part.sources.release is not None and part.sources.release.checksum != "")


def _beginning(version: str) -> str:
    return version.rpartition(".")[0] or version


def _given(source: str) -> bool:
    """Whether a source is the user's own, and not one of the part's."""
    return source != "" and source not in SOURCES


def setting(name: str, main: str | None) -> str:
    """The setting that chooses a part's version."""
    return "version" if name == main else f"{name}.version"


def resolve(
    wanted: Mapping[str, tuple[str, str]], order: Iterable[str], main: str, before: Mapping[str, PartSpec]
) -> dict[str, PartSpec]:
    """The parts of a profile, with the version and the source of each.

    Args:
        wanted: part -> version and source that are asked for, each "" where none is.
        order: the parts.
        main: the one whose version the profile's setting ``version`` chooses.
        before: what nodes have: where no version is asked for, they keep theirs.

    Raises:
        UsageError: a version or a source is not one of the part's.
    """
    specs: dict[str, PartSpec] = {}
    along: dict[str, str] = {}
    for name in sorted(order, key=lambda part: part != main):
        version, source = wanted.get(name, ("", ""))
        key = setting(name, main)
        had = before.get(name)
        kept = had.version if had and not version and _offered(load(name), had.version) else ""
        chosen = choose(name, version or along.get(name, "") or kept, f"--set {key}={version}", source=source)
        if name == main:
            along = _along(name, chosen)
        if _given(source) and "://" not in source:
            source = str(expanded(source).resolve()) if "/" in source or Path(source).exists() else source
        if had and _given(source) and (had.version, had.source) == (chosen, source) and not Path(source).is_file():
            specs[name] = had
            continue
        check_source(name, chosen, source)
        specs[name] = PartSpec(name, chosen, source, _digest(name, chosen, source))
    return specs


def refused_change(name: str, was: str, wanted: str) -> str:
    """Why nodes with the data of one version may not get another; "" where they may.

    Versions of the same minor version read each other's data, unless the part says that none may change.
    """
    upgrade = load(name).upgrade
    before, after = _numbers(was), _numbers(wanted)
    if upgrade == "none":
        return f"The version of {name} is chosen when a cluster is created." if was != wanted else ""
    if upgrade == "any" or before[:2] == after[:2]:
        return ""
    if after < before:
        return f"{name} of an older minor version does not support the data of a newer one."
    if upgrade == "next" and (before[:1], before[1] + 1) != (after[:1], after[1]):
        return f"{name} is upgraded from one minor version to the next."
    return ""


def _numbers(version: str) -> list[int]:
    """Major and minor version, and what follows, for comparison."""
    found = [int(number) for number in re.findall(r"\d+", version)]
    return [*found, 0, 0][: max(2, len(found))]


def _along(name: str, version: str) -> dict[str, str]:
    """The versions of other parts that belong to one: for one that is not listed, those of the nearest one."""
    known = load(name).versions
    minor, major = version.rpartition(".")[0], version.partition(".")[0]
    near = [version, *(other for other in known if other.rpartition(".")[0] == minor)]
    near += [other for other in known if other.partition(".")[0] == major]
    return next((dict(known[other].along) for other in near if other in known), {})


def _digest(name: str, version: str, source: str) -> str:
    """A hash of all that a version is made of: its sources, its Go files, the scripts, a file that is given."""
    part = load(name)
    about = part.versions.get(version)
    made: dict[str, Any] = {"source": source}
    kinds: Sequence[str] = ()
    if not _given(source):
        kinds = [source] if source else about.sources if about else ["release", "image"]
        made["sources"] = {kind: _plain(getattr(part.sources, kind)) for kind in kinds if kind != "go"}
        made["sha256"] = dict(about.sha256) if about else {}
    if source in ("", "go") and about and "go" in about.sources:
        how = go_of(name, version)
        made["how"] = how.model_dump() | {"module_version": how.module_version.get(version, "")}
        made["go"] = {file: file_hash(path) for file, path in go_files(name, version).items()}
    for kind, scripts in {"go": ("Dockerfile", "job", "go"), "debian": ("job", "debian")}.items():
        if kind in (kinds if not _given(source) else ()):
            made[f"{kind} scripts"] = [file_hash(build_folder() / script) for script in scripts]
    if _given(source) and not source.startswith("https://"):
        made["file"] = file_hash(given_file(name, source))
        made["files"] = _plain(part.sources.release)
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]


def _plain(about: BaseModel | None) -> Any:
    return about.model_dump() if about else None


def filled(text: str, version: str, arch: str) -> str:
    """A text of a part's description for a version and an architecture, with all that it may name in place."""
    number = version.removeprefix("v")
    major, minor, *_ = [*number.split("."), ""]
    values = {"version": version, "number": number, "major": major, "minor": minor, "arch": arch}
    values["machine"] = {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def go_of(name: str, version: str) -> Go:
    """How a version is compiled."""
    part = load(name)
    about = part.versions.get(version)
    found = (about.go if about else None) or part.sources.go
    assert found
    return found


def go_files(name: str, version: str) -> dict[str, Path]:
    """What is compiled: Go files that versions share, and the files in the version's own folder, which win."""
    root = folder(name)
    return {path.name: path for path in [*sorted(root.glob("*.go")), *sorted((root / version).iterdir())]}


def given_file(name: str, source: str) -> str:
    """The absolute path of a file that the user gives as a part's source. Raises ``UsageError`` where it is none."""
    path = expanded(source)
    option = f"--set {name}.source={source}"
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise UsageError(f"{option}: cannot read {source}", "Permission denied.", "Change its permissions.")
        return str(path.resolve())
    if "/" in source or path.exists():
        why = "It is a folder." if path.is_dir() else "No such file."
        raise UsageError(f"{option}: cannot read {source}", why, "Name an archive of a release, or a program.")
    fix = f"Use one of {', '.join(sources_of(name))}, a file's path, or an https:// address."
    raise UsageError(f"{option}: {source!r} is not a source of {name}", "", fix)


def check_source(name: str, version: str, source: str) -> None:
    """Refuses a source that a part does not have. Raises ``UsageError``."""
    option, about = f"--set {name}.source={source}", load(name).versions.get(version)
    if source in SOURCES:
        if source not in sources_of(name):
            raise UsageError(
                f"{option}: {name} has no source {source}", "", f"Use one of {', '.join(sources_of(name))}."
            )
        if source in ("go", "maven") and source not in (about.sources if about else ()):
            listed = [known for known, its in load(name).versions.items() if source in its.sources]
            raise UsageError(
                f"{option}: {name} {version} is not listed with that source",
                f"What its modules are is known only of {', '.join(listed)}.",
                f"Choose one of these with --set {name}.version=VERSION, or another source.",
            )
    elif "://" in source:
        if not source.startswith("https://"):
            raise UsageError(
                f"{option}: only https is accepted", "Without TLS, others on the network could change it.", "Use https."
            )
    elif source:
        given_file(name, source)


def sources_of(name: str) -> list[SourceName]:
    """The sources that a part has for any version."""
    sources = load(name).sources
    return [source for source in SOURCES if getattr(sources, source) is not None]


def candidates(spec: PartSpec) -> list[SourceName]:
    """The sources to try for a version, in order."""
    about = load(spec.name).versions.get(spec.version)
    if spec.source:
        return [cast(SourceName, spec.source)]
    if about is None:  # not listed: only what is of exactly that version by its name
        return [source for source in sources_of(spec.name) if source in ("release", "image")]
    return [source for source in SOURCES if source in about.sources]
