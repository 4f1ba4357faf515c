"""Docker's API as an :class:`~minicluster.engine.protocol.Engine`: a step of a plan is one call of it."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import platform
import re
import signal
import struct
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from minicluster.engine import privileges
from minicluster.engine.address import EngineAddress
from minicluster.engine.discover import client_settings
from minicluster.engine.http import Api, APIError, ConnectionLost, Response
from minicluster.engine.private import bridge
from minicluster.engine.protocol import (
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
from minicluster.host import procfs
from minicluster.model.labels import BUILD, CLUSTER, PROFILE
from minicluster.model.spec import LOCALHOST

_IMPORTING = threading.Lock()

#: Of all that the engine tells, what is a turn in the life of a cluster: no commands in nodes, no mounts.
_EVENTS = (
    *("create", "start", "die", "kill", "stop", "pause", "unpause", "restart", "destroy", "oom"),
    *("connect", "disconnect"),
)

# Bits of a file's mode as Go's os.FileMode has them, which is how the engine answers.
_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
_GO_ODD = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # device, pipe, socket, character device, irregular


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turns the API's errors into ours. ``what`` says what was tried, as in "create container x"."""
    try:
        yield
    except APIError as error:
        raise _refusal(what, error) from error
    except ConnectionLost as error:
        raise NoEngine(
            f"the engine stopped answering: {what}",
            str(error),
            "Look at its log. Once it runs again, `minicluster down` removes what is left.",
        ) from error


def _refusal(what: str, error: APIError) -> EngineError:
    said = error.message
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
    if "active endpoints" in said:
        return EngineError(
            f"cannot {what}: containers are connected to it",
            said,
            "Where `docker network inspect` shows none, the engine has lost count: start it anew, and try again.",
        )
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
    if error.status == 404:
        return NotFound(f"cannot {what}: there is no such thing", said)
    if error.status == 409:
        return Conflict(f"cannot {what}: it is in use", said)
    return EngineError(f"cannot {what}", said)


