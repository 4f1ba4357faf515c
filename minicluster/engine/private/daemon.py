"""The private engine: a dockerd of minicluster's own, for machines where no container engine runs.

It shares nothing with any other dockerd: data root, socket, pid file, log and configuration lie in
:func:`minicluster.paths.engine_directory`, its bridge and firewall rules carry a tag made from that folder, and so does
its containerd namespace, because dockerd uses the system's containerd where one runs. It lives on when the process that
started it ends, and is found again through its pid file, which counts only if the process is really ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
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
from typing import Any

from minicluster import paths
from minicluster.engine.ping import SOCKET_PATH_LIMIT, describe, get_json, ping, version
from minicluster.engine.private import bridge
from minicluster.errors import EngineError, NoEngine
from minicluster.host import flock, procfs
from minicluster.model.events import Event, Listener, ignore

#: Seconds for dockerd to answer after its start. It takes a fraction of one, but after a crash it first cleans up.
START_TIMEOUT = 60.0
#: Seconds for dockerd to end; it grants each container its own stop timeout first.
STOP_TIMEOUT = 90.0
#: Seconds to wait for another minicluster that is starting or stopping the private engine right now.
LOCK_TIMEOUT = START_TIMEOUT + STOP_TIMEOUT

_POLL = 0.01  # seconds

#: Settings of the machine's own dockerd that say how to reach the outside world: they hold for a second one as well.
_SHARED_SETTINGS = ("registry-mirrors", "insecure-registries", "dns", "dns-opts", "dns-search", "mtu")
_SYSTEM_CONFIG = Path("/etc/docker/daemon.json")

# dockerd is our child until we end: keeping it here lets Python reap it, and keeps it from warning that it still runs.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Layout:
    """Where one private engine has its things."""

    directory: Path

    @property
    def tag(self) -> str:
        """Eight hexadecimal digits that tell this private engine's devices, chains and processes from another's."""
        return hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:8]

    @property
    def socket(self) -> Path:
        return self.directory / "docker.sock"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def pid_file(self) -> Path:
        return self.directory / "docker.pid"

    @property
    def config(self) -> Path:
        return self.directory / "daemon.json"

    @property
    def log(self) -> Path:
        return self.directory / "dockerd.log"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def run(self) -> Path:
        """What shall not outlive a reboot: sockets, state of running containers, handles of network namespaces."""
        return Path("/run") / f"minicluster-{self.tag}"

    @property
    def bridge(self) -> str:
        return f"minicl-{self.tag}"  # 15 characters, the longest name that a network device may have

    @property
    def chain(self) -> str:
        return f"MINICLUSTER-{self.tag}"

    @property
    def namespace(self) -> str:
        return f"minicluster-{self.tag}"

    @property
    def config_argument(self) -> str:
        """The argument that tells our dockerd from every other process."""
        return f"--config-file={self.config}"


@dataclass(frozen=True)
class Status:
    """The private engine as it is now."""

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
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root"
    if not _program("dockerd"):
        return "dockerd is not installed"
    return ""


def start(listener: Listener = ignore) -> Status:
    """Starts the private engine and waits until it answers; where it runs already, only the latter.

    Args:
        listener: is told, as notes, what the user should know.

    Raises:
        NoEngine: it cannot be started here, or dockerd ended or did not answer in time; with the end of its log.
    """
    layout = _layout()
    reason = obstacle()
    if reason:
        raise NoEngine(
            "the private engine cannot be started",
            f"On this machine, {reason}.",
            "Install Docker's engine (Debian, Ubuntu: `sudo apt-get install docker.io`) and run this as root, "
            "or set DOCKER_HOST to an engine.",
        )
    length = len(str(layout.socket).encode())
    if length > SOCKET_PATH_LIMIT:
        raise NoEngine(
            "the private engine's folder has too long a path",
            f"{layout.socket} has {length} bytes, and a socket's path at most {SOCKET_PATH_LIMIT}.",
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
    """Stops the private engine and its containers, and removes everything of it but its data.

    Does the same for one that was killed: whatever it left is removed.

    Args:
        listener: is told, as notes, what the user should know.
        remove_data: also remove its folder, with all images, volumes and containers.

    Raises:
        EngineError: something could not be removed; the rest is.
    """
    layout = _layout()
    if not layout.directory.is_dir():
        return _status(layout)
    with _locked(layout):
        pid = find_process(layout)
        if not pid and _shims(layout):
            # Its containers outlived it. Nobody takes them down as well as it does itself: mounts, control groups, …
            listener(
                Event("note", text="The private engine was killed: starting it once more, to stop its containers.")
            )
            with suppress(NoEngine, OSError):
                pid = _launch(layout, listener)
        devices = _bridges(layout)
        if pid:
            running = _running_containers(layout)
            if running:
                which = "container" if running == 1 else "containers"
                listener(Event("note", text=f"The private engine stops, and with it its {running} running {which}."))
            _terminate(pid, layout)
        troubles = [*_clean(layout), *_each(bridge.remove, devices)]
        if remove_data:
            # Removing what is mounted there would remove files of others.
            troubles += [f"{point} is still mounted." for point in procfs.mounts_below(layout.directory)]
        if remove_data and not troubles:
            _forget_namespaces(layout)
            troubles = _each(shutil.rmtree, [layout.directory])
    if troubles:
        raise EngineError(
            "the private engine is stopped, but not all of it could be removed",
            "\n".join(troubles),
            "Run `minicluster engine stop` again; a reboot clears the rest.",
        )
    return _status(layout)


def status(*, size: bool = False) -> Status:
    """How the private engine is. Never raises.

    Args:
        size: also measure its data root, which takes a while where there are many images.
    """
    return _status(_layout(), size=size)


def find_process(layout: Layout, root: Path = Path("/")) -> int:
    """The process id of this layout's dockerd; 0 where it does not run.

    A pid file may be left from before a crash or a reboot, and its number belong to somebody else by now; it may also
    be missing. What the process was started with is what counts.
    """
    try:
        pid = int(layout.pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        pid = 0
    if pid > 0 and is_ours(pid, layout, root):
        return pid
    return next((found for found, words in procfs.processes(root) if layout.config_argument in words), 0)


def is_ours(pid: int, layout: Layout, root: Path = Path("/")) -> bool:
    """Whether that process is this layout's dockerd, and alive (a zombie has no command line)."""
    return layout.config_argument in procfs.command_line(root / "proc" / str(pid))


