"""Finds the engine to use: where to look, in which order, and what to advise a user who has none.

An engine that the user named (``DOCKER_HOST``, a docker context) is used or is an error; only where none is named are
the usual places searched. Nothing else imports :mod:`minicluster.engine.docker`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.engine import client_config
from minicluster.engine.address import EngineAddress
from minicluster.engine.http import Api, ConnectionLost, describe, ping
from minicluster.errors import NoEngine, UsageError, nearest
from minicluster.model.events import Event, Listener, ignore

if TYPE_CHECKING:
    from minicluster.engine.hosts import HostsEngine
    from minicluster.engine.protocol import Engine

#: Seconds that an engine in one of the usual places has to answer.
SEARCH_TIMEOUT = 2.0
#: Seconds for one that the user named: it may be remote, or a virtual machine that is starting.
NAMED_TIMEOUT = 5.0
#: Seconds for one by ssh, of which the login may take most.
SSH_TIMEOUT = 10.0

PRIVATE = "private engine"  #: the source of minicluster's own engine


@dataclass(frozen=True)
class Attempt:
    """A place that was searched, and where no engine answered."""

    source: str
    url: str
    error: OSError

    def __str__(self) -> str:
        return f"{self.source} {self.url}: {describe(self.error)}"


def connect(*, start_private: bool = False, listener: Listener = ignore) -> Engine:
    """The engine to use.

    Args:
        start_private: where there is none, and this machine can run one, start minicluster's private engine.
        listener: receives a note when that happens.

    Raises:
        NoEngine: no engine answers; it lists each place that was tried, why it failed, and the fix for this platform.
    """
    address = locate(start_private=start_private, listener=listener)
    from minicluster.engine.docker.engine import DockerEngine

    return DockerEngine(address)


def open_private() -> Engine:
    """minicluster's private engine. Raises ``NoEngine`` where it does not run."""
    from minicluster.engine.docker.engine import DockerEngine
    from minicluster.engine.private import daemon

    return DockerEngine(
        _answering(EngineAddress(daemon.status().url, PRIVATE), "Start it with `minicluster engine start`.")
    )


def reach(reference: str) -> Engine:
    """The engine with this :attr:`~minicluster.engine.protocol.Engine.reference`, whether it answers or not."""
    from minicluster.engine.docker.engine import DockerEngine

    if names := hosts_in(reference):
        return open_hosts(known_hosts(names) or names)
    return DockerEngine(EngineAddress.load(reference))


def hosts_in(reference: str) -> list[str]:
    """The hosts that an engine's reference names; none where it is one engine's."""
    try:
        data = json.loads(reference)
    except ValueError:
        return []
    if not isinstance(data, dict) or "hosts" not in data:
        return []
    return sorted({*data["hosts"], *data.get("gone", ())})


def known_hosts(names: Iterable[str]) -> list[str]:
    """Of hosts those that have a docker context; one whose context was removed is given up, and not waited for."""
    known = {*client_config.contexts(), "default"}
    return [name for name in names if name in known]


