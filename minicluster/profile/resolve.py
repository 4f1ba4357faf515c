"""From a profile and overrides to a spec: counts, addresses, ports, images and every template rendered. Pure.

:mod:`minicluster.profile.variables` says which names templates see in which place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model import spec
from minicluster.model.deferred import CLIENT_PARTS, REGISTRY_CREDENTIALS
from minicluster.model.spec import LOCALHOST
from minicluster.profile import addressing, schema
from minicluster.profile.certificates import certificate
from minicluster.profile.deferred import Deferred, DeferredGroup
from minicluster.profile.host_mounts import mounts_of_nodes, with_mounts
from minicluster.profile.host_ports import choose_host_ports
from minicluster.profile.image_tag import build_ref
from minicluster.profile.references import bin_place, check_count, inside, scripts
from minicluster.profile.scope import Endpoint, Node, Registry, Scope, hook_values, read, secret_of
from minicluster.profile.template import FunctionFailed

if TYPE_CHECKING:
    from minicluster.profile.loaded import Loaded


def resolve(
    loaded: Loaded,
    *,
    cluster: str,
    overrides: spec.Overrides,
    subnet: str,
    previous: spec.Spec | None = None,
    port_is_free: Callable[[int], bool] = lambda _port: True,
    bind_address: str = LOCALHOST,
    source: str = "",
) -> spec.Spec:
    """Fills a profile in.

    Args:
        loaded: the profile, with the overrides' ``--set`` already in it.
        cluster: name of the cluster.
        overrides: counts, images and ports that the user asked for.
        subnet: the cluster's own.
        previous: what runs now under that name: its nodes keep their addresses and ports.
        port_is_free: reports whether a host port can be used.
        bind_address: the address of the engine's machine that endpoints are published on, in addition to 127.0.0.1.
        source: what the user called the profile.

    Raises:
        ProfileError: a template fails, or names something that is not there.
        UsageError: an override names something that is not there, or asks for what cannot be.
    """
    profile = loaded.profile
    counts = node_counts(loaded, overrides)
    _check_names(overrides.image, "--image", profile.images, "image")
    for name, ref in overrides.image.items():
        if len(ref.split()) != 1:
            what = f"--image {name}={ref}: {ref!r} is not an image reference"
            raise UsageError(what, "", "Write its reference, as `docker pull` takes it.")
    _check_registries(profile, overrides.registries or ())
    _check_subnets(loaded, subnet)
    before = {node.name: node for node in previous.nodes} if previous else {}
    roles = _topology(counts, subnet, before)
    nodes = [node for group in roles.values() for node in group]
    had = previous.images.values() if previous else ()
    before_parts = {part.name: part for image in had for part in image.parts}
    top = Scope(
        loaded,
        {
            "cluster": {
                "name": cluster,
                "subnet": subnet,
                "gateway": addressing.gateway(subnet),
                "virtual_range": addressing.virtual_range(subnet),
                "several_hosts": bool(overrides.hosts),  # one host that was named may become several
            },
            "settings": profile.settings,
            "parts": parts_of(loaded, before_parts),
            "roles": roles,
            "nodes": nodes,
            "registries": [_registry(one) for one in overrides.registries or ()],
            "registry_credentials": Deferred(REGISTRY_CREDENTIALS),
            "trusted_ca": overrides.ca or "",
        },
    )
    mounts = mounts_of_nodes(profile, roles, overrides, previous)
    kept_ports = previous.overrides.port if previous else {}
    images = {name: _image(top, name, overrides.image.get(name)) for name in profile.images}
    published = choose_host_ports(top, cluster, roles, overrides, before, port_is_free, kept_ports)
    env_scope = top.inner(place="env", secret=secret_of(profile), **_endpoint_functions(published))
    if profile.client:
        parts = ("directory", *CLIENT_PARTS)
        group = DeferredGroup("client", {part: f"client.{part}" for part in parts})
        env_scope = env_scope.inner(client=group)
    hooks = top.inner("hooks", **hook_values(profile))
    installed = {role: _scripts(loaded, role) for role, group in roles.items() if group}
    used_images = {profile.roles[role].image for role, group in roles.items() if group}
    made = [_node(top, node, roles, installed[node.role], published[node.name], bind_address) for node in nodes]
    if overrides.ca and not any(overrides.ca in file.content for node in made for file in node.files):
        raise UsageError(
            f"nodes of profile {profile.name} have no store of trusted certificates",
            "--ca would have no effect.",
            "Leave it out; --ca none removes what an earlier `up` was given.",
        )
    return spec.Spec(
        cluster=cluster,
        profile=profile.name,
        summary=profile.summary,
        source=source,
        subnet=subnet,
        gateway=addressing.gateway(subnet),
        images={name: image for name, image in images.items() if name in used_images},
        nodes=tuple(with_mounts(node, mounts[node.name]) for node in made),
        init=tuple(
            top.inner("hooks", "init", i, place="init", **hook_values(profile, before=i)).hook(hook)
            for i, hook in enumerate(profile.hooks.init)
        ),
        load=hooks.hooks(profile.hooks.load, "load"),
        held=hooks.hooks(profile.hooks.held, "held"),
        tag=hooks.hooks(profile.hooks.tag, "tag"),
        reset=hooks.hooks(profile.hooks.reset, "reset"),
        members=top.inner("members", place="members").hook(profile.members) if profile.members else None,
        services=top.inner("services", place="members").hook(profile.services) if profile.services else None,
        write=top.inner("write", place="members").hook(profile.write) if profile.write else None,
        workload=top.inner("workload", place="members").hook(profile.workload) if profile.workload else None,
        env=env_scope.mapping(profile.env, "env"),
        client=certificate(top.inner("client", place="client"), profile.client.certificate, "certificate")
        if profile.client
        else None,
        client_files=_client_files(env_scope, profile),
        programs={name: _program(top, name, program) for name, program in profile.programs.items()},
        apply=tuple(
            spec.ApplySpec(
                tuple(one.files),
                one.program,
                top.inner("apply", i, place="apply", **hook_values(profile)).words(one.run, "run"),
                one.whole,
                one.stdin,
            )
            for i, one in enumerate(profile.apply)
        ),
        kernel=dict(profile.kernel),
        example=top.inner(place="client").text(profile.example, "example"),
        demo_image=_demo_image(profile, overrides),
        overrides=overrides,
        bind_address=bind_address,
    )


def _check_registries(profile: schema.Profile, named: Sequence[spec.RegistrySpec]) -> None:
    """Refuses registries that no node of the profile can be told of."""
    roles = [role.registries for role in profile.roles.values() if role.registries]
    for one in named:
        if not roles:
            raise UsageError(
                f"profile {profile.name} has no nodes that pull images",
                f"Registry {one.host} would be used by none.",
                "Leave out --registry and --registry-mirror; 'none' removes what an earlier `up` was given.",
            )
        for role in roles:
            if one.mirrors and role.mirrors_of and one.host not in role.mirrors_of:
                raise UsageError(
                    f"nodes of profile {profile.name} cannot have a mirror of {one.host}",
                    f"Their engine takes mirrors of {' and '.join(role.mirrors_of)} only.",
                    "Name the mirror itself in the images' references.",
                )


#: What templates see of the local registry, which may not exist yet.
_LOCAL = Registry(
    host=Deferred("registry.host"),
    server=Deferred("registry.server"),
    ca=Deferred("registry.ca"),
    local=True,
    address=Deferred("registry.address"),
    port=Deferred("registry.port"),
)


def _registry(one: spec.RegistrySpec) -> Registry:
    return Registry(one.host, f"https://{one.host}", one.ca, one.mirrors, one.insecure, one.credentials)


def _check_subnets(loaded: Loaded, subnet: str) -> None:
    """Refuses settings that are no subnets, and subnets that overlap. Raises ``ProfileError``."""
    known = {"the cluster's own": IPv4Network(subnet)}
    for name in loaded.profile.subnets:
        where, text = loaded.document.where(("settings", name)), str(loaded.profile.settings[name])
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise ProfileError(f"{where}: {name} must be a subnet", str(error), "Such as 10.244.0.0/16.") from None
        for other, taken in known.items():
            if network.overlaps(taken):
                what = f"{where}: {name} {network} overlaps with {other}, {taken}"
                raise ProfileError(
                    what, "Addresses in both would be ambiguous.", f"Choose another one: --set {name}=SUBNET."
                )
        known[name] = network


def _program(top: Scope, name: str, program: schema.Program) -> spec.ProgramSpec:
    part = top.values["parts"].get(program.part)
    version = part.version if part else ""
    return spec.ProgramSpec(
        name, program.path, program.image, program.on or "", version, tuple(program.version), program.minors
    )


def _check_names(given: Mapping[str, Any], option: str, known: Iterable[str], kind: str) -> None:
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{option} {name}={value}: no {kind} named {name!r}", "", nearest(name, known))


def node_counts(loaded: Loaded, overrides: spec.Overrides) -> dict[str, int]:
    """How many nodes each role has.

    Raises:
        UsageError, ProfileError: there is no such role, or it cannot have so many nodes.
    """
    _check_names(overrides.size, "--size", loaded.profile.roles, "role")
    counts = {}
    for name, role in loaded.profile.roles.items():
        counts[name] = overrides.size.get(name, role.count)
        if name in overrides.size:
            check_count(loaded, name, counts[name], f"--size {name}={counts[name]}")
    for name, role in loaded.profile.roles.items():
        if name not in overrides.size and any(counts[other] < least for other, least in role.requires.items()):
            counts[name] = 0
    return counts


def _topology(counts: Mapping[str, int], subnet: str, before: Mapping[str, spec.NodeSpec]) -> dict[str, list[Node]]:
    wanted = [(role, index, f"{role}-{index}") for role, count in counts.items() for index in range(1, count + 1)]
    kept = {name: before[name].address for _role, _index, name in wanted if name in before}
    # Addresses of nodes that leave are not free yet: they still run while new ones start.
    free = addressing.free_addresses(subnet, [node.address for node in before.values()])
    roles: dict[str, list[Node]] = {role: [] for role in counts}
    for role, index, name in wanted:
        roles[role].append(Node(name, role, index, kept.get(name) or next(free), name))
    return roles


def _client_files(scope: Scope, profile: schema.Profile) -> tuple[spec.FileSpec, ...]:
    sources = profile.client.files if profile.client else {}
    inner = scope.inner("client", "files")
    return tuple(spec.FileSpec(name, inner.content(source, name), 0o600) for name, source in sources.items())


def built_images(loaded: Loaded) -> dict[str, spec.ImageSpec]:
    """The images that the profile builds, by their names in it. Raises as :func:`resolve` does."""
    scope = Scope(loaded, {"settings": loaded.profile.settings, "parts": parts_of(loaded)})
    made = [name for name, image in loaded.profile.images.items() if image.build is not None]
    return {name: _image(scope, name, None) for name in made}


def parts_of(loaded: Loaded, before: Mapping[str, spec.PartSpec] | None = None) -> dict[str, spec.PartSpec]:
    """The parts of a profile's images, by name.

    Args:
        before: what nodes have: a file that was given for a part is not read again, it may be gone.

    Raises:
        UsageError: a version or a source cannot be had.
    """
    from minicluster.profile import parts

    profile = loaded.profile
    order = dict.fromkeys(part for image in profile.images.values() for part in image.parts)
    wanted = {name: (choice.version, choice.source) for name, choice in profile.parts.items()}
    main = profile.main_part or ""
    if main:
        version, source = wanted.get(main, ("", ""))
        wanted[main] = (version or str(profile.settings.get("version", "")), source)
    return parts.resolve(wanted, order, main, before or {})


def _image(top: Scope, name: str, given: str | None) -> spec.ImageSpec:
    loaded, scope = top.loaded, top.inner("images", name, place="image")
    image = loaded.profile.images[name]
    if given and image.overlay:
        folder = inside(loaded, image.overlay, ("images", name, "overlay"))
        return spec.ImageSpec(name, build_ref(loaded.profile.name, name, folder, given), "override", str(folder), given)
    if given:
        return spec.ImageSpec(name, given, "override")
    platforms = tuple(image.platforms)
    if image.image and image.overlay:
        folder = inside(loaded, image.overlay, ("images", name, "overlay"))
        ref = build_ref(loaded.profile.name, name, folder, image.image)
        return spec.ImageSpec(name, ref, "image", str(folder), image.image, platforms)
    if image.image:
        return spec.ImageSpec(name, image.image, "image", platforms=platforms)
    folder = inside(loaded, image.build or "", ("images", name, "build"))
    args = scope.mapping(image.args, "args")
    parts = tuple(scope.values["parts"][part] for part in image.parts)
    ref = build_ref(loaded.profile.name, name, folder, args=args, parts=parts)
    return spec.ImageSpec(name, ref, "build", str(folder), args=args, parts=parts)


def _demo_image(profile: schema.Profile, overrides: spec.Overrides) -> str:
    # It is part of images that the profile builds, or builds upon. One that a user brings does not have it as it is.
    bare = [name for name in overrides.image if profile.images[name].build and not profile.images[name].overlay]
    return "" if bare else profile.demo_image or ""


def _endpoint_functions(published: Mapping[str, Sequence[spec.EndpointSpec]]) -> dict[str, Any]:
    """The functions ``endpoint`` and ``endpoints``."""

    def endpoints(name: str) -> list[Endpoint]:
        found = []
        for node, its in published.items():
            for e in its:
                if e.name == name:
                    later = (Deferred(f"endpoint.{name}.{node}.{part}") for part in ("host", "host_port", "url"))
                    found.append(Endpoint(name, node, e.port, *later))
        if not found:
            known = {e.name for its in published.values() for e in its}
            raise FunctionFailed(f"No node has an endpoint {name!r}.", nearest(str(name), known))
        return found

    def endpoint(name: str) -> DeferredGroup:
        endpoints(name)
        parts = ("url", "host", "host_port", "node", "address")
        return DeferredGroup(f"endpoint({name!r})", {part: f"endpoint.{name}.{part}" for part in parts})

    return {"endpoint": endpoint, "endpoints": endpoints}


def _node(
    top: Scope,
    node: Node,
    roles: Mapping[str, Sequence[Node]],
    installed: Sequence[spec.FileSpec],
    endpoints: tuple[spec.EndpointSpec, ...],
    bind_address: str,
) -> spec.NodeSpec:
    role = top.loaded.profile.roles[node.role]
    peers = [n for n in roles[node.role] if n is not node]
    scope = top.inner("roles", node.role, place="role", node=node, peers=peers)
    hooks = scope.inner("hooks", **hook_values(top.loaded.profile))
    reached = bind_address if endpoints else LOCALHOST
    told, local = _registry_files(scope, role)
    own = role.nodes.get(node.index, schema.NodeValues())
    if role.disk and not role.volumes:
        raise UsageError(f"--disk {node.role}: nodes of role {node.role} keep no data", "", "Name another role.")
    return spec.NodeSpec(
        name=node.name,
        role=node.role,
        index=node.index,
        address=node.address,
        image=role.image,
        entrypoint=scope.words(role.entrypoint, "entrypoint"),
        command=scope.words(role.command, "command"),
        env=scope.mapping(role.env, "env") | scope.mapping(own.env, "nodes", str(node.index), "env"),
        volumes=tuple(role.volumes),
        shared=tuple(role.shared) if role.shared_required or not top.values["cluster"]["several_hosts"] else (),
        capabilities=tuple(role.capabilities),
        tmpfs=dict(role.tmpfs),
        disks={role.data or role.volumes[0]: int(role.disk)} if role.disk else {},
        memory=int(role.memory or 0),
        footprint=int(role.footprint),
        nested=role.nested,
        privileged=role.nested and _is_true(scope, role),
        cpus=role.cpus or 0,
        authority=role.authority,
        stop_timeout=role.stop_timeout,
        files=(*_files(scope, role), *told, *installed),
        local_registry=local,
        registry_hook=tuple(role.registries.hook) if role.registries else (),
        certificates=tuple(
            certificate(scope, c, "certificates", i, node=node, bind_address=reached)
            for i, c in enumerate(role.certificates)
        ),
        ready=scope.words(role.ready.exec, "ready", "exec") if role.ready else (),
        depends_on=tuple(role.depends_on),
        endpoints=endpoints,
        join=hooks.hooks(role.hooks.join, "join"),
        leave=hooks.hooks(role.hooks.leave, "leave"),
    )


def _is_true(scope: Scope, role: schema.Role) -> bool:
    value = scope.text(role.privileged, "privileged").lower()  # a template prints True
    if value not in ("true", "false"):
        raise ProfileError(f"{scope.where('privileged')}: {value!r} is neither true nor false")
    return value == "true"


def _files(scope: Scope, role: schema.Role) -> tuple[spec.FileSpec, ...]:
    inner = scope.inner("files", place="file", secret=secret_of(scope.loaded.profile))
    found = []
    for path, file in role.files.items():
        found += _file(inner, path, path, file)
    return tuple(found)


def _file(scope: Scope, key: str, path: str, file: schema.File) -> list[spec.FileSpec]:
    """A file, or none where it is optional and has no text. ``key``: its place in the profile."""
    uid, gid = map(int, file.owner.split(":"))
    content = scope.content(file.source, key, "source")
    if file.optional and not content.strip():
        return []
    return [spec.FileSpec(path, content, int(file.mode, 8), file.bootstrap, uid, gid)]


def _registry_files(scope: Scope, role: schema.Role) -> tuple[tuple[spec.FileSpec, ...], tuple[spec.FileSpec, ...]]:
    """The files that tell a node of the registries that the user named, and of the local one."""
    told: list[spec.FileSpec] = []
    local: list[spec.FileSpec] = []
    if role.registries:
        for one, found in [*((r, told) for r in scope.values["registries"]), (_LOCAL, local)]:
            inner = scope.inner("registries", "files", place="registry", registry=one)
            for key, file in role.registries.files.items():
                found += _file(inner, key, inner.text(key, key), file)
    return tuple(told), tuple(local)


def _scripts(loaded: Loaded, role: str) -> tuple[spec.FileSpec, ...]:
    """What ``bin`` installs: the same in every node of a role."""
    found = []
    for i in range(len(loaded.profile.roles[role].bin)):
        where = loaded.document.where(bin_place(loaded, role, i))
        for path, source in scripts(loaded, role, i).items():
            found.append(spec.FileSpec(path, read(source, source.name, where), 0o755))
    return tuple(found)
