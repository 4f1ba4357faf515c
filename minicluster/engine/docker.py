"""Docker's API as an :class:`~minicluster.engine.protocol.Engine`, by way of docker-py's low-level client.

The low-level client, since a step of a plan is one engine call, and the high-level one makes two or three of many
(``containers.run`` creates, inspects, starts, inspects). One client serves all threads: its connection pool is as
large as the widest plan.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import platform
import re
import signal
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import docker.errors
import docker.utils.build
import requests.exceptions
import urllib3.exceptions
from docker.api import APIClient
from docker.tls import TLSConfig

from minicluster.engine import bridge, machine, privileges
from minicluster.engine.found import Found
from minicluster.engine.protocol import (
    LOCALHOST,
    Cancel,
    Container,
    ContainerConfig,
    EngineEvent,
    EngineInfo,
    ExecResult,
    File,
    Image,
    Network,
    PathStat,
    Progress,
    Sample,
    Volume,
)
from minicluster.errors import (
    Conflict,
    EngineError,
    ImageError,
    Interrupted,
    NodeFailed,
    NoEngine,
    NotFound,
    PortTaken,
    SubnetTaken,
)
from minicluster.labels import CLUSTER, PROFILE, RECIPE

_POOL_SIZE = 64  # connections kept: the widest plan runs so many steps at once
_TIMEOUT = 120.0  # seconds an ordinary call may take; creating a container on a slow disk takes long

#: Of all that the engine tells, what is a turn in the life of a cluster: no commands in nodes, no mounts.
_EVENTS = (
    *("create", "start", "die", "kill", "stop", "pause", "unpause", "restart", "destroy", "oom"),
    *("connect", "disconnect"),
)

# Bits of a file's mode as Go's os.FileMode has them, which is how the engine answers.
_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
_GO_ODD = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # device, pipe, socket, character device, irregular

#: What a connection that breaks shows as; docker-py reads streams through urllib3, past requests' own errors.
_BROKEN = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
)


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turns docker-py's errors into ours. ``what`` says what was tried, as in "create container x"."""
    try:
        yield
    except docker.errors.APIError as error:
        raise _refusal(what, error) from error
    except _BROKEN as error:
        raise NoEngine(
            f"the engine stopped answering: {what}",
            _innermost(error),
            "Look at its log. Once it runs again, `minicluster down` removes what is left.",
        ) from error
    except docker.errors.DockerException as error:
        raise EngineError(f"cannot {what}", str(error)) from error


def _refusal(what: str, error: docker.errors.APIError) -> EngineError:
    said = str(error.explanation or error)
    status = error.response.status_code if error.response is not None else 0
    if "port is already allocated" in said or "address already in use" in said:
        ports = re.findall(r":(\d+)", said)
        port = int(ports[0]) if ports else 0
        return PortTaken(
            f"host port {port or '?'} is taken", said, "Give another with --port ENDPOINT=PORT, or free it.", port=port
        )
    # The last is what the engine says of two networks with the same subnet and the same part of it for guests.
    overlaps = ("Pool overlaps", "pool overlaps", "conflicts with network", "failed to allocate gateway")
    if any(words in said for words in overlaps):
        return SubnetTaken(f"cannot {what}: its subnet is taken", said)
    if "no space left on device" in said:
        return EngineError(
            f"cannot {what}: the disk is full",
            said,
            "Free some: `docker system df`, `minicluster image remove --all`.",
        )
    if "cannot assign requested address" in said:
        return EngineError(
            f"cannot {what}: the engine's machine does not have the address that its ports are to be published on",
            said,
            "Its address here and its own differ, as behind a router: --address-mode bridge or localhost publishes on "
            "127.0.0.1 alone.",
        )
    if "apparmor_parser" in said:
        return EngineError(f"cannot {what}: the engine lacks AppArmor's parser", said, "Install it: package apparmor.")
    if status == 404:
        return NotFound(f"cannot {what}: there is no such thing", said)
    if status == 409:
        return Conflict(f"cannot {what}: it is in use", said)
    return EngineError(f"cannot {what}", said)


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__


