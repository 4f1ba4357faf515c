"""Finding the engine: which one, in which order, and what to tell a user who has none.

What the user named (``DOCKER_HOST``, a docker context) is used or is an error; only what nobody named is searched.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster import paths
from minicluster.engine.address import EngineAddress
from minicluster.engine.ping import Tls, describe, ping
from minicluster.errors import NoEngine
from minicluster.model.events import Event, Listener, ignore

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

#: Seconds that an engine which nobody named has to answer.
SEARCH_TIMEOUT = 2.0
#: Seconds for one that the user named: it may be far away, or a virtual machine that is waking up.
NAMED_TIMEOUT = 5.0

PRIVATE = "private engine"  #: the source of :class:`Found` for minicluster's own engine


@dataclass(frozen=True)
class Attempt:
    """A place where no engine answered."""

    source: str
    url: str
    error: OSError

    def __str__(self) -> str:
        return f"{self.source} {self.url}: {describe(self.error)}"


def connect(*, start_private: bool = False, listener: Listener = ignore) -> Engine:
    """The engine to use.

    Args:
        start_private: where there is none, and this machine can run one, start minicluster's private engine.
        listener: is told, as a note, when that happens.

    Raises:
        NoEngine: no engine answers; says each place that was tried, what it answered, and the fix for this platform.
    """
    found = locate(start_private=start_private, listener=listener)
    from minicluster.engine.docker.engine import DockerEngine

    return DockerEngine(found)


def open_private() -> Engine:
    """minicluster's own private engine, which runs. Raises ``NoEngine`` where it does not."""
    from minicluster.engine.docker.engine import DockerEngine
    from minicluster.engine.private import daemon

    return DockerEngine(
        _asked(EngineAddress(daemon.status().url, PRIVATE), "Start it with `minicluster engine start`.")
    )


def reach(reference: str) -> Engine:
    """The engine that had this :attr:`~minicluster.engine.protocol.Engine.reference`, whether it answers or not."""
    from minicluster.engine.docker.engine import DockerEngine

    return DockerEngine(EngineAddress.load(reference))


def find() -> EngineAddress:
    """The engine to use, without importing docker. Raises ``NoEngine`` as :func:`connect` does."""
    return locate()


def locate(*, start_private: bool = False, listener: Listener = ignore) -> EngineAddress:
    """As :func:`connect`, but tells where the engine is and makes no client for it."""
    named = _behind_env() if _set_by_env() else _from_environment() or _from_context()
    if named:
        return _asked(named, _fix_named(named))
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
        listener(Event("note", text="No container engine answers: starting minicluster's private one."))
        status = daemon.start(listener)
        return _asked(EngineAddress(status.url, PRIVATE), "See its log: `minicluster engine status` tells where it is.")
    raise NoEngine("no container engine answers", _why(attempts), _fix(attempts, obstacle))


def default_sockets() -> list[Path]:
    """Where engines that nobody named listen: Docker's own socket, then rootless Docker and the desktop products."""
    home = Path.home()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [
        Path("/var/run/docker.sock"),
        *([Path(runtime) / "docker.sock"] if runtime else []),
        home / ".docker" / "run" / "docker.sock",
        home / ".colima" / "default" / "docker.sock",
        home / ".orbstack" / "run" / "docker.sock",
    ]


def _set_by_env() -> bool:
    """Whether the docker client's variables are those of ``minicluster env``, for a client of a cluster.

    They lead to an engine within the cluster; minicluster itself is to go on with the one that runs the cluster.
    """
    folder = os.environ.get("DOCKER_CERT_PATH")
    return bool(folder) and Path(str(folder)).parent == paths.clients_directory()


def _behind_env() -> EngineAddress | None:
    """The engine that runs the cluster whose variables are set; None once that is down."""
    folder = Path(os.environ["DOCKER_CERT_PATH"])
    try:
        return EngineAddress.load((folder / "engine").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from_environment() -> EngineAddress | None:
    """What ``DOCKER_HOST`` and its companions say, read as the docker client reads them."""
    host = os.environ.get("DOCKER_HOST", "").strip()
    if not host:
        return None
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    tls = None
    if (verify or os.environ.get("DOCKER_TLS")) and not host.startswith(("unix:", "ssh:", "npipe:")):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or _docker_config())
        tls = _tls(folder, verify=verify)
    url = host if "://" in host else f"tcp://{host}"
    return EngineAddress(url, "DOCKER_HOST", tls)


