"""The private engine: a dockerd of minicluster's own, for machines where no container engine runs.

It shares nothing with any other dockerd: data root, socket, pid file, log and configuration are in
:func:`minicluster.paths.engine_directory`. The names of its bridge and firewall rules contain a hash of that folder's
path, and so does its containerd namespace, because dockerd uses the system's containerd where one runs. It keeps
running when the process that started it ends, and is found by its pid file, once the process is verified as ours.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minicluster import paths
from minicluster.engine.http import SOCKET_PATH_LIMIT, describe, get_json, ping, version
from minicluster.engine.private import bridge, cleanup
from minicluster.engine.private.layout import Layout, configuration, find_process, is_ours, tail
from minicluster.errors import EngineError, NoEngine
from minicluster.host import flock, processes, procfs
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import count
from minicluster.profile.addressing import POOL

#: Seconds for dockerd to answer after its start: a fraction of one is usual, but after a crash it first cleans up.
START_TIMEOUT = 60.0
#: Seconds for dockerd to end; it grants each container its own stop timeout first.
STOP_TIMEOUT = 90.0
#: Seconds to wait for another minicluster process that is starting or stopping the private engine right now.
LOCK_TIMEOUT = START_TIMEOUT + STOP_TIMEOUT

_POLL = 0.01  # seconds

# dockerd is our child until we end: the reference lets Python reap it, and avoids a warning that it still runs.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Status:
    """The state of the private engine."""

    running: bool
    directory: Path
    socket: Path
    data_root: Path
    log: Path
    pid: int = 0  #: 0 where it does not run
    version: str = ""  #: "" where it does not answer
    since: float = 0.0  #: when it started, in seconds since 1970
    size: int | None = None  #: bytes on disk of the data root; None where not asked for
    problem: str = ""  #: why it does not answer though it runs

    @property
    def url(self) -> str:
        """The URL of its API."""
        return f"unix://{self.socket}"


def obstacle() -> str:
    """Why a private engine cannot be started here, as a phrase; "" where it can."""
    if not sys.platform.startswith("linux"):
        return "it must run on Linux"
    if os.geteuid() != 0:
        return "it must run as root"
    if not _program("dockerd"):
        return "the program dockerd is not installed"
    return ""


def start(listener: Listener = ignore) -> Status:
    """Starts the private engine, unless it runs already, and waits until it answers.

    Args:
        listener: receives notes for the user.

    Raises:
        NoEngine: it cannot be started here, or dockerd ended or did not answer in time; has the end of its log.
    """
    layout = _layout()
    reason = obstacle()
    if reason:
        raise NoEngine(
            "the private engine cannot be started",
            f"{reason[0].upper()}{reason[1:]}.",
            "Install Docker's engine (Debian, Ubuntu: `sudo apt-get install docker.io`) and run this as root, "
            "or set DOCKER_HOST to an engine.",
        )
    length = len(str(layout.socket).encode())
    if length > SOCKET_PATH_LIMIT:
        raise NoEngine(
            "the path of the private engine's folder is too long",
            f"{layout.socket} has {length} bytes; a socket's path can have {SOCKET_PATH_LIMIT}.",
            "Set XDG_DATA_HOME to a folder with a shorter path.",
        )
    layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(layout):
        pid = find_process(layout)
        if pid:
            _wait_until_it_answers(layout, lambda: is_ours(pid, layout))
        else:
            _launch(layout, listener)
        return _status(layout)


def stop(listener: Listener = ignore, *, remove_data: bool = False) -> Status:
    """Stops the private engine and its containers, and removes everything of it except its data.

    Also removes what one that was killed has left.

    Args:
        listener: receives notes for the user.
        remove_data: also remove its folder, with all images, volumes and containers.

    Raises:
        EngineError: something could not be removed; the rest is.
    """
    layout = _layout()
    if not layout.directory.is_dir():
        return _status(layout)
    with _locked(layout):
        pid = find_process(layout)
        if not pid and cleanup.shims(layout):
            # Its containers outlived it. dockerd itself removes them most thoroughly: mounts, control groups, …
            listener(Event("note", text="The private engine was killed: starting it again to stop its containers."))
            with suppress(NoEngine, OSError):
                pid = _launch(layout, listener)
        devices = cleanup.bridges(layout)
        if pid:
            running = _running_containers(layout)
            if running:
                containers = count(running, "running container")
                listener(Event("note", text=f"Stopping the private engine and its {containers}."))
            _terminate(pid, layout)
        troubles = [*cleanup.clean(layout), *cleanup.each(bridge.remove, devices)]
        if remove_data:
            # Removing the folder would also remove the files of what is mounted in it.
            troubles += [f"{point} is still mounted." for point in procfs.mounts_below(layout.directory)]
        if remove_data and not troubles:
            cleanup.remove_namespaces(layout)
            troubles = cleanup.each(shutil.rmtree, [layout.directory])
    if troubles:
        raise EngineError(
            "the private engine is stopped, but some of it could not be removed",
            "\n".join(troubles),
            "Run `minicluster engine stop` again; a reboot removes the rest.",
        )
    return _status(layout)


def status(*, size: bool = False) -> Status:
    """The state of the private engine. Never raises.

    Args:
        size: also measure its data root, which takes seconds where there are many images.
    """
    return _status(_layout(), size=size)


def _layout() -> Layout:
    return Layout(paths.engine_directory().absolute())


def _program(name: str) -> str | None:
    return shutil.which(name, path=bridge.system_path())


def _launch(layout: Layout, listener: Listener) -> int:
    """Starts dockerd and waits until it answers; returns its process ID. Cleans up where that fails."""
    program = _program("dockerd") or "dockerd"
    cleanup.clear_stale(layout)
    try:
        subnet = bridge.ensure(layout.bridge)
    except OSError as error:
        raise NoEngine(
            "the private engine cannot be started",
            f"The kernel refuses the bridge device {layout.bridge}: {error.strerror}.",
            "It needs CAP_NET_ADMIN and the kernel's bridge driver (`modprobe bridge`).",
        ) from error
    process: subprocess.Popen[bytes] | None = None
    try:
        layout.config.write_text(json.dumps(configuration(layout), indent=2) + "\n", encoding="utf-8")
        process = _spawn(program, layout)
        # dockerd does not read these rules, so they are added while it starts. They cover the whole pool, although
        # another engine may route a part of it: what is free for clusters changes, and that engine's rules come first.
        subnets = [POOL] if subnet.subnet_of(POOL) else [POOL, subnet]
        trouble = bridge.allow(layout.chain, subnets)
        if trouble:
            listener(Event("note", text=trouble))
        _wait_until_it_answers(layout, lambda: process is not None and process.poll() is None)
    except BaseException:
        if process:
            _terminate(process.pid, layout)
            process.wait()
        cleanup.clean(layout)
        raise
    return process.pid


def _spawn(program: str, layout: Layout) -> subprocess.Popen[bytes]:
    # dockerd too reads variables of the docker client, such as DOCKER_TLS_VERIFY.
    skipped = ("DOCKER_", "LISTEN_", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(skipped)}
    environment["PATH"] = bridge.system_path()  # it runs containerd, runc, docker-proxy
    arguments = [
        program,
        layout.config_argument,
        f"--containerd-namespace={layout.namespace}",
        f"--containerd-plugins-namespace={layout.namespace}-plugins",
    ]
    with suppress(FileNotFoundError):
        layout.log.replace(layout.log.with_suffix(".log.1"))
    with _many_files(), layout.log.open("wb") as log:
        process = processes.start_detached(arguments, stdout=log, stderr=log, env=environment)
    _children.append(process)
    return process


@contextmanager
def _many_files() -> Iterator[None]:
    """Raises the limit on open files to what distributions grant dockerd's service; containers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20
    for limits in ((wanted, wanted), (hard, hard)):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _wait_until_it_answers(layout: Layout, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        living = alive()  # asked before the ping: an engine that ends right after its answer does not count
        try:
            ping(f"unix://{layout.socket}", timeout=2.0)
            if living:
                return
        except OSError as error:
            answer = describe(error)
        if not living:
            raise NoEngine(
                "the private engine ended while it was starting",
                f"The end of {layout.log}:\n{tail(layout.log)}",
                "Fix what its log reports, then try again.",
            )
        if time.monotonic() > deadline:
            raise NoEngine(
                f"the private engine does not answer after {START_TIMEOUT:.0f} s",
                f"{layout.socket}: {answer}\nThe end of {layout.log}:\n{tail(layout.log)}",
                "Stop it with `minicluster engine stop`, then try again.",
            )
        time.sleep(_POLL)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """One start or stop at a time."""
    held = flock.wait(layout.lock, until=time.monotonic() + LOCK_TIMEOUT)
    if held is None:
        raise NoEngine(
            "the private engine is being started or stopped by another process",
            f"{layout.lock} was locked for {LOCK_TIMEOUT:.0f} s.",
            "Wait for the other minicluster process, or stop it.",
        )
    with held:
        yield


def _terminate(pid: int, layout: Layout) -> None:
    """Ends dockerd: by SIGTERM, and by SIGKILL when that takes too long."""
    for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience
        with suppress(ProcessLookupError):
            if is_ours(pid, layout):  # checked again: the ID could be another process's by now
                os.kill(pid, number)
        while is_ours(pid, layout):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        else:
            return


def _running_containers(layout: Layout) -> int:
    try:
        return len(get_json(f"unix://{layout.socket}", "/containers/json", timeout=5.0))
    except OSError:
        return 0


def _status(layout: Layout, *, size: bool = False) -> Status:
    pid = find_process(layout)
    words, problem = "", ""
    if pid:
        try:
            words = version(f"unix://{layout.socket}")
        except OSError as error:
            problem = describe(error)
    return Status(
        running=bool(pid),
        directory=layout.directory,
        socket=layout.socket,
        data_root=layout.data,
        log=layout.log,
        pid=pid,
        version=words,
        since=procfs.started(pid) if pid else 0.0,
        size=procfs.disk_usage(layout.data) if size else None,
        problem=problem,
    )