class DockerEngine:
    """See :class:`minicluster.engine.protocol.Engine` for what each call means."""

    def __init__(self, found: EngineAddress) -> None:
        self.found = found
        self.endpoint = found.url
        self.reference = found.dump()
        self._api = Api(found)

    @cached_property
    def _version(self) -> dict[str, Any]:
        with _errors("ask the engine what it is"):
            return dict(self._api.request("GET", "/version"))

    @cached_property
    def local(self) -> bool:
        # Docker Desktop and Colima listen on a local socket too; their kernel is another machine's.
        return self.endpoint.startswith("unix://") and self._version.get("KernelVersion") == platform.release()

    @cached_property
    def shares_localhost(self) -> bool:
        scheme, _, path = self.endpoint.partition("://")
        return scheme in ("unix", "npipe") and procfs.listener_is_here(path)

    @cached_property
    def info(self) -> EngineInfo:
        version = self._version
        with _errors("ask the engine what it is"):
            info = self._api.request("GET", "/info")
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
        return self._containers(label=_of(cluster))

    def _containers(self, **only: str) -> list[Container]:
        with _errors("list containers"):
            found = self._api.request("GET", "/containers/json", params={"all": 1, **_filters(**only)})
        return [_container(c) for c in found]

    def container(self, name: str) -> Container | None:
        found = self._containers(name=f"^/?{re.escape(name)}$")
        return next((c for c in found if c.name == name), None)

    def own_container(self) -> Container | None:
        own: Container | None = None
        for identity in procfs.own_container_ids():
            own = own or self._by_identity(identity)
        while own and own.network_mode.startswith("container:"):  # it has another one's network
            own = self._by_identity(own.network_mode.removeprefix("container:"))
        return own

    def _by_identity(self, identity: str) -> Container | None:
        found = self._containers(id=identity, status="running")
        return next((c for c in found if c.id.startswith(identity)), None)

    def attached(self, network: str) -> list[Container]:
        return [c for c in self._containers(network=network) if network in c.networks]

    def network(self, name: str) -> Network | None:
        found = self._networks(name=f"^{re.escape(name)}$")
        return next((n for n in found if n.name == name), None)

    def networks(self, cluster: str | None = None) -> list[Network]:
        return self._networks(label=_of(cluster))

    def _networks(self, **only: str) -> list[Network]:
        with _errors("list networks"):
            return [_network(n) for n in self._api.request("GET", "/networks", params=_filters(**only))]

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        with _errors("list volumes"):
            found = self._api.request("GET", "/volumes", params=_filters(label=_of(cluster)))["Volumes"] or []
        return [Volume(v["Name"], v.get("Labels") or {}) for v in found]

    def subnets(self) -> list[str]:
        taken = [subnet for network in self._networks() for subnet in network.subnets]
        return taken + [str(route) for route in bridge.routes()]

    # Making and removing

    def create_network(
        self, name: str, subnet: str, gateway: str, dynamic_range: str, labels: Mapping[str, str]
    ) -> None:
        ipam = {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway, "IPRange": dynamic_range}]}
        # Engines before API 1.44 make a second one of the same name unless asked not to.
        about: dict[str, Any] = {"Name": name, "Driver": "bridge", "IPAM": ipam, "Labels": dict(labels)}
        about |= {"CheckDuplicate": True, "Options": {"com.docker.network.bridge.name": bridge.name()}}
        with _errors(f"create network {name}"):
            self._api.request("POST", "/networks/create", data=about)

    def remove_network(self, name: str) -> None:
        with _errors(f"remove network {name}"):
            # A container that died just now may hold its end of the network for a moment longer.
            for patience in range(30):
                try:
                    self._delete(f"/networks/{name}")
                    return
                except APIError as error:
                    if patience == 29 or "active endpoints" not in error.message:
                        raise
                    time.sleep(0.05)

    def _delete(self, path: str, **params: int) -> None:
        """What is gone already is gone."""
        try:
            self._api.request("DELETE", path, params=params)
        except APIError as error:
            if error.status != 404:
                raise

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        about: dict[str, Any] = {
            "Container": container,
            "EndpointConfig": {"Aliases": list(aliases)} if aliases else None,
        }
        with _errors(f"connect {container} to network {network}"):
            try:
                self._api.request("POST", f"/networks/{network}/connect", data=about)
            except APIError as error:
                if "already exists in network" not in error.message:
                    raise

    def disconnect_network(self, network: str, container: str) -> None:
        with _errors(f"disconnect {container} from network {network}"):
            try:
                self._api.request("POST", f"/networks/{network}/disconnect", data={"Container": container})
            except APIError as error:
                if error.status != 404 and "is not connected to" not in error.message:
                    raise

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with _errors(f"create volume {name}"):
            made = self._api.request("POST", "/volumes/create", data={"Name": name, "Labels": dict(labels)})
        # The engine answers with a volume of that name that is there already, whosever it is.
        if (made.get("Labels") or {}).get(CLUSTER) != labels.get(CLUSTER):
            raise Conflict(
                f"the volume {name} is in use",
                "A volume of that name is there, and minicluster did not make it for this cluster.",
                "Remove it (`docker volume rm`), or give the cluster another name with --name.",
            )

    def remove_volume(self, name: str) -> None:
        with _errors(f"remove volume {name}"):
            self._delete(f"/volumes/{name}")

    def create_container(self, config: ContainerConfig) -> None:
        addresses = dict.fromkeys((LOCALHOST, config.bind_address))
        host: dict[str, Any] = {
            "Init": True,
            "NetworkMode": config.network,
            "Binds": [f"{volume}:{path}" for path, volume in config.volumes.items()],
            "PortBindings": {
                f"{port}/tcp": [{"HostIp": address, "HostPort": str(host_port)} for address in addresses]
                for port, host_port in config.ports.items()
            },
            "Tmpfs": dict(config.tmpfs),
            "RestartPolicy": {"Name": config.restart},
            "Memory": config.memory,
            "CapAdd": list(config.capabilities),
        }
        if config.nested:
            host["CapAdd"] += [c for c in privileges.NESTED_CAPABILITIES if c not in config.capabilities]
            # "systempaths" is a word of the stock client alone: the API knows the lists of paths that it stands for.
            host["SecurityOpt"] = [o for o in privileges.NESTED_SECURITY_OPT if not o.startswith("systempaths")]
            host |= {"MaskedPaths": [], "ReadonlyPaths": []}
            host["Tmpfs"] = {**privileges.NESTED_TMPFS, **config.tmpfs}
            host["CgroupnsMode"] = privileges.NESTED_CGROUPNS
        endpoint = {"IPAMConfig": {"IPv4Address": config.address}, "Aliases": [config.hostname]}
        env = {**_proxies(self.endpoint, config.address), **config.env}
        about: dict[str, Any] = {
            "Image": config.image,
            "Hostname": config.hostname,
            "Entrypoint": list(config.entrypoint) or None,
            "Cmd": list(config.command) or None,
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Labels": dict(config.labels),
            "ExposedPorts": {f"{port}/tcp": {} for port in config.ports},
            "StopTimeout": config.stop_timeout,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {config.network: endpoint}},
        }
        with _errors(f"create container {config.name}"):
            self._api.request("POST", "/containers/create", params={"name": config.name}, data=about)

    def start_container(self, name: str) -> None:
        with _errors(f"start container {name}"):
            try:
                self._api.request("POST", f"/containers/{name}/start")
            except APIError as error:
                if "unpause" not in error.message:
                    raise
                self._api.request("POST", f"/containers/{name}/unpause")

    def stop_container(self, name: str) -> None:
        # Without a time of ours the engine takes the container's own, so the call may take as long as that.
        with _errors(f"stop container {name}"):
            self._api.request("POST", f"/containers/{name}/stop", timeout=None)

    def pause_container(self, name: str) -> None:
        with _errors(f"pause container {name}"):
            self._api.request("POST", f"/containers/{name}/pause")

    def update_container(self, name: str, restart: str) -> None:
        with _errors(f"update container {name}"):
            self._api.request("POST", f"/containers/{name}/update", data={"RestartPolicy": {"Name": restart}})

    def kill_container(self, name: str) -> None:
        with _errors(f"kill container {name}"):
            try:
                self._api.request("POST", f"/containers/{name}/kill")
            except APIError as error:
                if error.status not in (404, 409):
                    raise

    def remove_container(self, name: str) -> None:
        with _errors(f"remove container {name}"):
            # A removal that is under way already (409) is as good as ours, once it is through.
            for _ in range(100):
                try:
                    self._delete(f"/containers/{name}", force=1, v=1)
                    return
                except APIError as error:
                    if "already in progress" not in error.message:
                        raise
                    time.sleep(0.1)

    # Within a container

    def put_files(self, container: str, files: Sequence[File]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                entry = _tar_entry(file.path, len(file.content), file.mode, file.uid, file.gid)
                tar.addfile(entry, io.BytesIO(file.content))
        with _errors(f"write files into {container}"):
            self._put(container, "/", buffer.getvalue())

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        entry = _tar_entry(path, size, 0o600)

        def tar() -> Iterator[bytes]:
            yield entry.tobuf(tarfile.PAX_FORMAT)
            yield from content
            padding = -size % tarfile.BLOCKSIZE
            yield bytes(padding + 2 * tarfile.BLOCKSIZE)

        with _errors(f"write {path} into {container}"):
            self._put(container, "/", tar())

    def _put(self, container: str, folder: str, tar: bytes | Iterator[bytes], **params: int) -> None:
        about = {"path": folder, **params}
        self._api.request("PUT", f"/containers/{container}/archive", params=about, body=tar)

    def _get(self, container: str, path: str) -> Response:
        return self._api.open("GET", f"/containers/{container}/archive", params={"path": path})

    def get_file(self, container: str, path: str) -> bytes:
        with _errors(f"read {path} of {container}"), self._get(container, path) as answer:
            data = answer.read()
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
            try:
                with self._api.open("HEAD", f"/containers/{container}/archive", params={"path": path}) as answer:
                    header = answer.headers["X-Docker-Container-Path-Stat"]
            except APIError as error:
                if error.status == 404:
                    return None
                raise
        return dict(json.loads(base64.b64decode(header)))

    def _check_reach(self, container: str, path: str) -> None:
        """The engine copies to and from a container's disk and volumes alone, past what it has in memory."""
        with _errors(f"look at container {container}"):
            in_memory = self._inspect(container)["HostConfig"].get("Tmpfs") or {}
        at = PurePosixPath("/", path)
        for folder in map(PurePosixPath, in_memory):
            if folder == at or folder in at.parents:
                raise EngineError(
                    f"{at} of {container} is out of the engine's reach",
                    f"{folder} is in memory there (a tmpfs); the engine copies to and from disks alone.",
                    "Take another folder, such as /var/tmp or /root.",
                )

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        with _errors(f"read {path} of {container}"), self._get(container, path) as answer:
            yield from answer.chunks()

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        with _errors(f"write into {folder} of {container}"):
            self._put(container, folder, content, noOverwriteDirNonDir=1)

    def exit_code(self, container: str) -> int | None:
        with _errors(f"look at container {container}"):
            state = self._inspect(container)["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def _inspect(self, container: str) -> dict[str, Any]:
        return dict(self._api.request("GET", f"/containers/{container}/json"))

    def exec(
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
                about = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
                exec_id = self._api.request("POST", f"/containers/{container}/exec", data=about)["Id"]
                # Without asking for an upgrade of the protocol, which only who writes to the command needs.
                answer = self._api.open("POST", f"/exec/{exec_id}/start", data={"Tty": False, "Detach": False})
            except APIError as error:
                if "is not running" in error.message or "is paused" in error.message:
                    raise NodeFailed(f"cannot {what}", error.message) from error
                raise
            answer.socket.settimeout(None)
            timer = threading.Timer(timeout, answer.abort) if timeout is not None else None
            started = time.monotonic()
            if timer:
                timer.daemon = True
                timer.start()
            try:
                with answer, cancel.calls(answer.abort):
                    output: dict[int, list[bytes]] = defaultdict(list)
                    for stream, part in _frames(answer):
                        output[stream].append(part)
                    stdout, stderr = b"".join(output[1]), b"".join(output[2])
            except ConnectionLost:
                asked = cancel.is_set() or (timeout is not None and time.monotonic() - started >= timeout)
                if not asked:
                    raise
                stdout = stderr = b""
            finally:
                if timer:
                    timer.cancel()
            if cancel.is_set():
                raise Interrupted(f"stopped: {what}")
            if timeout is not None and time.monotonic() - started >= timeout:
                raise TimeoutError(f"{what}: no answer within {timeout:g} s")
            code = self._api.request("GET", f"/exec/{exec_id}/json")["ExitCode"]
        if code is None:  # the stream ended and the command did not: the container is going down
            raise NodeFailed(f"cannot {what}", "The container stopped meanwhile.")
        return ExecResult(int(code), stdout.decode(errors="replace"), stderr.decode(errors="replace"))

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
        params = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": "all" if tail is None else tail}
        with (
            _errors(f"read the log of {container}"),
            self._api.open("GET", f"/containers/{container}/logs", params=params) as answer,
        ):
            answer.socket.settimeout(None)
            rest = b""
            for _stream, chunk in _frames(answer):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
            if rest:
                yield rest

    def sample(self, container: str) -> Sample:
        with _errors(f"measure container {container}"):
            params = {"stream": 0, "one-shot": 1}
            return _sample(self._api.request("GET", f"/containers/{container}/stats", params=params))

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        cancel = cancel or Cancel()
        what = f"hear what happens to cluster {cluster}"
        params: dict[str, Any] = {"filters": {"type": ["container", "network", "volume"], "event": list(_EVENTS)}}
        if since is not None:
            params["since"] = f"{since:.9f}"
        with _errors(what):
            answer = self._api.open("GET", "/events", params=params, timeout=None)
            try:
                with answer, cancel.calls(answer.abort):
                    ours = _Ours(self, cluster)
                    for said in answer.messages():
                        event = ours.event(said)
                        if event:
                            yield event
            except ConnectionLost:
                if not cancel.is_set():
                    raise
        if not cancel.is_set():
            raise NoEngine(f"the engine stopped answering: {what}", "It ended the stream of its events.")

    # Images

    def images(self, recipes_only: bool = False) -> list[Image]:
        params = _filters(label=BUILD) if recipes_only else {}
        with _errors("list images"):
            found = self._api.request("GET", "/images/json", params=params)
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
                self._api.request("GET", f"/images/{ref}/json")
            except APIError as error:
                if error.status == 404:
                    return False
                raise
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
                params = {"fromImage": repository, **({"tag": tag} if tag else {})}
                about = _credentials(repository)
                with (
                    _errors(f"pull image {ref}"),
                    self._api.open("POST", "/images/create", params=params, headers=about, timeout=None) as answer,
                ):
                    for line in answer.messages():
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
            params = {"t": ref, "rm": 1, "forcerm": 1, "labels": dict(labels), "buildargs": dict(args)}
            with _docker_py("utils.build").tar(str(directory)) as archive:
                if context:
                    with tarfile.open(archive.name, "a") as more:
                        for name, path in context.items():
                            more.add(path, name)
                    archive.seek(0)
                body = iter(lambda: archive.read(1 << 16), b"")
                headers = {"Content-Type": "application/x-tar"}
                answer = self._api.open("POST", "/build", params=params, headers=headers, body=body, timeout=None)
            try:
                # The engine ends a build whose client hangs up.
                with answer, cancel.calls(answer.abort):
                    for line in answer.messages():
                        _heard_of_build(line, ref, directory, tail, progress, labels.get(PROFILE, ""))
            except ConnectionLost:
                if not cancel.is_set():
                    raise
        if cancel.is_set():
            raise Interrupted(f"stopped: building image {ref}")
        if not self.has_image(ref):
            raise ImageError(f"image {ref} was not built", "\n".join(tail[-15:]))

    def import_image(self, archive: Iterable[bytes], ref: str) -> None:
        repository, _, tag = ref.rpartition(":")
        params = {"fromSrc": "-", "repo": repository, "tag": tag}
        with (
            _errors(f"import image {ref}"),
            self._api.open("POST", "/images/create", params=params, body=archive, timeout=None) as answer,
        ):
            for line in answer.messages():
                if "error" in line:
                    raise ImageError(f"cannot import image {ref}", str(line["error"]))

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        what = "load images"
        loaded: list[str] = []
        failure = ""
        with _errors(what):
            headers = {"Content-Type": "application/x-tar"}
            try:
                with self._api.open(
                    "POST", "/images/load", params={"quiet": 1}, headers=headers, body=archive, timeout=None
                ) as answer:
                    for line in answer.messages():
                        failure = failure or str(line.get("error", ""))
                        said = str(line.get("stream", ""))
                        loaded += re.findall(r"^Loaded image(?: ID)?: (\S+)$", said, re.MULTILINE)
            except APIError as error:
                failure = error.message
        if failure or not loaded:
            raise ImageError("the engine cannot load it", failure or "The engine found no image in it.")
        return loaded

    def save_image(self, ref: str) -> Iterator[bytes]:
        with _errors(f"save image {ref}"), self._api.open("GET", f"/images/{ref}/get", timeout=None) as answer:
            yield from answer.chunks()

    def remove_image(self, ref: str) -> None:
        with _errors(f"remove image {ref}"):
            self._api.request("DELETE", f"/images/{ref}")

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


def _frames(answer: Response) -> Iterator[tuple[int, bytes]]:
    """Takes an attached stream apart: 1 is standard output, 2 is standard error.

    A frame is a byte for the stream, three of nothing, a big-endian length, content.
    """
    while len(header := answer.read(8)) == 8:
        stream, length = struct.unpack(">BxxxL", header)
        yield stream, answer.read(length)


def _docker_py(module: str) -> Any:
    """A module of docker-py, imported when it is needed: that takes as long as all the rest of a command's start.

    By one thread at a time: they import each other in circles, and another thread would get one that is half made.
    """
    with _IMPORTING:
        return importlib.import_module(f"docker.{module}")


def _credentials(repository: str) -> dict[str, str]:
    """The header with what the docker client's settings have for a repository's registry, if anything."""
    auth = _docker_py("auth")
    registry, _name = auth.resolve_repository_name(repository)
    found = auth.load_config().resolve_authconfig(registry)
    return {"X-Registry-Auth": auth.encode_header(found).decode()} if found else {}


def _proxies(endpoint: str, address: str) -> dict[str, str]:
    """Variables that the docker client's settings have for every container, as the client itself sets them.

    What goes from node to node passes no proxy.
    """
    proxies = client_settings().get("proxies") or {}
    if not proxies:
        return {}
    chosen = proxies.get(endpoint) or proxies.get("default") or {}
    found = dict(_docker_py("utils.proxy").ProxyConfig.from_dict(chosen).get_environment())
    if found:
        here = ["localhost", "127.0.0.1", f"{address.rpartition('.')[0]}.0/24"]  # as large as clusters' subnets are
        found["NO_PROXY"] = ",".join([*filter(None, [found.get("NO_PROXY")]), *here])
        found["no_proxy"] = found["NO_PROXY"]
    return found


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


def _tar_entry(path: str, size: int, mode: int, uid: int = 0, gid: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(PurePosixPath(path)).lstrip("/"))
    entry.size, entry.mode, entry.mtime = size, mode, int(time.time())
    entry.uid, entry.gid = uid, gid
    return entry


def _of(cluster: str | None) -> str:
    return f"{CLUSTER}={cluster}" if cluster else CLUSTER


def _filters(**only: str) -> dict[str, dict[str, list[str]]]:
    """What narrows a list down, as a part of its query."""
    return {"filters": {key: [value] for key, value in only.items()}}


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
