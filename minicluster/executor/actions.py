"""Carries out one step: a function for each action that takes more than one engine call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from minicluster.engine.protocol import NetworkConfig
from minicluster.errors import Interrupted, MiniclusterError
from minicluster.executor import disks
from minicluster.executor.hooks import run_hook
from minicluster.executor.node_files import node_files
from minicluster.executor.thaw import start, thawing
from minicluster.executor.waiting import wait_members, wait_ready
from minicluster.host import spool
from minicluster.model import labels
from minicluster.model.codec import encode
from minicluster.model.events import Event
from minicluster.model.naming import size
from minicluster.plan import steps as m
from minicluster.plan.steps import Action, PutFiles, RunHook, Step

if TYPE_CHECKING:
    from minicluster.executor.run import Run

_CHUNK = 1 << 20

#: What a step's node is doing, for people; a hook has a phase of its own.
_PHASES: dict[type, str] = {
    m.ProvideImage: "image",
    m.Record: "recording",
    m.CreateNetwork: "creating network",
    m.ConnectNetwork: "connecting",
    m.DisconnectNetwork: "disconnecting",
    m.CreateVolume: "preparing",  # the only step of a node that does not wait for its image
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
    m.ForgetHost: "forgetting host",
    m.UpdateContainer: "configuring",
    m.RemoveContainer: "removing",
    m.RemoveVolume: "removing",
    m.RemoveNetwork: "removing network",
}


def phase(action: Action) -> str:
    """What a step's node is doing, for people."""
    return action.phase if isinstance(action, RunHook) else _PHASES[type(action)]


def perform(step: Step, run: Run) -> None:
    """Carries out a step."""
    engine = run.engine
    match step.action:
        case m.ProvideImage(image, hosts):
            assert run.provide_image, "the plan needs an image"
            run.provide_image(image, run.cancel)
            _give_image(image.ref, hosts, run)
        case m.Record(volume, revision, about, spec):
            label = {labels.REVISION: str(revision), labels.SPEC: encode(spec) if spec else ""}
            engine.create_volume(volume, {**about, **label})
        case m.CreateNetwork(name, subnet, gateway, dynamic_range, about):
            engine.create_network(NetworkConfig(name, subnet, gateway, dynamic_range, about))
        case m.ConnectNetwork(network, container, aliases):
            engine.connect_network(network, container, aliases)
        case m.DisconnectNetwork(network, container):
            with thawing(engine, container, ends=True):  # a removal begins with it
                engine.disconnect_network(network, container)
        case m.CreateVolume(name, about, disk):
            if disk:
                disks.create(engine, name, about, disk)
            else:
                engine.create_volume(name, about)
        case m.CreateContainer(config):
            engine.create_container(config)
        case PutFiles():
            assert run.authority, "the plan needs a certificate authority"
            engine.put_files(step.action.container, node_files(step.action, run.authority, run.values))
        case m.StartContainer(name):
            start(engine, name)
        case m.WaitReady(container, command):
            wait_ready(container, command, run)
        case RunHook():
            run_hook(step, step.action, run)
        case m.SaveImage(image):
            _save_image(image, run)
        case m.CopyImage(image, container, path):
            _copy_image(image, container, path, run)
        case m.RemoveFile(container, path):
            with contextlib.suppress(MiniclusterError, TimeoutError):  # the node may no longer exist, or hang
                engine.exec(container, ["rm", "-f", path], timeout=10.0)
        case m.WaitMembers(container, command, names):
            wait_members(container, command, names, run)
        case m.StopContainer(name, seconds):
            with thawing(engine, name, stops=seconds, ends=True):
                engine.stop_container(name)
        case m.KillContainer(name):
            with thawing(engine, name, ends=True):
                engine.kill_container(name)
        case m.PauseContainer(name):
            with thawing(engine, name):
                engine.pause_container(name)
        case m.ForgetHost(_host, id_):
            engine.forget_swarm_node(id_)
        case m.UpdateContainer(name, restart):
            engine.update_container(name, restart)
        case m.RemoveContainer(name):
            with thawing(engine, name, ends=True):
                engine.remove_container(name)
        case m.RemoveVolume(name, disk):
            if disk:
                disks.remove(engine, name)
            else:
                engine.remove_volume(name)
        case m.RemoveNetwork(name):
            engine.remove_network(name)


def _save_image(image: str, run: Run) -> None:
    if image in run.archives:  # it was saved before, to look into it
        return
    archive = run.archives[image] = spool.temporary()  # closed at the end of the plan
    with spool.writing():
        for chunk in run.engine.save_image(image):
            if run.cancel.is_set():
                raise Interrupted(f"stopped saving {image}")
            archive.write(chunk)
        archive.flush()  # os.pread does not see Python's buffer


def _give_image(ref: str, hosts: Sequence[str], run: Run) -> None:
    """Streams an image to the hosts that lack it: it is read once, and sent to all at the same time."""
    engines = {name: run.engine.hosts[name] for name in hosts if name in run.engine.hosts}
    lacking = {name: engine for name, engine in engines.items() if not engine.has_image(ref)}
    if not lacking:
        return
    _save_image(ref, run)
    total = os.fstat(run.archives[ref].fileno()).st_size
    names = ", ".join(lacking)
    run.listener(Event("note", text=f"copying image {ref} to {names}: {size(total)} each"))
    with ThreadPoolExecutor(len(lacking)) as pool:
        for done in [pool.submit(engine.load_images, _chunks(ref, run)) for engine in lacking.values()]:
            done.result()


def _chunks(image: str, run: Run) -> Iterator[bytes]:
    """A saved image; each reader reads at its own pace."""
    descriptor, at = run.archives[image].fileno(), 0
    while chunk := os.pread(descriptor, _CHUNK, at):
        if run.cancel.is_set():
            raise Interrupted(f"stopped copying {image}")
        at += len(chunk)
        yield chunk


def _copy_image(image: str, container: str, path: str, run: Run) -> None:
    total = os.fstat(run.archives[image].fileno()).st_size
    run.engine.put_archive_file(container, path, _chunks(image, run), total)
