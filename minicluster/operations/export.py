"""``logs --export``: all that a bug report about a cluster needs, without its secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster import __version__
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.codec import to_json
from minicluster.model.deferred import readable
from minicluster.model.events import Event, Listener
from minicluster.model.naming import container_name
from minicluster.model.redact import Redactor, secrets_in
from minicluster.operations import preflight, status, up
from minicluster.operations.stored_authority import secrets
from minicluster.paths import AnyPath, expanded

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, EngineEvent
    from minicluster.model.spec import Spec

_LOGS = "nodes"  # folder of the nodes' logs
_QUIET = 0.5  # seconds without a past event after which there are no more
_EVENTS_TIMEOUT = 5.0


def export(
    engine: Engine, spec: Spec, directory: AnyPath, nodes: list[str], tail: int | None, listener: Listener
) -> tuple[str, ...]:
    """Writes a folder about a cluster; what cannot be read is noted in its place.

    Args:
        directory: does not exist, or is empty.
        nodes: those whose logs are written.
        tail: of each log only so many last lines.

    Returns:
        The files, relative to the folder.

    Raises:
        UsageError: the folder is not empty, or cannot be written.
    """
    folder = expanded(directory)
    _create(folder, os.fspath(directory))
    redactor = Redactor(known_secrets(engine, spec))
    documents: dict[str, Callable[[], Any]] = {
        "versions.json": lambda: _versions(engine, spec),
        "engine.json": lambda: dataclasses.asdict(engine.info),
        "doctor.json": lambda: [dataclasses.asdict(check) for check in preflight.examine(spec.source or spec.profile)],
        "status.json": lambda: dataclasses.asdict(status.examine(engine, spec)),
        "containers.json": lambda: _containers(engine, spec),
        "spec.json": lambda: _readable(to_json(spec)),
        "plan.json": lambda: _plan(spec),
        "events.json": lambda: [dataclasses.asdict(event) for event in past_events(engine, spec.cluster)],
    }
    written = []
    try:
        for name, collect in documents.items():
            listener(Event("progress", "", "exporting", name))
            try:
                data = redactor.data(collect())
            except (MiniclusterError, TimeoutError) as error:
                data = {"error": redactor.text(str(error))}
            (folder / name).write_text(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n", "utf-8")
            written.append(name)
        (folder / _LOGS).mkdir()
        for node in nodes:
            name = f"{_LOGS}/{node}.log"
            listener(Event("progress", "", "exporting", name))
            (folder / name).write_text(redactor.text("".join(_log(engine, spec, node, tail))), "utf-8")
            written.append(name)
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or folder}", f"{error.strerror}.", "Name another folder."
        ) from None
    listener(Event("done", "", "exporting"))
    return tuple(written)


def _create(folder: Path, named: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(
                f"{named} is not empty", "Files of another export would be mixed up.", "Name a new folder."
            )
    except OSError as error:
        raise UsageError(f"cannot write {named}", f"{error.strerror}.", "Name another folder.") from None


def known_secrets(engine: Engine, spec: Spec) -> set[str]:
    """The secret values of a cluster: those that secret() gave, and those among settings and variables."""
    texts = [*_texts(dataclasses.asdict(spec))]
    found: set[str] = set()
    with contextlib.suppress(MiniclusterError):  # no node has the authority any more
        found.update(secrets(engine, spec, texts, None).values())
    for values in (spec.overrides.set, spec.env, *(node.env for node in spec.nodes)):
        found |= secrets_in({name: value for name, value in values.items() if readable(value) == value})
    return found | secrets_in(dict(os.environ))  # proxies of this machine are those of the nodes


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _readable(value: Any) -> Any:
    """Plain data with ``<NAME>`` where a value comes later."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, (list, tuple)) else value


def _versions(engine: Engine, spec: Spec) -> dict[str, Any]:
    return {
        "minicluster": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engine": engine.info.version,
        "profile": spec.profile,
        "images": {name: image.ref for name, image in spec.images.items()},
        "parts": {part.name: part.version for image in spec.images.values() for part in image.parts},
    }


def _containers(engine: Engine, spec: Spec) -> list[dict[str, Any]]:
    """What the engine says of the nodes' containers; labels left out, since they have the whole spec."""
    found = []
    for container in engine.containers(spec.cluster):
        about = {f.name: getattr(container, f.name) for f in dataclasses.fields(container) if f.name != "labels"}
        found.append({**about, "networks": sorted(container.networks), "exit_code": engine.exit_code(container.name)})
    return found


def _plan(spec: Spec) -> dict[str, Any]:
    """The plan that creates such a cluster. What its steps consist of is in the spec."""
    plan = up.from_nothing(spec)
    steps = [{"id": s.id, "node": s.node, "action": s.kind, "cause": s.cause, "needs": s.needs} for s in plan.steps]
    return {"headline": plan.headline, "steps": steps}


def past_events(engine: Engine, cluster: str) -> list[EngineEvent]:
    """The events of a cluster that the engine still has."""
    from minicluster.engine.protocol import Cancel

    found: list[EngineEvent] = []
    failed: list[MiniclusterError] = []
    stop, now = Cancel(), time.time()

    def receive() -> None:
        try:
            for event in engine.events(cluster, since=0, cancel=stop):
                if event.time > now:
                    return
                found.append(event)
        except MiniclusterError as error:
            failed.append(error)

    reading = threading.Thread(target=receive, daemon=True)
    reading.start()
    seen, end = -1, time.monotonic() + _EVENTS_TIMEOUT
    while reading.is_alive() and seen < len(found) and time.monotonic() < end:
        seen = len(found)
        reading.join(_QUIET)
    stop.set()
    reading.join(_QUIET)
    if failed and not found:
        raise failed[0]
    return list(found)


def _log(engine: Engine, spec: Spec, node: str, tail: int | None) -> Iterator[str]:
    try:
        for line in engine.logs(container_name(spec.cluster, node), tail=tail):
            yield f"{line.decode(errors='replace')}\n"
    except MiniclusterError as error:
        yield f"({error.what}. {error.why})\n"