def _from_context() -> EngineAddress | None:
    """The docker context in use, where that is not the one called default."""
    folder = _docker_config()
    name = os.environ.get("DOCKER_CONTEXT") or str(client_settings().get("currentContext") or "")
    if name in ("", "default"):
        return None
    # The client keeps a context under the hash of its name, so that any name will do.
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key / "meta.json"
    source = f"docker context {name}"
    endpoint = (_read_json(meta).get("Endpoints") or {}).get("docker") or {}
    if not endpoint.get("Host"):
        raise NoEngine(
            f"{source} names no engine",
            f"{meta} is missing or has no docker endpoint.",
            "List the contexts with `docker context ls`, choose one with `docker context use NAME`, "
            "or set DOCKER_CONTEXT or DOCKER_HOST.",
        )
    url = str(endpoint["Host"])
    certificates = folder / "contexts" / "tls" / key / "docker"
    verify = not endpoint.get("SkipTLSVerify")
    tls = None
    if url.startswith(("tcp:", "https:")) and (certificates.is_dir() or not verify):
        tls = _tls(certificates, verify=verify)
    return EngineAddress(url, source, tls)


def _tls(folder: Path, *, verify: bool) -> Tls:
    def there(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    return Tls(ca=there("ca.pem"), cert=there("cert.pem"), key=there("key.pem"), verify=verify)


def client_settings() -> dict[str, Any]:
    """What the docker client's own settings are; empty where there are none."""
    return _read_json(_docker_config() / "config.json")


def _docker_config() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) if folder else Path.home() / ".docker"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none: a broken client configuration is the client's matter."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _try(candidate: EngineAddress, timeout: float) -> EngineAddress | Attempt:
    try:
        pong = ping(candidate.url, candidate.tls, timeout)
    except OSError as error:
        return Attempt(candidate.source, candidate.url, error)
    return EngineAddress(candidate.url, candidate.source, candidate.tls, pong.api_version)


def _asked(candidate: EngineAddress, fix: str) -> EngineAddress:
    """The candidate, if it answers; an error that names it, if not."""
    if candidate.url.startswith(("ssh:", "npipe:")):
        return candidate  # only docker itself knows how to speak these; it is asked when the client is made
    answer = _try(candidate, NAMED_TIMEOUT)
    if isinstance(answer, EngineAddress):
        return answer
    raise NoEngine(
        f"the engine of {candidate.source} does not answer", f"{candidate.url}: {describe(answer.error)}", fix
    )


def _fix_named(named: EngineAddress) -> str:
    if named.source == "DOCKER_HOST":
        return "Start that engine, or unset DOCKER_HOST (`unset DOCKER_HOST`) to use the engine of this machine."
    return "Start that engine, or choose another with `docker context use NAME` (`default` is this machine's)."


def _why(attempts: list[Attempt]) -> str:
    return "\n".join(f"Tried {attempt}." for attempt in attempts)


def _fix(attempts: list[Attempt], obstacle: str) -> str:
    """What to do on this platform, the likeliest first."""
    return "\n".join(_advice(attempts, obstacle))


def _advice(attempts: list[Attempt], obstacle: str) -> Iterator[str]:
    answered = [attempt for attempt in attempts if not isinstance(attempt.error, FileNotFoundError)]
    if denied := next((a for a in answered if isinstance(a.error, PermissionError)), None):
        yield (
            f"You may not use {denied.url}: join its group with `sudo usermod -aG docker $USER` and log in again, "
            "or run this with sudo."
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
        yield f"{service.url} is there but its service does not run: `sudo systemctl start docker`."
    elif service:
        yield f"{service.url} is there but its service is not well: look at `systemctl status docker`."
    else:
        yield f"Install an engine and start it: {_install_command()}."
    if obstacle:
        yield f"(minicluster's private engine cannot run here: {obstacle}.)"
    else:
        yield "Or start minicluster's own private engine: `minicluster engine start`."


def _install_command(os_release: Path = Path("/etc/os-release")) -> str:
    """How this distribution of Linux gets a container engine."""
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
