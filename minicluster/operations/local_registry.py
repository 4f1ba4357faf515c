"""The engine's local registry: started, stopped, and made known to the nodes of every cluster.

Its container and its volume belong to no cluster, so `down` leaves them. The authority that issued its certificate is
kept in the container, as clusters keep theirs in nodes: nodes trust it until the container is removed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel, ContainerConfig, Engine, File, Volume
from minicluster.errors import Conflict, MiniclusterError, NodeFailed, NotFound, PortTaken
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Event, Listener
from minicluster.model.local_registry import NAME, PORT, TLS, LocalRegistry
from minicluster.model.naming import container_name, network_name
from minicluster.model.spec import LOCALHOST, CertificateSpec, ImageSpec, Spec
from minicluster.operations import observe, preflight

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Container

DEFAULT_PORT = 5001  #: on 127.0.0.1; swarm services and other registries often use 5000
_ANOTHER_PORT = "Choose another one: `minicluster registry start --port PORT`."
_IN_USE = (f"the name {NAME} is in use", "A container", f"Rename or remove it: `docker rename {NAME} NAME`.")
_LEFT = (f"volume {NAME} is left as it is", "A volume", f"If nothing needs it: `docker volume rm {NAME}`.")
_DATA = "/var/lib/registry"
_READY = ("/etc/minicluster/registry-ready",)


@dataclass(frozen=True)
class RegistryStatus:
    """The local registry, as ``registry status`` shows it."""

    state: str  #: running, stopped or none
    host: str = ""  #: what names of its images begin with
    clusters: tuple[str, ...] = ()  #: whose networks it has joined
    image: str = ""
    container: str = ""
    volume: str = ""  #: with its data
    size: int | None = None  #: bytes of its data; None where not measured


def status(engine: Engine, *, size: bool = False) -> RegistryStatus:
    """The state of the local registry. ``size``: measure its data, which may take a second."""
    used = engine.volume_size(NAME) if size else None
    container, found = engine.container(NAME), observe.local_registry(engine)
    if container is None or found is None:
        return RegistryStatus("none", volume="" if used is None else NAME, size=used)
    joined = tuple(sorted(n.labels[labels.CLUSTER] for n in engine.networks() if n.name in found.networks))
    state = "running" if container.state == "running" else "stopped"
    return RegistryStatus(state, found.host, joined, container.image, NAME, NAME, used)


def start(engine: Engine, port: int | None, listener: Listener) -> RegistryStatus:
    """Starts the registry, creates it where there is none, and tells the nodes of all clusters of it.

    Args:
        port: on 127.0.0.1; None: the one that it had, else :data:`DEFAULT_PORT`.

    Raises:
        PortTaken: the port is in use.
        Conflict: a container of its name is not minicluster's.
        ImageError: its image cannot be built.
    """
    from minicluster.executor.signals import shielded
    from minicluster.operations import images

    cancel = Cancel()
    with lock.building(NAME, cancel, lambda: _say(listener, "another minicluster process is starting it")):
        image = _image()
        container = engine.container(NAME)
        _check_ours(container, *_IN_USE)
        before = observe.local_registry(engine)
        wanted = port or (before.port if before else DEFAULT_PORT)
        if engine.shares_localhost and not (container and container.alive and before and before.port == wanted):
            _check_port(wanted)
        if not engine.has_image(image.ref):
            try:
                images.provide(engine, "registry", listener)(image, cancel)
            except KeyboardInterrupt:
                with shielded():
                    cancel.set()
                raise
        if container is None or before is None or (before.port, container.image) != (wanted, image.ref):
            _create(engine, image.ref, wanted)
        try:
            engine.start_container(NAME)
        except PortTaken as error:
            error.fix = _ANOTHER_PORT
            raise
        _wait(engine, listener)
        found = observe.local_registry(engine)
        assert found
        _join(engine, found, listener)
    return status(engine)


def stop(engine: Engine, *, remove_data: bool, listener: Listener) -> RegistryStatus:
    """Stops the registry. ``remove_data``: removes its container, with the authority, and its images too."""
    with lock.building(NAME, Cancel(), lambda: _say(listener, "another minicluster process is starting it")):
        container = engine.container(NAME)
        _check_ours(container, *_IN_USE)
        if container and container.alive:
            engine.stop_container(NAME)
        if remove_data:
            engine.remove_container(NAME)
            _check_ours(engine.volume(NAME), *_LEFT)
            engine.remove_volume(NAME)
    return status(engine)


def _check_port(port: int) -> None:
    if not preflight.port_is_free(port, LOCALHOST):
        what = f"port {port} on {LOCALHOST} is in use"
        raise PortTaken(what, "The local registry listens there.", _ANOTHER_PORT, port=port)


def _say(listener: Listener, text: str) -> None:
    listener(Event("progress", "", "registry", text))


def _image() -> ImageSpec:
    """Its image: built like those of nodes."""
    from minicluster.profile import folders, parts
    from minicluster.profile.image_tag import build_ref

    folder = folders.bundled_directory() / "_registry" / "image"
    part = parts.resolve({}, ["registry"], "", {})["registry"]
    ref = build_ref("registry", "server", folder, parts=(part,))
    return ImageSpec("server", ref, "build", str(folder), parts=(part,))


def _check_ours(found: Container | Volume | None, what: str, kind: str, fix: str) -> None:
    if found and labels.REGISTRY not in found.labels:
        raise Conflict(what, f"{kind} that minicluster did not create has that name.", fix)


def _create(engine: Engine, image: str, port: int) -> None:
    """Creates the container, in place of one that there is: its authority, data and networks stay."""
    from minicluster import pki

    authority, networks = pki.Authority(), frozenset[str]()
    before = engine.container(NAME)
    if before:
        networks = before.networks - {before.network_mode}
        with contextlib.suppress(NotFound, ValueError):  # its creation was interrupted
            authority = pki.Authority.load(engine.get_file(NAME, pki.PATH))
        engine.remove_container(NAME)
    engine.create_volume(NAME, {labels.REGISTRY: NAME})
    engine.create_container(
        ContainerConfig(
            name=NAME,
            image=image,
            hostname=NAME,
            network="bridge",
            address="",
            labels={labels.REGISTRY: str(port)},
            volumes={_DATA: NAME},
            ports={f"{PORT}/tcp": port},
            restart="unless-stopped",
        )
    )
    engine.put_files(NAME, _files(authority))
    for network in networks:
        engine.connect_network(network, NAME)


def _files(authority: pki.Authority) -> list[File]:
    from minicluster import pki

    issued = authority.issue(CertificateSpec("", NAME, names=(NAME, "localhost"), addresses=("127.0.0.1",)))
    return [
        File(f"{TLS}/ca.pem", issued.ca),
        File(f"{TLS}/cert.pem", issued.certificate),
        File(f"{TLS}/key.pem", issued.key, 0o600),
        File(pki.PATH, authority.dump(), 0o600),
    ]


def _wait(engine: Engine, listener: Listener) -> None:
    from minicluster.executor.run import Run
    from minicluster.executor.waiting import wait_ready

    _say(listener, "waiting until it serves")
    wait_ready(NAME, _READY, Run(engine, None, DEFAULT_TIMEOUT, listener))


def _join(engine: Engine, registry: LocalRegistry, listener: Listener) -> None:
    """Joins the networks of all clusters whose nodes pull images, and tells those nodes of it."""
    from minicluster.plan.observed import records

    every: dict[str, list[Volume]] = {}
    for volume in engine.volumes():
        every.setdefault(volume.labels[labels.CLUSTER], []).append(volume)
    for cluster, volumes in every.items():
        recorded = records(volumes)
        spec = recorded[-1].spec if recorded else None
        if spec is None or not any(node.local_registry for node in spec.nodes):
            continue
        _say(listener, f"joining cluster {cluster}")
        try:
            with lock.changing(cluster):  # `up` or `down` of it reads by itself what there is
                _join_cluster(engine, registry, spec)
        except (MiniclusterError, TimeoutError) as error:
            what = error.what if isinstance(error, MiniclusterError) else str(error)
            fix = f"`minicluster registry start` tries again, `minicluster up --name {cluster}` as well."
            listener(Event("note", text=f"cluster {cluster} does not know the registry: {what}. {fix}"))


def _join_cluster(engine: Engine, registry: LocalRegistry, spec: Spec) -> None:
    containers = {container.name: container for container in engine.containers(spec.cluster)}
    for node in spec.nodes:
        name = container_name(spec.cluster, node.name)
        files = registry.files(node)
        if not files or name not in containers:
            continue
        engine.put_files(name, [File(f.path, f.content.encode(), f.mode, f.uid, f.gid) for f in files])
        if node.registry_hook and containers[name].state == "running":
            result = engine.exec(name, node.registry_hook, timeout=30.0)
            if result.exit_code:
                what = f"{node.registry_hook[0]} in {name} ended with status {result.exit_code}"
                raise NodeFailed(what, (result.stderr or result.stdout).strip()[-2000:])
    # Last: by its networks `up` sees of which clusters the nodes know the registry.
    if network_name(spec.cluster) not in registry.networks:
        engine.connect_network(network_name(spec.cluster), NAME)
