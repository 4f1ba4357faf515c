"""Docker's API as an :class:`~minicluster.engine.protocol.Engine`: a step of a plan is one call of it."""

from __future__ import annotations

import contextlib
import platform
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from minicluster.engine import privileges
from minicluster.engine.docker import answers, archive, capabilities, events, images, machine, streams, swarm
from minicluster.engine.docker.answers import cluster_label, filters
from minicluster.engine.docker.client_side import proxies
from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, APIError, ConnectionLost
from minicluster.engine.private import bridge
from minicluster.engine.protocol import (
    Attached,
    Cancel,
    Container,
    ContainerConfig,
    Engine,
    EngineEvent,
    EngineInfo,
    ExecResult,
    File,
    Image,
    ImageBuild,
    Job,
    Network,
    NetworkConfig,
    PathStat,
    Progress,
    Sample,
    Sandbox,
    Swarm,
    Volume,
)
from minicluster.errors import Conflict, MiniclusterError
from minicluster.host import procfs
from minicluster.model import labels
from minicluster.model.spec import LOCALHOST

if TYPE_CHECKING:
    from minicluster.engine.address import EngineAddress

_NO_LEADER = "swarm does not have a leader"
_FREED = 10.0  # seconds that a swarm's managers may take to learn that a container has left a network
_ATTACHED = 90.0  # seconds after which a container that cannot join a network of a swarm is not started again
_KNOWN = 10.0  # seconds that a host may lack a network of the swarm which its managers have just assigned to it
_SWARM_NETWORK = re.compile(r"network [0-9a-z]{25} not found")  # a swarm's IDs are shorter than those of an engine

_PATIENCE = 10.0  # seconds that a job has to end when it is told to

#: Logs that can be read, whatever driver the engine's configuration has for containers, and that fill no disk.
_LOGS = {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "3"}}

_MTU = "com.docker.network.driver.mtu"

#: What the engine's configuration may have otherwise for new networks (``default-network-opts``).
_REACHED = {
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.gateway_mode_ipv4": "nat",
}


