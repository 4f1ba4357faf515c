"""The images that upstream's tests use: stand-ins made here, under the names that tests ask for."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from minicluster.engine import base_image, build_settings
from minicluster.engine.protocol import Cancel, Engine
from minicluster.errors import MiniclusterError
from minicluster.model.spec import PartSpec
from minicluster.operations.images import build
from minicluster.parts.provide import provide
from minicluster.profile import parts

FOLDER = Path(__file__).parent / "images"

#: The last part of an image's name -> the target of the Dockerfile that stands in for it.
TARGETS = {
    "agnhost": "agnhost",
    "busybox": "busybox",
    "distroless-iptables": "debian",
    "etcd": "etcd",
    "glibc-dns-testing": "glibc-dns-testing",
    "ipc-utils": "debian",
    "jessie-dnsutils": "glibc-dns-testing",
    "kitten": "kitten",
    "nautilus": "nautilus",
    "nginx": "nginx",
    "nonewprivs": "nonewprivs",
    "nonroot": "nonroot",
    "pause": "pause",
    "perl": "debian",
    "regression-issue-74839": "regression-issue-74839",
    "resource-consumer": "resource-consumer",
    "sample-apiserver": "sample-apiserver",
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Programs:
    """What a run of upstream's tests needs of a version."""

    version: str  #: of Kubernetes, whole
    tests: Path  #: e2e.test
    ginkgo: Path
    kubectl: Path
    arguments: tuple[str, ...]  #: of the images' build


def programs(engine: Engine, wanted: str, folder: Path, say: Say) -> Programs:
    """Compiles upstream's tests of a version, unless the engine has them, and copies the programs into a folder.

    Args:
        wanted: a version as ``--set version`` takes it; "" is the default.
    """
    version = parts.choose("kubernetes-e2e", wanted, f"--version {wanted}")
    specs = parts.resolve({"kubernetes": (version, "")}, ["kubernetes", "etcd", "coredns"], "kubernetes", {})
    specs |= parts.resolve({"kubernetes-e2e": (version, "")}, ["kubernetes-e2e"], "kubernetes-e2e", {})
    cancel = Cancel()
    base = base_image.provide(engine, say, say, cancel)
    try:
        provide(engine, list(specs.values()), base, say, say, cancel)
    except KeyboardInterrupt:
        cancel.set()
        raise
    (node,) = build("kubernetes", ["node"], engine=engine, settings={"version": version})
    tests, ginkgo = _copied(specs["kubernetes-e2e"], folder, "e2e.test", "ginkgo")
    (kubectl,) = _copied(specs["kubernetes"], folder, "kubectl")
    given = {
        "BASE": base,
        "NODE": node,
        **{f"PART_{spec.name.upper().replace('-', '_')}": spec.ref for spec in specs.values()},
        **build_settings.proxies(),
    }
    arguments = tuple(word for name, value in given.items() for word in ("--build-arg", f"{name}={value}"))
    return Programs(version, tests, ginkgo, kubectl, arguments)


def _copied(part: PartSpec, folder: Path, *names: str) -> list[Path]:
    """Programs out of a part's image; links in it are followed."""
    folder = folder / part.ref.rpartition(":")[2]
    found = [folder / name for name in names]
    if not all(path.exists() for path in found):
        folder.mkdir(parents=True, exist_ok=True)
        container = output("docker", "create", part.ref, "nothing").strip()
        try:
            for path in found:
                new = path.with_suffix(".new")
                output("docker", "cp", "--follow-link", f"{container}:/usr/local/bin/{path.name}", str(new))
                new.replace(path)
        finally:
            output("docker", "rm", container)
    return found


def make(made_of: Programs, refs: Iterable[str], say: Say) -> tuple[list[str], list[str]]:
    """Makes images and gives them the names that tests ask for.

    Two names never have the same image, since tests tell an old one from a new one by it.

    Returns:
        The names that exist now, and those that nothing stands in for.
    """
    made: list[str] = []
    lacking: list[str] = []
    contents = [path.read_text() for path in sorted(FOLDER.iterdir())]
    made_by = hashlib.sha256(json.dumps([contents, made_of.arguments]).encode()).hexdigest()[:12]
    for ref in sorted(set(refs)):
        name, _, tag = ref.rpartition("/")[2].partition(":")
        target = TARGETS.get(name)
        if target is None or ref.startswith("invalid."):
            lacking.append(ref)
            continue
        made.append(ref)
        if output("docker", "images", "--quiet", "--filter", f"label=e2e={name}:{tag} {made_by}", ref):
            continue
        say(f"image {ref}")
        local = f"minicluster/e2e-{target}:{made_of.version}"
        stage = ["--target", target, *made_of.arguments]
        output("docker", "build", "--quiet", "--tag", local, *stage, str(FOLDER))
        output(
            "docker", "build", "--quiet", "--tag", ref, "-", given=f'FROM {local}\nLABEL e2e="{name}:{tag} {made_by}"\n'
        )
    return made, lacking


def push(refs: Iterable[str], host: str, say: Say) -> None:
    """Copies images into the local registry, under the paths that they have in their own."""
    for ref in refs:
        there = f"{host}/{ref.partition('/')[2]}"
        say(f"pushing {there}")
        output("docker", "tag", ref, there)
        output("docker", "push", "--quiet", there)
        output("docker", "rmi", there)


def output(*command: str, given: str | None = None) -> str:
    """What a command prints. Raises ``MiniclusterError`` with its own words where it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MiniclusterError(f"{' '.join(command[:3])} failed", (done.stderr or done.stdout).strip(), "")
    return done.stdout
