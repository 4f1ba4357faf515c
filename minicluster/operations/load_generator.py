"""Loads a cluster: a program in a container of its own, on the cluster's network, which prints what it measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minicluster.engine.protocol import Cancel, Engine, File, Job
from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.deferred import fill
from minicluster.model.events import Event, Listener
from minicluster.model.naming import network_name
from minicluster.operations.stored_authority import read_authority, secrets

if TYPE_CHECKING:
    from minicluster.model.spec import PartSpec, Spec
    from minicluster.profile.bench import BenchSpec

_CLIENT = "/client"  #: folder with the client's certificate


def provide(engine: Engine, part: PartSpec | None, listener: Listener) -> None:
    """Gets the part that is the load generator, if there is one, where the engine does not have it.

    Raises:
        ImageError: it cannot be had.
    """
    if part is None or engine.has_image(part.ref):
        return
    from minicluster.engine import base_image
    from minicluster.parts import provide as supply

    cancel = Cancel()

    def progress(line: str) -> None:
        listener(Event("progress", "", "image", line))

    def note(text: str) -> None:
        listener(Event("note", text=text))

    with lock.building(base_image.LOCAL, cancel, lambda: progress("waiting for the base image")):
        base = base_image.provide(engine, progress, note, cancel)
    supply.provide(engine, [part], base, progress, note, cancel)


def run(engine: Engine, spec: Spec, bench: BenchSpec, settings: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Runs the load generator, and yields what it prints: objects with an ``event``, until it is done.

    Args:
        settings: variables, beyond those of the profile.

    Raises:
        NodeFailed: it failed, or ended before it was done.
    """
    texts = [*bench.run, *bench.env.values()]
    authority = read_authority(engine, spec) if spec.client or any("\0" in text for text in texts) else None
    values = secrets(engine, spec, texts, authority)
    env = dict(zip(bench.env, fill(list(bench.env.values()), values), strict=True))
    files: list[File] = []
    if spec.client and authority:
        issued = authority.issue(spec.client)
        content = {"ca.pem": issued.ca, "cert.pem": issued.certificate, "key.pem": issued.key}
        files = [File(f"{_CLIENT}/{name}", data, 0o600) for name, data in content.items()]
    name = f"minicluster-bench-{spec.cluster}-{os.urandom(4).hex()}"
    about = {labels.BUILD: "bench/load"}
    job = Job(name, bench.image, tuple(fill(list(bench.run), values)), {**env, **settings}, {}, tuple(files), about)
    done, last = False, ""
    try:
        engine.create_job(job)
        engine.connect_network(network_name(spec.cluster), name)
        engine.start_container(name)
        for raw in engine.logs(name, follow=True):
            line = raw.decode(errors="replace").strip()
            about_line = _object(line)
            if about_line is None:
                last = line or last  # a program that crashed says why
                continue
            if about_line["event"] == "failed":
                raise NodeFailed(f"the load generator failed on {spec.cluster}", str(about_line.get("error", "")))
            if about_line["event"] == "done":
                done = True
                break
            yield about_line
    finally:
        with suppress(MiniclusterError):
            engine.remove_container(name)
    if not done:
        raise NodeFailed(f"the load generator ended early on {spec.cluster}", last or "It printed nothing.")


def _object(line: str) -> dict[str, Any] | None:
    """A line that is an object with an event; None for any other."""
    if line.startswith("{"):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found.get("event"), str):
                return found
    return None