def _layout() -> Layout:
    return Layout(paths.engine_directory().absolute())


def _program(name: str) -> str | None:
    return shutil.which(name, path=bridge.system_path())


def _launch(layout: Layout, listener: Listener) -> int:
    """Starts dockerd and waits until it answers; returns its process id. Takes everything back where that fails."""
    program = _program("dockerd") or "dockerd"
    _clear_stale(layout)
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
        # dockerd does not look at these rules, so they are made while it starts. The whole pool, though another engine
        # may route a part of it: what is free for a cluster changes while we run, and that engine's rules come first.
        subnets = [bridge.POOL] if subnet.subnet_of(bridge.POOL) else [bridge.POOL, subnet]
        trouble = bridge.allow(layout.chain, subnets)
        if trouble:
            listener(Event("note", text=trouble))
        _wait_until_it_answers(layout, lambda: process is not None and process.poll() is None)
    except BaseException:
        if process:
            _terminate(process.pid, layout)
            process.wait()
        _clean(layout)
        raise
    return process.pid


def configuration(layout: Layout, system_config: Path = _SYSTEM_CONFIG) -> dict[str, Any]:
    """What goes into our dockerd's ``daemon.json``: it reads this in place of the machine's own."""
    try:
        system = json.loads(system_config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        system = {}
    shared = {key: system[key] for key in _SHARED_SETTINGS if key in system} if isinstance(system, dict) else {}
    return {
        **shared,
        "hosts": [f"unix://{layout.socket}"],
        "data-root": str(layout.data),
        "exec-root": str(layout.run),
        "pidfile": str(layout.pid_file),
        "bridge": layout.bridge,
        "iptables": False,  # see minicluster.engine.private.bridge
        # No "default-address-pools", though networks made without a subnet then lie where our firewall rules let
        # nobody out: with it, dockerd deletes the device docker0 at its second start, whoever that belongs to (moby's
        # initNetworkController, after it found a bridge network of an earlier run).
        "log-driver": "json-file",
        "log-opts": {"max-size": "20m", "max-file": "2"},
    }


def _spawn(program: str, layout: Layout) -> subprocess.Popen[bytes]:
    # dockerd takes defaults from the docker client's variables too, such as DOCKER_TLS_VERIFY.
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
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,  # Ctrl-C and the end of a terminal are for us, not for it
        )
    _children.append(process)
    return process


