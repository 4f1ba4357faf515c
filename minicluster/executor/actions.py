"""Carries out one step: a function for each action that takes more than one engine call."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

from minicluster.engine.protocol import File
from minicluster.errors import Interrupted, MiniclusterError, NodeFailed, NotFound, NotReady
from minicluster.executor.run import Run
from minicluster.executor.waiting import ask_any, log_tail, wait_members, wait_ready
from minicluster.model import labels
from minicluster.model.codec import encode
from minicluster.model.deferred import SECRET, fill, readable
from minicluster.model.events import Event
from minicluster.model.naming import container_name
from minicluster.plan import steps as m
from minicluster.plan.steps import Action, Fallback, PutFiles, RunHook, Step

_LEAVE_PATIENCE = 60.0  # seconds that a best-effort hook has when nodes leave: moving work away takes its time
_MEMBERS_PATIENCE = 10.0  # seconds that members have to answer who is ready
_CHUNK = 1 << 20

#: What a step's node is doing meanwhile, for people; a hook says so itself.
_PHASES: dict[type, str] = {
    m.ProvideImage: "image",
    m.Record: "recording",
    m.CreateNetwork: "creating network",
    m.ConnectNetwork: "connecting",
    m.DisconnectNetwork: "disconnecting",
    m.CreateVolume: "creating",
    m.CreateContainer: "creating",
    m.PutFiles: "configuring",
    m.StartContainer: "starting",
    m.WaitReady: "booting",
    m.SaveImage: "saving image",
    m.CopyImage: "loading",
    m.RemoveFile: "loading",
    m.WaitMembers: "converging",
    m.StopContainer: "stopping",
    m.KillContainer: "killing",
    m.PauseContainer: "pausing",
    m.UpdateContainer: "configuring",
    m.RemoveContainer: "removing",
    m.RemoveVolume: "removing",
    m.RemoveNetwork: "removing network",
}


def phase(action: Action) -> str:
    """What a step's node is doing meanwhile, for people."""
    return action.phase if isinstance(action, RunHook) else _PHASES[type(action)]


def perform(step: Step, run: Run) -> None:
    """Carries out a step."""
    engine = run.engine
    match step.action:
        case m.ProvideImage(image):
            assert run.provide_image, "the plan needs an image"
            run.provide_image(image, run.cancel)
        case m.Record(volume, revision, about, spec):
            label = {labels.REVISION: str(revision), labels.SPEC: encode(spec) if spec else ""}
            engine.create_volume(volume, {**about, **label})
        case m.CreateNetwork(name, subnet, gateway, dynamic_range, about):
            engine.create_network(name, subnet, gateway, dynamic_range, about)
        case m.ConnectNetwork(network, container, aliases):
            engine.connect_network(network, container, aliases)
        case m.DisconnectNetwork(network, container):
            engine.disconnect_network(network, container)
        case m.CreateVolume(name, about):
            engine.create_volume(name, about)
        case m.CreateContainer(config):
            engine.create_container(config)
        case PutFiles():
            engine.put_files(step.action.container, _files(step.action, run))
        case m.StartContainer(name):
            engine.start_container(name)
        case m.WaitReady(container, command):
            wait_ready(container, command, run)
        case RunHook():
            _run_hook(step, step.action, run)
        case m.SaveImage(image):
            _save_image(image, run)
        case m.CopyImage(image, container, path):
            _copy_image(image, container, path, run)
        case m.RemoveFile(container, path):
            with contextlib.suppress(MiniclusterError):  # the node may be gone
                engine.exec(container, ["rm", "-f", path])
        case m.WaitMembers(container, command, names):
            wait_members(container, command, names, run)
        case m.StopContainer(name):
            engine.stop_container(name)
        case m.KillContainer(name):
            engine.kill_container(name)
        case m.PauseContainer(name):
            engine.pause_container(name)
        case m.UpdateContainer(name, restart):
            engine.update_container(name, restart)
        case m.RemoveContainer(name):
            engine.remove_container(name)
        case m.RemoveVolume(name):
            engine.remove_volume(name)
        case m.RemoveNetwork(name):
            engine.remove_network(name)