class DockerEngine:
    """See :class:`minicluster.engine.protocol.Engine` for what each call means."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.endpoint = found.url
        self.reference = found.dump()
        tls: Any = False
        if found.tls:
            pair = (str(found.tls.cert), str(found.tls.key)) if found.tls.cert and found.tls.key else None
            tls = TLSConfig(
                client_cert=pair, ca_cert=str(found.tls.ca) if found.tls.ca else None, verify=found.tls.verify
            )
        url = found.url
        with _errors(f"reach the engine at {url}"):
            # Naming the version that the search for the engine already learnt saves a round trip.
            version = found.api_version if found.api_version else "auto"
            self._api: Any = APIClient(
                base_url=url, version=version, timeout=_TIMEOUT, tls=tls, max_pool_size=_POOL_SIZE, num_pools=4
            )

        # requests would let REQUESTS_CA_BUNDLE and proxies of the environment win over what was found.
        self._api.trust_env = False

    @cached_property
    def _version(self) -> dict[str, Any]:
        with _errors("ask the engine what it is"):
            return dict(self._api.version())

    @cached_property
    def local(self) -> bool:
        # Docker Desktop and Colima listen on a local socket too; their kernel is another machine's.
        return self.endpoint.startswith("unix://") and self._version.get("KernelVersion") == platform.release()

    @cached_property
    def shares_localhost(self) -> bool:
        scheme, _, path = self.endpoint.partition("://")
        return scheme in ("unix", "npipe") and machine.listener_is_here(path)

    @cached_property
    def info(self) -> EngineInfo:
        version = self._version
        with _errors("ask the engine what it is"):
            info = self._api.info()
        return EngineInfo(
            endpoint=self.found.url,
            source=self.found.source,
            version=str(version.get("Version", "")),
            api_version=str(version.get("ApiVersion", "")),
            platform=f"{version.get('Os', 'linux')}/{version.get('Arch', '')}",
            operating_system=str(info.get("OperatingSystem", "")),
            kernel=str(info.get("KernelVersion", "")),
            cgroup_version=int(info.get("CgroupVersion") or 1),
            storage_driver=str(info.get("Driver", "")),
            rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
            cpus=int(info.get("NCPU") or 0),
            memory=int(info.get("MemTotal") or 0),
            data_root=str(info.get("DockerRootDir", "")),
            local=self.local,
        )

    # What is there

    def containers(self, cluster: str | None = None) -> list[Container]:
        with _errors("list containers"):
            return [_container(c) for c in self._api.containers(all=True, filters=_of(cluster))]

    def container(self, name: str) -> Container | None:
        with _errors("list containers"):
            found = self._api.containers(all=True, filters={"name": f"^/?{re.escape(name)}$"})
        return next((c for c in map(_container, found) if c.name == name), None)

    def own_container(self) -> Container | None:
        own: Container | None = None
        for identity in machine.own_container_ids():
            own = own or self._by_identity(identity)
        while own and own.network_mode.startswith("container:"):  # it has another one's network
            own = self._by_identity(own.network_mode.removeprefix("container:"))
        return own

    def _by_identity(self, identity: str) -> Container | None:
        with _errors("list containers"):
            found = self._api.containers(filters={"id": identity})
        return next((c for c in map(_container, found) if c.id.startswith(identity)), None)

    def attached(self, network: str) -> list[Container]:
        with _errors("list containers"):
            found = self._api.containers(all=True, filters={"network": network})
        return [c for c in map(_container, found) if network in c.networks]

    def network(self, name: str) -> Network | None:
        with _errors("list networks"):
            found = self._api.networks(filters={"name": f"^{re.escape(name)}$"})
        return next((n for n in map(_network, found) if n.name == name), None)

    def networks(self, cluster: str | None = None) -> list[Network]:
        with _errors("list networks"):
            return [_network(n) for n in self._api.networks(filters=_of(cluster))]

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        with _errors("list volumes"):
            found = self._api.volumes(filters=_of(cluster)).get("Volumes") or []
        return [Volume(v["Name"], v.get("Labels") or {}) for v in found]

    def subnets(self) -> list[str]:
        with _errors("list networks"):
            taken = [subnet for n in self._api.networks() for subnet in _network(n).subnets]
        return taken + [str(route) for route in bridge.routes()]

    # Making and removing

    def create_network(self, name: str, subnet: str, gateway: str, guests: str, labels: Mapping[str, str]) -> None:
        ipam = {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway, "IPRange": guests}]}
        with _errors(f"create network {name}"):
            self._api.create_network(name, driver="bridge", ipam=ipam, check_duplicate=True, labels=dict(labels))

    def remove_network(self, name: str) -> None:
        with _errors(f"remove network {name}"), contextlib.suppress(docker.errors.NotFound):
            # A container that died just now may hold its end of the network for a moment longer.
            for patience in range(30):
                try:
                    self._api.remove_network(name)
                    return
                except docker.errors.APIError as error:
                    if patience == 29 or "active endpoints" not in str(error.explanation):
                        raise
                    time.sleep(0.05)

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        with _errors(f"connect {container} to network {network}"):
            try:
                self._api.connect_container_to_network(container, network, aliases=list(aliases) or None)
            except docker.errors.APIError as error:
                if "already exists in network" not in str(error.explanation):
                    raise

    def disconnect_network(self, network: str, container: str) -> None:
        with _errors(f"disconnect {container} from network {network}"):
            try:
                self._api.disconnect_container_from_network(container, network)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if "is not connected to" not in str(error.explanation):
                    raise

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with _errors(f"create volume {name}"):
            made = self._api.create_volume(name, labels=dict(labels))
        # The engine answers with a volume of that name that is there already, whosever it is.
        if (made.get("Labels") or {}).get(CLUSTER) != labels.get(CLUSTER):
            raise Conflict(
                f"the volume {name} is in use",
                "A volume of that name is there, and minicluster did not make it for this cluster.",
                "Remove it (`docker volume rm`), or give the cluster another name with --name.",
            )

    def remove_volume(self, name: str) -> None:
        with _errors(f"remove volume {name}"), contextlib.suppress(docker.errors.NotFound):
            self._api.remove_volume(name)

    def create_container(self, config: ContainerConfig) -> None:
        api = self._api
        host: dict[str, Any] = {
            "init": True,
            "network_mode": config.network,
            "binds": [f"{volume}:{path}" for path, volume in config.volumes.items()],
            "port_bindings": {
                port: [(address, host_port) for address in dict.fromkeys((LOCALHOST, config.publish))]
                for port, host_port in config.ports.items()
            },
            "tmpfs": dict(config.tmpfs),
            "restart_policy": {"Name": config.restart},
            "cap_add": list(config.capabilities),
        }
        if config.memory:
            host["mem_limit"] = config.memory
        extra: dict[str, Any] = {}
        if config.nested:
            host["cap_add"] += [c for c in privileges.NESTED_CAPABILITIES if c not in config.capabilities]
            # "systempaths" is a word of the stock client alone: the API knows the lists of paths that it stands for.
            host["security_opt"] = [o for o in privileges.NESTED_SECURITY_OPT if not o.startswith("systempaths")]
            extra |= {"MaskedPaths": [], "ReadonlyPaths": []}
            host["tmpfs"] = {**privileges.NESTED_TMPFS, **config.tmpfs}
            extra["CgroupnsMode"] = privileges.NESTED_CGROUPNS
        with _errors(f"create container {config.name}"):
            host_config = api.create_host_config(**host) | extra
            networking = api.create_networking_config(
                {config.network: api.create_endpoint_config(ipv4_address=config.address, aliases=[config.hostname])}
            )
            api.create_container(
                config.image,
                name=config.name,
                hostname=config.hostname,
                entrypoint=list(config.entrypoint) or None,
                command=list(config.command) or None,
                environment=dict(config.env),
                labels=dict(config.labels),
                ports=[(port, "tcp") for port in config.ports],
                host_config=host_config,
                networking_config=networking,
                stop_timeout=config.stop_timeout,
            )

    def start_container(self, name: str) -> None:
        with _errors(f"start container {name}"):
            try:
                self._api.start(name)
            except docker.errors.APIError as error:
                if "unpause" not in str(error.explanation):
                    raise
                self._api.unpause(name)

    def stop_container(self, name: str) -> None:
        # Without a time of ours the engine takes the container's own, so the call may take as long as that.
        with _errors(f"stop container {name}"):
            url = self._api._url("/containers/{0}/stop", name)
            self._api._raise_for_status(self._api._post(url, timeout=None))

    def pause_container(self, name: str) -> None:
        with _errors(f"pause container {name}"):
            self._api.pause(name)

    def update_container(self, name: str, restart: str) -> None:
        with _errors(f"update container {name}"):
            self._api.update_container(name, restart_policy={"Name": restart})

    def kill_container(self, name: str) -> None:
        with _errors(f"kill container {name}"):
            try:
                self._api.kill(name)
            except docker.errors.APIError as error:
                if error.response is None or error.response.status_code not in (404, 409):
                    raise

    def remove_container(self, name: str) -> None:
        with _errors(f"remove container {name}"):
            # A removal that is under way already (409) is as good as ours, once it is through.
            for _ in range(100):
                try:
                    self._api.remove_container(name, force=True, v=True)
                    return
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError as error:
                    if "already in progress" not in str(error.explanation):
                        raise
                    time.sleep(0.1)

    # Within a container

    def put_files(self, container: str, files: Sequence[File]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                tar.addfile(_tar_entry(file.path, len(file.content), file.mode), io.BytesIO(file.content))
        with _errors(f"write files into {container}"):
            self._api.put_archive(container, "/", buffer.getvalue())

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        entry = _tar_entry(path, size, 0o600)

        def tar() -> Iterator[bytes]:
            yield entry.tobuf(tarfile.PAX_FORMAT)
            yield from content
            padding = -size % tarfile.BLOCKSIZE
            yield bytes(padding + 2 * tarfile.BLOCKSIZE)

        with _errors(f"write {path} into {container}"):
            self._api.put_archive(container, "/", tar())

    def get_file(self, container: str, path: str) -> bytes:
        with _errors(f"read {path} of {container}"):
            chunks, _stat = self._api.get_archive(container, path)
            data = b"".join(chunks)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content:
                    return content.read()
        raise NotFound(f"cannot read {path} of {container}: it is no file")

    def stat_path(self, container: str, path: str) -> PathStat | None:
        found = self._stat(container, path)
        if found and found["mode"] & _GO_LINK:
            path = str(found["linkTarget"])  # the engine has followed the whole chain of links
            found = self._stat(container, path) or found
        if found is None:
            return None
        self._check_reach(container, path)
        mode = int(found["mode"])
        odd = mode & (_GO_LINK | _GO_ODD)
        return PathStat(path, "folder" if mode & _GO_FOLDER else "other" if odd else "file")

    def _stat(self, container: str, path: str) -> dict[str, Any] | None:
        with _errors(f"look at {path} of {container}"):
            response = self._api.head(
                self._api._url("/containers/{0}/archive", container), params={"path": path}, timeout=_TIMEOUT
            )
            if response.status_code == 404:
                return None
            self._api._raise_for_status(response)
            header = response.headers["X-Docker-Container-Path-Stat"]
        return dict(json.loads(base64.b64decode(header)))

    def _check_reach(self, container: str, path: str) -> None:
        """The engine copies to and from a container's disk and volumes alone, past what it has in memory."""
        with _errors(f"look at container {container}"):
            in_memory = self._api.inspect_container(container)["HostConfig"].get("Tmpfs") or {}
        at = PurePosixPath("/", path)
        for folder in map(PurePosixPath, in_memory):
            if folder == at or folder in at.parents:
                raise EngineError(
                    f"{at} of {container} is out of the engine's reach",
                    f"{folder} is in memory there (a tmpfs); the engine copies to and from disks alone.",
                    "Take another folder, such as /var/tmp or /root.",
                )

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        with _errors(f"read {path} of {container}"):
            chunks, _stat = self._api.get_archive(container, path)
            yield from chunks

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        # docker-py's put_archive has no word for noOverwriteDirNonDir.
        params = {"path": folder, "noOverwriteDirNonDir": "1"}
        with _errors(f"write into {folder} of {container}"):
            url = self._api._url("/containers/{0}/archive", container)
            self._api._raise_for_status(self._api._put(url, params=params, data=content))

    def exit_code(self, container: str) -> int | None:
        with _errors(f"look at container {container}"):
            state = self._api.inspect_container(container)["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        cancel: Cancel | None = None,
    ) -> ExecResult:
        cancel = cancel or Cancel()
        what = f"run {argv[0]} in {container}"
        with _errors(what):
            try:
                exec_id = self._api.exec_create(container, list(argv))["Id"]
                response = self._exec_start(exec_id)
            except docker.errors.APIError as error:
                if "is not running" in str(error.explanation) or "is paused" in str(error.explanation):
                    raise NodeFailed(f"cannot {what}", str(error.explanation)) from error
                raise
            connection: Any = self._api._get_raw_response_socket(response)
            unblock = _hang_up(connection)
            timer = threading.Timer(timeout, unblock) if timeout is not None else None
            started = time.monotonic()
            if timer:
                timer.daemon = True
                timer.start()
            try:
                with cancel.calls(unblock):
                    stdout, stderr = _demultiplex(response.raw)
            except _BROKEN:
                asked = cancel.is_set() or (timeout is not None and time.monotonic() - started >= timeout)
                if not asked:
                    raise
                stdout = stderr = b""
            finally:
                if timer:
                    timer.cancel()
                response.close()
            if cancel.is_set():
                raise Interrupted(f"stopped: {what}")
            if timeout is not None and time.monotonic() - started >= timeout:
                raise TimeoutError(f"{what}: no answer within {timeout:g} s")
            code = self._api.exec_inspect(exec_id)["ExitCode"]
        if code is None:  # the stream ended and the command did not: the container is going down
            raise NodeFailed(f"cannot {what}", "The container stopped meanwhile.")
        return ExecResult(int(code), stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def _exec_start(self, exec_id: str) -> Any:
        # Like docker-py's exec_start, but without asking for a protocol upgrade: on an upgraded connection the first
        # bytes of the answer can be swallowed by the buffer that the header was read with.
        url = self._api._url("/exec/{0}/start", exec_id)
        response = self._api._post_json(url, data={"Tty": False, "Detach": False}, stream=True)
        self._api._raise_for_status(response)
        self._api._disable_socket_timeout(self._api._get_raw_response_socket(response))
        return response

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        flags = [*(["--interactive"] if stdin else []), *(["--tty"] if tty else [])]
        env = {"DOCKER_HOST": self.found.url, "DOCKER_CONTEXT": "", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}
        options: list[str] = []
        if self.found.tls:
            tls = self.found.tls
            options = ["--tlsverify" if tls.verify else "--tls"]
            for flag, value in (("--tlscacert", tls.ca), ("--tlscert", tls.cert), ("--tlskey", tls.key)):
                options += [f"{flag}={value}"] if value else []
        return ["docker", *options, "exec", *flags, container, *argv], env

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        with _errors(f"read the log of {container}"):
            count: Any = "all" if tail is None else tail
            rest = b""
            stream: Iterable[bytes] = self._api.logs(container, stream=True, follow=follow, tail=count)
            for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            if rest:
                yield rest

    def sample(self, container: str) -> Sample:
        with _errors(f"measure container {container}"):
            return _sample(self._api.stats(container, stream=False, one_shot=True))

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        cancel = cancel or Cancel()
        what = f"hear what happens to cluster {cluster}"
        params = {"filters": json.dumps({"type": ["container", "network", "volume"], "event": list(_EVENTS)})}
        if since is not None:
            params["since"] = f"{since:.9f}"
        with _errors(what):
            response = self._api._get(self._api._url("/events"), params=params, stream=True, timeout=None)
            self._api._raise_for_status(response)
            connection = self._api._get_raw_response_socket(response)
            ours = _Ours(self, cluster)
            try:
                with cancel.calls(_hang_up(connection)):
                    for said in self._api._stream_helper(response, decode=True):
                        event = ours.event(said)
                        if event:
                            yield event
            except _BROKEN:
                if not cancel.is_set():
                    raise
            finally:
                response.close()
        if not cancel.is_set():
            raise NoEngine(f"the engine stopped answering: {what}", "It ended the stream of its events.")

    # Images

    def images(self, recipes_only: bool = False) -> list[Image]:
        filters = {"label": RECIPE} if recipes_only else {}
        with _errors("list images"):
            found = self._api.images(filters=filters)
        return [
            Image(
                id=i["Id"],
                tags=tuple(tag for tag in i.get("RepoTags") or () if tag != "<none>:<none>"),
                labels=i.get("Labels") or {},
                size=int(i["Size"]),
                created=int(i["Created"]),
            )
            for i in found
        ]

    def has_image(self, ref: str) -> bool:
        with _errors(f"look for image {ref}"):
            try:
                self._api.inspect_image(ref)
            except docker.errors.NotFound:
                return False
        return True

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        cancel = cancel or Cancel()
        repository, _, tag = ref.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = ref, "latest"
        if "@" in ref:
            repository, tag = ref, ""
        failure: list[str] = []
        heard = threading.Event()

        def pull() -> None:
            try:
                with _errors(f"pull image {ref}"):
                    for line in self._api.pull(repository, tag=tag or None, stream=True, decode=True):
                        heard.set()
                        if "error" in line:
                            failure.append(str(line["error"]))
                        else:
                            progress(" ".join(str(line[k]) for k in ("id", "status", "progress") if line.get(k)))
            except Exception as error:
                failure.append(str(getattr(error, "why", "") or error))
            heard.set()

        # A thread, since an engine that cannot reach its registry says nothing for up to a minute.
        worker = threading.Thread(target=pull, daemon=True)
        worker.start()
        until = time.monotonic() + timeout if timeout is not None else None
        while worker.is_alive():
            worker.join(0.1)
            if cancel.is_set():
                raise Interrupted(f"stopped: pulling image {ref}")
            if until is not None and not heard.is_set() and time.monotonic() >= until:
                raise ImageError(f"cannot pull image {ref}", f"No registry answered within {timeout:g} s.")
        if failure or not self.has_image(ref):
            raise ImageError(
                f"cannot pull image {ref}", "\n".join(failure) or "The registry sent none for this platform."
            )

    def build_image(
        self,
        directory: Path,
        ref: str,
        *,
        labels: Mapping[str, str],
        args: Mapping[str, str],
        context: Mapping[str, str],
        progress: Progress,
        cancel: Cancel | None = None,
    ) -> None:
        cancel = cancel or Cancel()
        tail: list[str] = []
        with _errors(f"build image {ref}"):
            params = {
                "t": ref,
                "rm": True,
                "forcerm": True,
                "labels": json.dumps(dict(labels)),
                "buildargs": json.dumps(dict(args)),
            }
            # Like docker-py's build, but with the connection in hand: the engine ends a build whose client hangs up.
            with docker.utils.build.tar(str(directory)) as archive:
                if context:
                    with tarfile.open(archive.name, "a") as more:
                        for name, path in context.items():
                            more.add(path, name)
                    archive.seek(0)
                url = self._api._url("/build")
                headers = {"Content-Type": "application/x-tar"}
                response = self._api._post(url, data=archive, params=params, headers=headers, stream=True, timeout=None)
            connection = self._api._get_raw_response_socket(response)
            try:
                with cancel.calls(_hang_up(connection)):
                    for line in self._api._stream_helper(response, decode=True):
                        _heard_of_build(line, ref, directory, tail, progress, labels.get(PROFILE, ""))
            except _BROKEN:
                if not cancel.is_set():
                    raise
            finally:
                response.close()
        if cancel.is_set():
            raise Interrupted(f"stopped: building image {ref}")
        if not self.has_image(ref):
            raise ImageError(f"image {ref} was not built", "\n".join(tail[-15:]))

    def import_image(self, archive: Iterable[bytes], ref: str) -> None:
        repository, _, tag = ref.rpartition(":")
        with _errors(f"import image {ref}"):
            url = self._api._url("/images/create")
            params = {"fromSrc": "-", "repo": repository, "tag": tag}
            response = self._api._post(url, data=archive, params=params, timeout=None)
            self._api._raise_for_status(response)
            for line in response.text.splitlines():
                if "error" in (answer := json.loads(line)):
                    raise ImageError(f"cannot import image {ref}", str(answer["error"]))

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        what = "load images"
        loaded: list[str] = []
        failure = ""
        with _errors(what):
            url = self._api._url("/images/load")
            headers = {"Content-Type": "application/x-tar"}
            response = self._api._post(url, data=archive, params={"quiet": "1"}, headers=headers, timeout=None)
            if response.status_code >= 400:
                failure = str(response.json().get("message", response.text))
            else:
                for answer in map(json.loads, response.text.splitlines()):
                    failure = failure or str(answer.get("error", ""))
                    said = str(answer.get("stream", ""))
                    loaded += re.findall(r"^Loaded image(?: ID)?: (\S+)$", said, re.MULTILINE)
        if failure or not loaded:
            raise ImageError("the engine cannot load it", failure or "The engine found no image in it.")
        return loaded

    def save_image(self, ref: str) -> Iterator[bytes]:
        with _errors(f"save image {ref}"):
            yield from self._api.get_image(ref)

    def remove_image(self, ref: str) -> None:
        with _errors(f"remove image {ref}"):
            self._api.remove_image(ref)

    def close(self) -> None:
        self._api.close()


class _Ours:
    """Tells which of the engine's events are a cluster's: those of networks and volumes come without labels."""

    def __init__(self, engine: DockerEngine, cluster: str) -> None:
        self.engine, self.cluster = engine, cluster
        self.containers = {c.id: c.labels for c in engine.containers(cluster)}
        self.networks = {n.id for n in engine.networks(cluster)}
        self.volumes = {v.name: v.labels for v in engine.volumes(cluster)}
        self.heard: set[str] = set()  # volumes whose making was told: for each of their containers it is told again

    def event(self, said: Mapping[str, Any]) -> EngineEvent | None:
        """An event as we tell it; None where it is none of the cluster's."""
        kind, action, actor = said["Type"], said["Action"], said["Actor"]
        about, key = actor.get("Attributes") or {}, actor["ID"]
        labels: Mapping[str, str] = {}
        if kind == "container":
            if about.get(CLUSTER) != self.cluster:
                return None
            labels = self.containers[key] = about
        elif kind == "network":
            if action == "create" and key not in self.networks:
                self.networks = {n.id for n in self.engine.networks(self.cluster)}
            if key not in self.networks:
                return None
            labels = self.containers.get(about.get("container", ""), {})
        else:
            if action == "create":
                if key in self.heard:
                    return None
                self.heard.add(key)
                self.volumes = {**self.volumes, **{v.name: v.labels for v in self.engine.volumes(self.cluster)}}
            if action == "destroy":
                self.heard.discard(key)
            if key not in self.volumes:
                return None
            labels = self.volumes[key]
        detail: dict[str, str | int] = {}
        if action == "die":
            detail["exit_code"] = int(about.get("exitCode") or 0)
        if action == "kill":
            number = str(about.get("signal", ""))
            known = number.isdecimal() and int(number) in set(signal.Signals)
            detail["signal"] = signal.Signals(int(number)).name if known else number
        return EngineEvent(said["timeNano"] / 1e9, kind, action, about.get("name", key), labels, detail)


def _sample(stats: Mapping[str, Any]) -> Sample:
    cpu = stats.get("cpu_stats") or {}
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # The page cache that could be dropped at once is not counted, as `docker stats` does not count it:
    # total_inactive_file on cgroup v1, inactive_file on v2.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    disks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    networks = (stats.get("networks") or {}).values()
    return Sample(
        cpu=int((cpu.get("cpu_usage") or {}).get("total_usage", 0)),
        system=int(cpu.get("system_cpu_usage", 0)),
        cpus=int(cpu.get("online_cpus") or len((cpu.get("cpu_usage") or {}).get("percpu_usage") or ())),
        memory=max(0, int(memory.get("usage", 0)) - int(cache)),
        memory_limit=int(memory.get("limit", 0)),
        pids=int((stats.get("pids_stats") or {}).get("current", 0)),
        received=sum(int(n.get("rx_bytes", 0)) for n in networks),
        sent=sum(int(n.get("tx_bytes", 0)) for n in networks),
        read=sum(int(d["value"]) for d in disks if d["op"].lower() == "read"),
        written=sum(int(d["value"]) for d in disks if d["op"].lower() == "write"),
    )


def _demultiplex(stream: Any) -> tuple[bytes, bytes]:
    """Splits an attached stream; a frame is a byte for the stream, three of nothing, a big-endian length, content."""
    output: dict[int, list[bytes]] = {1: [], 2: []}
    while len(header := stream.read(8)) == 8:
        kind, length = struct.unpack(">BxxxL", header)
        output.setdefault(kind, []).append(stream.read(length))
    return b"".join(output[1]), b"".join(output[2])


def _heard_of_build(
    line: Mapping[str, Any], ref: str, directory: Path, tail: list[str], progress: Progress, profile: str
) -> None:
    """Takes in one message of a build; ``tail`` collects its output. Raises where it says that the build failed."""
    if "error" in line:
        # A recipe that is given what it cannot use says so in a line that begins with its profile's name.
        said = [text.removeprefix(f"{profile}: ") for text in tail[-5:] if profile and text.startswith(f"{profile}: ")]
        if said:
            raise ImageError(
                f"image {ref} cannot be built",
                "\n".join(said),
                "Give it something else (`--set`), or bring a ready image with --image NAME=REF.",
            )
        raise ImageError(
            f"the recipe of image {ref} fails to build",
            "\n".join([*tail[-15:], str(line["error"]).strip()]),
            f"Correct the recipe in {directory}, or bring a ready image with --image NAME=REF.",
        )
    for text in str(line.get("stream", "")).splitlines():
        if text.strip():
            tail.append(text.rstrip())
            progress(text.strip())


def _hang_up(connection: Any) -> Callable[[], None]:
    """What ends a read that blocks on a connection."""
    raw: socket.socket = getattr(connection, "_sock", connection)

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    return hang_up


def _tar_entry(path: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(PurePosixPath(path)).lstrip("/"))
    entry.size, entry.mode, entry.mtime = size, mode, int(time.time())
    return entry


def _of(cluster: str | None) -> dict[str, Any]:
    return {"label": f"{CLUSTER}={cluster}" if cluster else CLUSTER}


def _container(data: Mapping[str, Any]) -> Container:
    networks = (data.get("NetworkSettings") or {}).get("Networks") or {}
    mode = (data.get("HostConfig") or {}).get("NetworkMode") or ""
    # One that does not run has no address, and still the one that it was given.
    endpoint = networks.get("bridge" if mode == "default" else mode) or {}
    address = endpoint.get("IPAddress") or (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""
    ports = {p["PrivatePort"]: p["PublicPort"] for p in data.get("Ports") or () if p.get("PublicPort")}
    return Container(
        id=data["Id"],
        name=(data.get("Names") or ["/"])[0].lstrip("/"),
        labels=data.get("Labels") or {},
        state=data.get("State", ""),
        status=data.get("Status", ""),
        image=data.get("Image", ""),
        address=address,
        ports=ports,
        networks=frozenset(networks),
        network_mode=mode,
    )


def _network(data: Mapping[str, Any]) -> Network:
    configs = (data.get("IPAM") or {}).get("Config") or []
    return Network(
        data["Id"], data["Name"], data.get("Labels") or {}, tuple(c["Subnet"] for c in configs if c.get("Subnet"))
    )