@contextmanager
def _many_files() -> Iterator[None]:
    """Raises the limit on open files to what the service of the distributions grants dockerd; containers inherit it."""
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
        living = alive()  # asked before the ping: one that answers and ends at once is none
        try:
            ping(f"unix://{layout.socket}", timeout=2.0)
            if living:
                return
        except OSError as error:
            answer = describe(error)
        if not living:
            raise NoEngine(
                "the private engine ended as soon as it was started",
                f"The end of {layout.log}:\n{tail(layout.log)}",
                "Remove the cause that its log names, then try again.",
            )
        if time.monotonic() > deadline:
            raise NoEngine(
                f"the private engine does not answer after {START_TIMEOUT:.0f} s",
                f"{layout.socket}: {answer}\nThe end of {layout.log}:\n{tail(layout.log)}",
                "Stop it with `minicluster engine stop`, and try again.",
            )
        time.sleep(_POLL)


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log of dockerd: only its warnings and errors where it has some, as its cause of death is one."""
    try:
        text = log.read_bytes()[-65536:].decode("utf-8", "replace").splitlines()
    except OSError:
        return "(there is no log)"
    # Errors of dockerd's own code come without a level, as the bare last line.
    telling = [line for line in text if "level=" not in line or re.search(r"level=(warn|err|fatal|panic)", line)]
    return "\n".join((telling or text)[-lines:]) or "(the log is empty)"


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """One start or stop at a time."""
    held = flock.wait(layout.lock, until=time.monotonic() + LOCK_TIMEOUT)
    if held is None:
        raise NoEngine(
            "the private engine is being started or stopped by another process",
            f"{layout.lock} was locked for {LOCK_TIMEOUT:.0f} s.",
            "Find the other minicluster and end it.",
        )
    with held:
        yield


def _clear_stale(layout: Layout) -> None:
    """Removes what a dockerd that no longer runs left and that would keep the next one from starting."""
    layout.socket.unlink(missing_ok=True)
    # dockerd itself refuses to start when the pid in the file belongs to any process at all.
    layout.pid_file.unlink(missing_ok=True)
    # It takes any process with the number in this file for its containerd, and waits for it in vain. A containerd that
    # outlived its dockerd is no loss: the containers are held by its shims, which the next one finds.
    procfs.kill_all(lambda: _processes_with(layout, _containerd_config(layout)))
    (layout.run / "containerd" / "containerd.pid").unlink(missing_ok=True)
    mark = layout.run / "boot-id"
    boot = procfs.read("/proc/sys/kernel/random/boot_id")
    if layout.run.exists() and procfs.read(mark) != boot:
        procfs.unmount(
            procfs.mounts_below(layout.run)
        )  # /run is not always a tmpfs: in containers and small systems it may be a folder
        shutil.rmtree(layout.run, ignore_errors=True)
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.write_text(boot, encoding="ascii")


def _terminate(pid: int, layout: Layout) -> None:
    """Ends dockerd: as it wishes, and by force when it takes too long."""
    for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience
        with suppress(ProcessLookupError):
            if is_ours(pid, layout):  # checked again: the number could be another's by now
                os.kill(pid, number)
        while is_ours(pid, layout):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        else:
            return


def _clean(layout: Layout) -> list[str]:
    """Removes all that a stopped private engine has outside its data; returns what could not be removed."""
    _kill_containers(layout)
    points = [*procfs.mounts_below(layout.run), *procfs.mounts_below(layout.data)]
    if procfs.mounted_on_itself(layout.data):
        points.append(str(layout.data))  # dockerd undoes that itself, unless it was killed
    procfs.unmount(points)
    troubles = _each(Path.unlink, [path for path in (layout.socket, layout.pid_file) if path.exists()])
    troubles += _each(shutil.rmtree, [layout.run] if layout.run.exists() else [])
    troubles += _each(bridge.remove, [layout.bridge])
    bridge.forbid(layout.chain)
    return troubles


def _forget_namespaces(layout: Layout) -> None:
    """Removes our namespaces, by now empty, from the system's containerd, if that is where our containers were."""
    address, ctr = Path("/run/containerd/containerd.sock"), _program("ctr")
    if address.exists() and ctr:
        names = (layout.namespace, f"{layout.namespace}-plugins")
        with suppress(OSError, subprocess.TimeoutExpired):
            command = [ctr, "--address", str(address), "namespaces", "remove", *names]
            subprocess.run(command, capture_output=True, timeout=5.0, check=False)