def _files(action: PutFiles, run: Run) -> list[File]:
    from minicluster import pki

    authority = run.authority
    assert authority, "the plan needs a certificate authority"

    def secret(match: re.Match[str]) -> str:
        return authority.secret(match[1], match[2])

    files = [File(f.path, SECRET.sub(secret, f.content).encode(), f.mode, f.uid, f.gid) for f in action.files]
    for wanted in action.certificates:
        issued = authority.issue(wanted)
        files += [
            File(f"{wanted.directory}/ca.pem", issued.ca),
            File(f"{wanted.directory}/cert.pem", issued.certificate),
            File(f"{wanted.directory}/key.pem", issued.key, 0o600),
        ]
    if action.authority:
        files.append(File(pki.PATH, authority.dump(), 0o600))
    return files


def _save_image(image: str, run: Run) -> None:
    archive = run.archives[image] = tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end of the plan)
    for chunk in run.engine.save_image(image):
        if run.cancel.is_set():
            raise Interrupted(f"stopped saving {image}")
        archive.write(chunk)
    archive.flush()  # os.pread does not see Python's buffer


def _copy_image(image: str, container: str, path: str, run: Run) -> None:
    descriptor = run.archives[image].fileno()

    def content() -> Iterator[bytes]:
        at = 0
        while chunk := os.pread(descriptor, _CHUNK, at):  # each node reads at its own pace
            if run.cancel.is_set():
                raise Interrupted(f"stopped copying {image}")
            at += len(chunk)
            yield chunk

    run.engine.put_archive_file(container, path, content(), os.fstat(descriptor).st_size)


# Hooks


def _run_hook(step: Step, action: RunHook, run: Run) -> None:
    try:
        lines = _run_in(action.container, action, run)
    except (NodeFailed, NotFound) as error:
        if action.fallback:
            lines = _fall_back(step, action, action.fallback, run, error)
        elif action.best_effort:  # the node may be gone already, if an interrupted change goes on
            run.listener(Event("note", step.node, text=f"{step.node}: {error.what}; continuing"))
            return
        else:
            raise
    except NotReady as error:
        if not action.best_effort:
            raise
        run.listener(Event("note", step.node, text=f"{step.node}: {error.what}; continuing"))
        return
    if len(lines) < len(action.capture):
        raise NodeFailed(
            f"`{readable(' '.join(action.command))}` in {action.container} printed {len(lines)} lines",
            f"The profile captures {len(action.capture)}: {', '.join(action.capture)}.",
        )
    for name, line in zip(action.capture, lines, strict=False):
        run.captured[f"captured.{name}"] = line.strip()


def _run_in(container: str, action: RunHook, run: Run) -> list[str]:
    """Runs a hook's command in a node; the lines that it printed."""
    argv, shown = fill(action.command, run.captured), readable(" ".join(action.command))
    patience = min(_LEAVE_PATIENCE, run.timeout) if action.best_effort else run.remaining()
    try:
        result = run.engine.exec(container, argv, timeout=patience, cancel=run.cancel)
    except TimeoutError:
        raise NotReady(
            f"`{shown}` in {container} did not end in time",
            f"The end of its log:\n{log_tail(run.engine, container)}",
            "Give it longer with --timeout, or inspect it with --keep.",
        ) from None
    if result.exit_code != 0:
        raise NodeFailed(
            f"`{shown}` failed in {container} with status {result.exit_code}",
            _masked((result.stderr or ("" if action.capture else result.stdout)).strip(), run),
            "Run it again with --keep to inspect what is left.",
        )
    return result.stdout.splitlines()


def _masked(text: str, run: Run) -> str:
    """What hooks captured are secrets, and commands often repeat their arguments in errors."""
    for value in filter(None, run.captured.values()):
        text = text.replace(value, "***")
    return text


def _fall_back(step: Step, action: RunHook, fallback: Fallback, run: Run, failed: NodeFailed | NotFound) -> list[str]:
    """Runs a failed hook on other nodes; see :class:`Fallback`.

    The members are asked only now: their answer takes longer than most hooks, and normally any node will do.
    """
    names = [*fallback.nodes]
    patience = min(_MEMBERS_PATIENCE, run.remaining() or _MEMBERS_PATIENCE)
    members, _why = ask_any(run.engine, fallback.asked, fallback.command, timeout=patience)
    if members is not None:
        healthy = [name for name in names if name in members and members[name].ready]
        names = sorted(healthy, key=lambda name: not members[name].leader)
    for name in names:
        run.listener(Event("progress", step.node, action.phase, f"{action.command[0]} on {name}"))
        try:
            return _run_in(container_name(run.cluster, name), action, run)
        except (NodeFailed, NotFound) as error:
            failed = error
    raise failed