class DockerEngine:
    """See :class:`minicluster.engine.protocol.Engine` for what each call means."""

    hosts: Mapping[str, Engine] = {}
    gone: Mapping[str, str] = {}

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self.endpoint = address.url
        self.reference = address.dump()
        self._api = Api(address)
        self._capabilities: tuple[str, ...] | None = None  # that it can give; None until they are needed
        self._capabilities_lock = threading.Lock()
        self._machine: dict[str, str] = {}  # files of the engine's machine that were read

    @cached_property
    def _version(self) -> dict[str, Any]:
        with translated("get the engine's version"):
            return dict(self._api.request("GET", "/version"))

    @cached_property
    def local(self) -> bool:
        # Docker Desktop and Colima listen on a local socket too, but run on a virtual machine's kernel.
        return self.endpoint.startswith("unix://") and self._version.get("KernelVersion") == platform.release()

    @cached_property
    def shares_localhost(self) -> bool:
        scheme, _, path = self.endpoint.partition("://")
        return scheme in ("unix", "npipe") and procfs.listener_is_here(path)

    @cached_property
    def info(self) -> EngineInfo:
        version = self._version
        with translated("get the engine's version"):
            info = self._api.request("GET", "/info")
        return EngineInfo(
            endpoint=self.address.url,
            source=self.address.source,
            version=str(version.get("Version", "")),
            api_version=str(version.get("ApiVersion", "")),
            platform=f"{version.get('Os', 'linux')}/{version.get('Arch', '')}",
            operating_system=str(info.get("OperatingSystem", "")),
            kernel=str(info.get("KernelVersion", "")),
            cgroup_version=int(info.get("CgroupVersion") or 1),
            storage_driver=str(info.get("Driver", "")),
            rootless=any("rootless" in option for option in info.get("SecurityOptions") or ()),
            remaps_users=any("userns" in option for option in info.get("SecurityOptions") or ()),
            runtime=str(info.get("DefaultRuntime") or "runc"),
            forwards=bool(info.get("IPv4Forwarding", True)),
            file_types=["Supports d_type", "false"] not in (info.get("DriverStatus") or ()),
            authorization=tuple((info.get("Plugins") or {}).get("Authorization") or ()),
            warnings=tuple(info.get("Warnings") or ()),
            id=str(info.get("ID", "")),
            cpus=int(info.get("NCPU") or 0),
            memory=int(info.get("MemTotal") or 0),
            data_root=str(info.get("DockerRootDir", "")),
            local=self.local,
        )

    # Lists

    def containers(self, cluster: str | None = None) -> list[Container]:
        return self._containers(label=cluster_label(cluster))

    def _containers(self, **only: str) -> list[Container]:
        with translated("list containers"):
            found = self._api.request("GET", "/containers/json", params={"all": 1, **filters(**only)})
        return [answers.container(c) for c in found]

    def container(self, name: str) -> Container | None:
        found = self._containers(name=f"^/?{re.escape(name)}$")
        return next((c for c in found if c.name == name), None)

    def own_container(self) -> Container | None:
        own: Container | None = None
        for id_ in procfs.own_container_ids():
            own = own or self._by_id(id_)
        while own and own.network_mode.startswith("container:"):  # it shares another one's network
            own = self._by_id(own.network_mode.removeprefix("container:"))
        return own

    def _by_id(self, id_: str) -> Container | None:
        found = self._containers(id=id_, status="running")
        return next((c for c in found if c.id.startswith(id_)), None)

    def attached(self, network: str) -> list[Container]:
        return [c for c in self._containers(network=network) if network in c.networks]

    def network(self, name: str) -> Network | None:
        found = self._networks(name=f"^{re.escape(name)}$")
        return next((n for n in found if n.name == name), None)

    def networks(self, cluster: str | None = None) -> list[Network]:
        return self._networks(label=cluster_label(cluster))

    def network_names(self) -> list[str]:
        return sorted(network.name for network in self._networks())

    def _networks(self, **only: str) -> list[Network]:
        with translated("list networks"):
            return [answers.network(n) for n in self._api.request("GET", "/networks", params=filters(**only))]

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        with translated("list volumes"):
            found = self._api.request("GET", "/volumes", params=filters(label=cluster_label(cluster)))["Volumes"] or []
        return [Volume(v["Name"], v.get("Labels") or {}) for v in found]

    def volume(self, name: str) -> Volume | None:
        with translated(f"inspect volume {name}"):
            try:
                found = self._api.request("GET", f"/volumes/{name}")
            except APIError as error:
                # One that the engine itself does not have it looks for in its swarm, which may not work.
                if error.status == 404 or _NO_LEADER in error.message:
                    return None
                raise
        return Volume(found["Name"], found.get("Labels") or {})

    def subnets(self) -> list[str]:
        taken = [subnet for network in self._networks() for subnet in network.subnets]
        here = procfs.routes()
        there = [] if self.shares_localhost else procfs.parse_routes(self.machine_file(machine.ROUTES))
        return taken + [str(route) for route in (*here, *there)]

    def machine_file(self, path: str) -> str:
        if path == machine.MEMORY and path not in self._machine:
            alive = next((c for c in self.containers() if c.state == "running" and labels.NODE in c.labels), None)
            if alive:  # its kernel is the machine's
                with suppress(MiniclusterError, TimeoutError):
                    return machine.cat(self._api, alive.name, path)
        if path not in self._machine:
            # A container takes longer to start than both to read.
            usual = (machine.ROUTES, machine.MEMORY)
            self._machine |= machine.read(self._api, usual if path in usual else (path,))
        return self._machine.get(path, "")

    def clock(self) -> float:
        with translated("ask for the time"):
            return answers.moment(str(self._api.request("GET", "/info").get("SystemTime", "")))

    # The swarm of several engines

    def swarm(self) -> Swarm:
        return swarm.look(self._api)

    def join_swarm(
        self, address: str, manager: Engine | None, labels: Mapping[str, str], *, as_manager: bool = True
    ) -> None:
        swarm.join(self._api, address, manager, labels, as_manager=as_manager)

    def join_token(self, *, manager: bool) -> str:
        return swarm.token(self._api, manager=manager)

    def leave_swarm(self) -> None:
        swarm.leave(self._api)

    def set_swarm_role(self, id: str, *, manager: bool) -> None:
        swarm.set_role(self._api, id, "manager" if manager else "worker")

    def forget_swarm_node(self, id: str) -> None:
        swarm.forget(self._api, id)

    # Creating, changing and removing

    def create_network(self, config: NetworkConfig) -> None:
        pool = {"Subnet": config.subnet, "Gateway": config.gateway, "IPRange": config.dynamic_range}
        ipam = {"Driver": "default", "Config": [pool]}
        # Engines before API 1.44 create a second one of the same name unless CheckDuplicate is set.
        body: dict[str, Any] = {"Name": config.name, "Driver": "bridge", "IPAM": ipam, "Labels": dict(config.labels)}
        options = {"com.docker.network.bridge.name": bridge.name(), **_REACHED, **self._mtu()}
        body |= {"CheckDuplicate": True, "Options": options}
        if config.overlay:
            body = swarm.network(config.name, ipam, config.labels)
        with translated(f"create network {config.name}"):
            self._api.request("POST", "/networks/create", data=body)

    def _mtu(self) -> dict[str, str]:
        """The option for the largest packets that the engine's configuration allows, which counts for its own bridge
        alone (``mtu`` in daemon.json); none where it is the usual one."""
        try:
            found = self._api.request("GET", "/networks/bridge").get("Options") or {}
        except APIError:  # an engine with "bridge": "none"
            return {}
        return {_MTU: found[_MTU]} if found.get(_MTU, "1500") != "1500" else {}

    def remove_network(self, name: str) -> None:
        with translated(f"remove network {name}"):
            # A container that ended just now can stay connected to the network for a moment.
            # A swarm's managers learn a little later that one has left it.
            end = time.monotonic() + _FREED
            while True:
                try:
                    self._delete(f"/networks/{name}")
                    return
                except APIError as error:
                    patience = "active endpoints" in error.message and time.monotonic() < end - _FREED + 1.5
                    waits = "in use by task" in error.message and time.monotonic() < end
                    if not (patience or waits):
                        raise
                    if waits and swarm.free(self._api, error.message):
                        continue
                    time.sleep(0.05)

    def _delete(self, path: str, **params: int) -> None:
        """No error where it does not exist."""
        try:
            self._api.request("DELETE", path, params=params)
        except APIError as error:
            # A volume that the engine itself does not have it looks for in its swarm, which may not work.
            absent = path.startswith("/volumes/") and _NO_LEADER in error.message
            if error.status != 404 and not absent:
                raise

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        body: dict[str, Any] = {
            "Container": container,
            "EndpointConfig": {"Aliases": list(aliases)} if aliases else None,
        }
        with translated(f"connect {container} to network {network}"):
            try:
                self._api.request("POST", f"/networks/{network}/connect", data=body)
            except APIError as error:
                if "already exists in network" not in error.message:
                    raise

    def disconnect_network(self, network: str, container: str) -> None:
        with translated(f"disconnect {container} from network {network}"):
            try:
                self._api.request("POST", f"/networks/{network}/disconnect", data={"Container": container})
            except APIError as error:
                if error.status != 404 and "is not connected to" not in error.message:
                    raise

    def create_volume(self, name: str, labels: Mapping[str, str], device: str = "") -> None:
        body = {"Name": name, "Labels": dict(labels)}
        if device:
            body["DriverOpts"] = {"type": "ext4", "device": device}
        with translated(f"create volume {name}"):
            found = self._api.request("POST", "/volumes/create", data=body)
            if found.get("Labels") is None and labels:
                # A restarted engine returns an existing volume without its labels until somebody has inspected it.
                found = self._api.request("GET", f"/volumes/{name}")
        # If a volume of that name exists, the engine returns it as it is and changes nothing.
        if (found.get("Labels") or {}) != dict(labels):
            raise Conflict(
                f"cannot create volume {name}: it exists already",
                "A volume of that name exists, and its labels are not those of the one to create.",
                "Remove it (`docker volume rm`), or choose another cluster name with --name.",
            )

    def volume_size(self, name: str) -> int | None:
        with translated(f"measure volume {name}"):
            answer = self._api.request("GET", "/system/df", params={"type": "volume", "verbose": 1}, timeout=None)
        # Engines from API 1.52 on: https://docs.docker.com/reference/api/engine/version-history/
        found = answer.get("Volumes") or (answer.get("VolumeUsage") or {}).get("Items") or []
        sizes = [volume["UsageData"]["Size"] for volume in found if volume["Name"] == name]
        return sizes[0] if sizes else None

    def remove_volume(self, name: str) -> None:
        with translated(f"remove volume {name}"):
            self._delete(f"/volumes/{name}")

    def sees(self, path: str) -> bool:
        # The engine checks mounts before it looks for the image, which does not exist: nothing is ever created.
        body = {"Image": "minicluster/none:none", "HostConfig": {"Mounts": [_bind(path, "/mnt", read_only=True)]}}
        with translated(f"look for {path}"):
            try:
                self._api.request("POST", "/containers/create", data=body)
            except APIError as error:
                if error.status == 400:
                    return False
                if error.status != 404:
                    raise
        return True

    def create_container(self, config: ContainerConfig) -> None:
        addresses = dict.fromkeys((LOCALHOST, config.bind_address))
        host: dict[str, Any] = {
            "Init": True,
            "NetworkMode": config.network,
            "Binds": [f"{volume}:{path}" for path, volume in config.volumes.items()],
            # Unlike a bind of that list, the engine never creates a folder that is missing.
            "Mounts": [_bind(m.host, m.path, read_only=m.read_only) for m in config.mounts],
            "PortBindings": {
                port: [
                    {"HostIp": address, "HostPort": str(host_port)}
                    for address in ((LOCALHOST,) if port in config.local_ports else addresses)
                ]
                for port, host_port in config.ports.items()
            },
            "Tmpfs": dict(config.tmpfs),
            "RestartPolicy": {"Name": config.restart},
            "Memory": config.memory,
            "NanoCpus": round(config.cpus * 1e9),
            "CapAdd": list(config.capabilities),
            "LogConfig": _LOGS,
        }
        if config.nested:
            added = privileges.NESTED_CAPABILITIES
            if config.privileged:
                added = self._granted(config)
                host["DeviceCgroupRules"] = [privileges.DEVICE_RULE]
            host["CapAdd"] += [c for c in added if c not in config.capabilities]
            # The API has no "systempaths": the docker client translates it to these two lists.
            host["SecurityOpt"] = [o for o in privileges.NESTED_SECURITY_OPT if not o.startswith("systempaths")]
            host |= {"MaskedPaths": [], "ReadonlyPaths": []}
            host["Tmpfs"] = {**privileges.NESTED_TMPFS, **config.tmpfs}
            host["CgroupnsMode"] = privileges.NESTED_CGROUPNS
        endpoint = {"IPAMConfig": {"IPv4Address": config.address}, "Aliases": [config.hostname]}
        env = {**(proxies(self.endpoint, config.address) if config.address else {}), **config.env}
        if config.privileged:
            env[privileges.PRIVILEGED_ENV] = "yes"
        body: dict[str, Any] = {
            "Image": config.image,
            "Hostname": config.hostname,
            "Entrypoint": list(config.entrypoint) or None,
            "Cmd": list(config.command) or None,
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Labels": dict(config.labels),
            "ExposedPorts": {port: {} for port in config.ports},
            "StopTimeout": config.stop_timeout,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {config.network: endpoint} if config.address else {}},
        }
        with translated(f"create container {config.name}"):
            self._api.request("POST", "/containers/create", params={"name": config.name}, data=body)

    def _granted(self, config: ContainerConfig) -> tuple[str, ...]:
        """All capabilities that the engine can give a container."""
        with self._capabilities_lock:
            if self._capabilities is None:
                self._capabilities = capabilities.granted(
                    self._api, self.endpoint, str(self._version.get("ApiVersion", "")), config
                )
            return self._capabilities

    def create_job(self, job: Job) -> None:
        body: dict[str, Any] = {
            "Image": job.image,
            "Entrypoint": list(job.command),
            "Cmd": [],
            "Env": [f"{name}={value}" for name, value in job.env.items()],
            "Labels": dict(job.labels),
            "HostConfig": {
                "Init": True,
                "AutoRemove": True,
                "LogConfig": _LOGS,  # its result is read from there
                **privileges.of_job(job),
            },
            **({"OpenStdin": True, "StdinOnce": True, "AttachStdin": True} if job.stdin else {}),
        }
        with translated(f"create container {job.name}"):
            self._api.request("POST", "/containers/create", params={"name": job.name}, data=body)
        if job.files:
            self.put_files(job.name, job.files)

    def start_container(self, name: str) -> None:
        begun, late = time.monotonic(), False
        with translated(f"start container {name}"):
            while True:
                try:
                    self._api.request("POST", f"/containers/{name}/start")
                    return
                except APIError as error:
                    if "unpause" in error.message:
                        self._api.request("POST", f"/containers/{name}/unpause")
                        return
                    # A busy swarm manager takes longer to assign the network than the engine waits for it. The engine
                    # then removes what it has of the network, which it lacks for a moment.
                    failed = "attaching to network failed" in error.message
                    late = late or failed
                    unknown = error.status == 404 and _SWARM_NETWORK.match(error.message)
                    missing = late and error.status == 404 and error.message.startswith("network")
                    patience = _ATTACHED if failed or missing else _KNOWN if unknown else 0
                    if time.monotonic() - begun > patience:
                        raise
                    time.sleep(0.2)

    def _release(self, name: str) -> None:
        """Ends what a container that is about to end has in the machine's kernel, where it may have something there."""
        if self.local and not procfs.loop_devices():
            return
        with contextlib.suppress(MiniclusterError, APIError, TimeoutError):
            about = self._api.request("GET", f"/containers/{name}/json")
            if about["State"]["Running"] and f"{privileges.PRIVILEGED_ENV}=yes" in (about["Config"]["Env"] or ()):
                self.exec(name, privileges.RELEASE, timeout=5)

    def stop_container(self, name: str) -> None:
        self._release(name)
        # The engine waits for the container's own stop timeout, so the call has no limit.
        with translated(f"stop container {name}"):
            self._api.request("POST", f"/containers/{name}/stop", timeout=None)

    def pause_container(self, name: str) -> None:
        with translated(f"pause container {name}"):
            try:
                self._api.request("POST", f"/containers/{name}/pause")
            except APIError as error:
                if "already paused" not in error.message:
                    raise

    def update_container(self, name: str, restart: str) -> None:
        with translated(f"update container {name}"):
            self._api.request("POST", f"/containers/{name}/update", data={"RestartPolicy": {"Name": restart}})

    def kill_container(self, name: str, signal: str = "KILL") -> None:
        with translated(f"kill container {name}"):
            try:
                self._api.request("POST", f"/containers/{name}/kill", params={"signal": signal})
            except APIError as error:
                if error.status not in (404, 409):
                    raise

    def end_job(self, name: str, signal: str = "TERM") -> None:
        with translated(f"end container {name}"):
            try:
                self._api.request("POST", f"/containers/{name}/kill", params={"signal": signal})
                self._api.request("POST", f"/containers/{name}/wait", timeout=_PATIENCE)
                return
            except APIError as error:
                if error.status == 404:
                    return  # else it does not run
            except ConnectionLost:
                pass  # it does not end; or the engine does not answer, which the removal says
        self.remove_container(name)

    def attach(self, container: str) -> Attached:
        return streams.Attached(self._api, container)

    def remove_container(self, name: str) -> None:
        self._release(name)
        with translated(f"remove container {name}"):
            # Where another removal is in progress (409), ours waits until that is complete.
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
        archive.put_files(self._api, container, files)

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        archive.put_file(self._api, container, path, content, size)

    def get_file(self, container: str, path: str) -> bytes:
        return archive.get_file(self._api, container, path)

    def stat_path(self, container: str, path: str) -> PathStat | None:
        return archive.stat_path(self._api, container, path)

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        return archive.read(self._api, container, path)

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        archive.write(self._api, container, folder, content)

    def sandbox(self, container: str) -> Sandbox | None:
        with translated(f"inspect container {container}"):
            try:
                found = self._api.request("GET", f"/containers/{container}/json")
            except APIError as error:
                if error.status == 404:
                    return None
                raise
        networks = (found["NetworkSettings"].get("Networks") or {}).values()
        macs = tuple(network["MacAddress"] for network in networks if network.get("MacAddress"))
        pid, host = int(found["State"]["Pid"]), found["HostConfig"]
        cpus = (host.get("NanoCpus") or 0) / 1e9
        return Sandbox(found["Id"], pid, macs, host.get("Memory") or 0, cpus) if pid else None

    def exit_code(self, container: str) -> int | None:
        with translated(f"inspect container {container}"):
            state = self._api.request("GET", f"/containers/{container}/json")["State"]
        return None if state["Running"] or state["Status"] == "created" else int(state["ExitCode"])

    def killed_at(self, container: str) -> int | None:
        with translated(f"inspect container {container}"):
            about = self._api.request("GET", f"/containers/{container}/json")
        return int(about["HostConfig"].get("Memory") or 0) if about["State"].get("OOMKilled") else None

    def exec(
        self, container: str, argv: Sequence[str], *, timeout: float | None = None, cancel: Cancel | None = None
    ) -> ExecResult:
        return streams.run(self._api, container, argv, timeout, cancel or Cancel())

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        flags = [*(["--interactive"] if stdin else []), *(["--tty"] if tty else [])]
        env = {"DOCKER_HOST": self.address.url, "DOCKER_CONTEXT": "", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}
        options: list[str] = []
        if self.address.tls:
            tls = self.address.tls
            options = ["--tlsverify" if tls.verify else "--tls"]
            for flag, value in (("--tlscacert", tls.ca), ("--tlscert", tls.cert), ("--tlskey", tls.key)):
                options += [f"{flag}={value}"] if value else []
        return ["docker", *options, "exec", *flags, container, *argv], env

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        return streams.logs(self._api, container, tail, follow)

    def sample(self, container: str) -> Sample:
        with translated(f"measure container {container}"):
            params = {"stream": 0, "one-shot": 1}
            return answers.sample(self._api.request("GET", f"/containers/{container}/stats", params=params))

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        return events.follow(self, self._api, cluster, since, cancel or Cancel())

    # Images

    def images(self) -> list[Image]:
        return images.listing(self._api)

    def has_image(self, ref: str) -> bool:
        return images.inspected(self._api, ref) is not None

    def image(self, ref: str) -> Image | None:
        return images.one(self._api, ref)

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        images.pull(self._api, ref, progress, timeout, cancel or Cancel())

    def build_image(self, build: ImageBuild, progress: Progress, cancel: Cancel | None = None) -> None:
        images.build(self._api, build, progress, cancel or Cancel())

    def import_image(self, archive: Iterable[bytes], ref: str, labels: Mapping[str, str] | None = None) -> None:
        images.import_tar(self._api, archive, ref, labels or {})

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        return images.load(self._api, archive)

    def save_image(self, ref: str) -> Iterator[bytes]:
        return images.save(self._api, ref)

    def remove_image(self, ref: str) -> None:
        images.remove(self._api, ref)

    def close(self) -> None:
        self._api.close()


def _bind(host: str, path: str, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": host, "Target": path, "ReadOnly": read_only}