def _each(action: Callable[[Any], object], things: list[Any]) -> list[str]:
    """Does it to each; returns what went wrong, a sentence each."""
    troubles = []
    for thing in things:
        try:
            action(thing)
        except OSError as error:
            troubles.append(f"{thing}: {error.strerror or error}.")
    return troubles


def _bridges(layout: Layout) -> list[str]:
    """The bridge devices of its networks: dockerd leaves them when it ends, and makes them again when it starts.

    Read from dockerd's own record, which is there whether it runs or not. A device of that name is nobody else's: it
    is made from 48 random bits.
    """
    try:
        record = (layout.data / "network/files/local-kv.db").read_bytes()
    except OSError:
        return []
    names = {match.decode() for match in re.findall(rb'"BridgeName":"((?:br|mc)-[0-9a-f]{12})"', record)}
    return sorted(name for name in names if bridge.exists(name))


def _running_containers(layout: Layout) -> int:
    try:
        return len(get_json(f"unix://{layout.socket}", "/containers/json", timeout=5.0))
    except OSError:
        return 0


def _containerd_config(layout: Layout) -> str:
    return str(layout.run / "containerd" / "containerd.toml")


def _processes_with(layout: Layout, *arguments: str) -> list[int]:
    """The processes that were started with one of these arguments; never dockerd itself."""
    wanted = set(arguments)
    return [pid for pid, words in procfs.processes() if wanted & set(words) and layout.config_argument not in words]


def _shims(layout: Layout) -> list[int]:
    """The processes that hold its containers."""
    return _processes_with(layout, layout.namespace, f"{layout.namespace}-plugins")


def _kill_containers(layout: Layout) -> None:
    """Kills what is left of its containers; nothing is, where dockerd ended in order."""
    procfs.kill_all(lambda: _processes_with(layout, _containerd_config(layout)))
    # Children first: without its shim, a container lives on as a child of init, and nothing tells that it is ours.
    groups = {word for pid in _shims(layout) for word in procfs.command_line(Path(f"/proc/{pid}")) if _is_id(word)}
    procfs.kill_all(lambda: [*procfs.descendants(_shims(layout)), *_shims(layout)])
    procfs.remove_control_groups(groups)


def _is_id(word: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", word) is not None


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