def open_hosts(names: Sequence[str], *, strict: bool = True) -> HostsEngine:
    """The engines of hosts as one. Hosts are docker contexts; all are asked at once whether they answer.

    Args:
        strict: a context that cannot be used is an error; otherwise it is a host that does not answer.

    Raises:
        UsageError: see :func:`host_address`; only if ``strict``.
        NoEngine: none of them answers.
    """
    from concurrent.futures import ThreadPoolExecutor

    from minicluster.engine.docker.engine import DockerEngine
    from minicluster.engine.hosts import HostsEngine

    addresses: dict[str, EngineAddress] = {}
    gone: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            addresses[name] = host_address(name)
        except UsageError as error:
            if strict:
                raise
            gone[name] = error.what.removeprefix(f"host {name}: ")
    with ThreadPoolExecutor(len(addresses) or 1) as pool:
        answers = dict(zip(addresses, pool.map(_answer_of_host, addresses.values()), strict=True))
    gone |= {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    hosts = {name: DockerEngine(answer) for name, answer in answers.items() if isinstance(answer, EngineAddress)}
    if not hosts:
        urls = {name: f" ({address.url})" for name, address in addresses.items()}
        why = "\n".join(f"{name}{urls.get(name, '')}: {said}" for name, said in gone.items())
        raise NoEngine("no host answers", why, "Start their engines; `docker context ls` lists the contexts.")
    return HostsEngine(hosts, gone, _home)


def opener() -> Callable[[Sequence[str]], Engine]:
    """:func:`open_hosts`, which opens the same hosts once: where some do not answer, each attempt takes seconds."""
    from concurrent.futures import Future

    @cache
    def opened(hosts: tuple[str, ...]) -> Future[Engine]:
        done: Future[Engine] = Future()
        try:
            done.set_result(open_hosts(hosts))
        except NoEngine as error:
            done.set_exception(error)
        return done

    return lambda hosts: opened(tuple(hosts)).result()


def host_address(name: str) -> EngineAddress:
    """The address of a host, which is a docker context; "default" is the engine that is used without one.

    Raises:
        UsageError: there is no such context, it has no docker endpoint, or that is reached by TCP without TLS.
    """
    if name == "default":
        found = client_config.from_environment()
        if found is None:
            socket = next((path for path in default_sockets() if path.exists()), default_sockets()[0])
            found = EngineAddress(f"unix://{socket}", "default socket")
    else:
        try:
            found = client_config.of_context(name)
        except NoEngine:
            known = [*client_config.contexts(), "default"]
            if name in known:
                raise UsageError(
                    f"host {name}: its docker context has no docker endpoint",
                    "It does not say where the engine is.",
                    f"`docker context update {name} --docker host=ssh://USER@MACHINE` says it.",
                ) from None
            raise UsageError(
                f"host {name}: no docker context has that name",
                "Hosts are docker contexts.",
                nearest(name, known) + " `docker context create` makes one.",
            ) from None
    if found.url.startswith(("tcp:", "http:")) and found.tls is None:
        raise UsageError(
            f"host {name}: {found.url} is not protected by TLS",
            "Everybody who reaches that port controls the machine.",
            "Set up TLS (https://docs.docker.com/engine/security/protect-access/), or use ssh://: "
            f"`docker context create {name} --docker host=ssh://USER@MACHINE`.",
        )
    return found


def _answer_of_host(address: EngineAddress) -> EngineAddress | str:
    """The address of a host that answers, or why it does not."""
    if address.url.startswith("ssh:"):
        api = Api(address)
        try:
            with api.get("/_ping", SSH_TIMEOUT) as response:
                if response.status == 200:
                    return replace(address, api_version=response.headers.get("api-version", ""))
                return f"answers /_ping with HTTP status {response.status} {response.reason}".rstrip()
        except OSError as error:
            return describe(error)
        except ConnectionLost as lost:  # with what ssh says
            return "; ".join(str(lost).splitlines())
        finally:
            api.close()
    answer = _try(address, NAMED_TIMEOUT)
    return answer if isinstance(answer, EngineAddress) else describe(answer.error)


def _home() -> Engine | None:
    try:
        return connect()
    except NoEngine:
        return None


def locate(*, start_private: bool = False, listener: Listener = ignore) -> EngineAddress:
    """As :func:`connect`, but returns the engine's address and creates no client for it."""
    if _set_by_env():
        if behind := _behind_env():
            return _answering(behind, _fix_behind_env(behind))
    elif named := client_config.from_environment() or client_config.from_context():
        return _answering(named, _fix_named(named))
    attempts: list[Attempt] = []
    places = [("default socket", path) for path in default_sockets()]
    places.append((PRIVATE, paths.engine_directory() / "docker.sock"))
    for source, path in places:
        answer = _try(EngineAddress(f"unix://{path}", source), SEARCH_TIMEOUT)
        if isinstance(answer, EngineAddress):
            return answer
        attempts.append(answer)
    from minicluster.engine.private import daemon

    obstacle = daemon.obstacle()
    if start_private and not obstacle:
        listener(Event("note", text="No container engine answers: starting minicluster's private engine."))
        status = daemon.start(listener)
        return _answering(EngineAddress(status.url, PRIVATE), "See its log (`minicluster engine status`).")
    raise NoEngine("no container engine answers", _why(attempts), _fix(attempts, obstacle))


def default_sockets() -> list[Path]:
    """The usual places: Docker's own socket, then those of rootless Docker and the desktop products."""
    home = paths.home()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [
        Path("/var/run/docker.sock"),
        *([Path(runtime) / "docker.sock"] if runtime else []),
        home / ".docker" / "run" / "docker.sock",
        home / ".colima" / "default" / "docker.sock",
        home / ".orbstack" / "run" / "docker.sock",
    ]


def _set_by_env() -> bool:
    """Whether the docker client's variables are those that ``minicluster env`` printed for a cluster.

    They name an engine within the cluster; minicluster itself keeps using the one that runs the cluster.
    """
    folder = os.environ.get("DOCKER_CERT_PATH")
    return bool(folder) and Path(str(folder)).parent == paths.clients_directory()


def _behind_env() -> EngineAddress | None:
    """The engine that runs the cluster whose variables are set; None once that cluster is removed."""
    folder = Path(os.environ["DOCKER_CERT_PATH"])
    try:
        return EngineAddress.load((folder / "engine").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _try(candidate: EngineAddress, timeout: float) -> EngineAddress | Attempt:
    try:
        pong = ping(candidate.url, candidate.tls, timeout)
    except OSError as error:
        return Attempt(candidate.source, candidate.url, error)
    return EngineAddress(candidate.url, candidate.source, candidate.tls, pong.api_version)


def _answering(candidate: EngineAddress, fix: str) -> EngineAddress:
    """The candidate if it answers; else an error that names it."""
    if candidate.url.startswith(("ssh:", "npipe:")):
        return candidate  # a ping would cost an ssh connection of its own; the first call shows whether it answers
    answer = _try(candidate, NAMED_TIMEOUT)
    if isinstance(answer, EngineAddress):
        return answer
    raise NoEngine(
        f"the engine of {candidate.source} does not answer", f"{candidate.url}: {describe(answer.error)}", fix
    )


def _fix_named(named: EngineAddress) -> str:
    by_variable = named.source == "DOCKER_HOST"
    moved = ""
    if not named.url.startswith(("unix:", "npipe:")):
        context = named.source.removeprefix("docker context ")
        way = "give it in DOCKER_HOST" if by_variable else f"`docker context update {context} --docker host=URL`"
        moved = f" If its machine has another address now: {way}."
    if by_variable:
        return f"Start that engine.{moved} To use the engine of this machine: `unset DOCKER_HOST`."
    return f"Start that engine.{moved} `docker context use NAME` chooses another (`default` is this machine's)."


def _fix_behind_env(named: EngineAddress) -> str:
    """Where the variables are a cluster's: they name the engine on which that cluster runs."""
    way = "give it in DOCKER_HOST" if named.source == "DOCKER_HOST" else "`docker context use NAME`"
    return (
        "Start that engine, which runs the cluster whose variables are set. To use another one, or if its machine has "
        f'another address now: `eval "$(minicluster env --unset)"`, then {way}.'
    )


def _why(attempts: list[Attempt]) -> str:
    return "\n".join(f"Tried {attempt}." for attempt in attempts)


def _fix(attempts: list[Attempt], obstacle: str) -> str:
    """What to do on this platform, the most likely fix first."""
    return "\n".join(_advice(attempts, obstacle))


def _advice(attempts: list[Attempt], obstacle: str) -> Iterator[str]:
    answered = [attempt for attempt in attempts if not isinstance(attempt.error, FileNotFoundError)]
    if denied := next((a for a in answered if isinstance(a.error, PermissionError)), None):
        yield (
            f"You lack permission to use {denied.url}: join its group with `sudo usermod -aG docker $USER` and log in "
            "again, or run this with sudo."
        )
        return
    if sys.platform == "darwin":
        yield (
            "Start Docker Desktop (`open -a Docker`), Colima (`colima start`) or OrbStack; "
            "to install one: `brew install colima docker && colima start`."
        )
        return
    if not sys.platform.startswith("linux"):
        yield "Install and start Docker Desktop, or set DOCKER_HOST to an engine."
        return
    service = next((a for a in answered if a.source != PRIVATE), None)
    if service and isinstance(service.error, ConnectionRefusedError):
        yield f"{service.url} exists but its service does not run: `sudo systemctl start docker`."
    elif service:
        yield f"{service.url} exists but its service does not answer: see `systemctl status docker`."
    else:
        yield f"Install an engine and start it: {_install_command()}."
    if obstacle:
        yield f"(minicluster's private engine cannot run here: {obstacle}.)"
    else:
        yield "Or start minicluster's own private engine: `minicluster engine start`."


def _install_command(os_release: Path = Path("/etc/os-release")) -> str:
    """The command that installs a container engine on this distribution of Linux."""
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    release = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if family & {"debian", "ubuntu"}:
        return "`sudo apt-get install docker.io`"
    if family & {"fedora", "rhel", "centos"}:
        return "`sudo dnf install moby-engine && sudo systemctl enable --now docker`"
    if family & {"arch"}:
        return "`sudo pacman -S docker && sudo systemctl enable --now docker`"
    if family & {"suse", "opensuse"}:
        return "`sudo zypper install docker && sudo systemctl enable --now docker`"
    if family & {"alpine"}:
        return "`doas apk add docker && doas rc-service docker start`"
    return "Docker Engine (https://docs.docker.com/engine/install/)"
