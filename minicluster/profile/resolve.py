"""From a profile and overrides to a spec: counts, addresses, ports, images and every template filled in. Pure.

Templates see the whole topology:

``cluster``     its name, subnet and gateway
``settings``    the profile's settings, after ``--set``
``roles``       role name -> list of its nodes (name, role, index, address, hostname)
``nodes``       all nodes
``node``        the node that the text is for, where there is one; ``peers`` are the others of its role
``endpoint``    in ``env``, function: url, host, host_port, node, address of the first port so named whose node runs
``endpoints``   in ``env``, function: all published ports of that name (url, host, host_port, port, node)
``captured``    in hooks: lines that a ``init`` hook captured
``joining``     in ``init`` hooks: names of the nodes that are about to join
``initial_member``  in ``init`` and ``join`` hooks: name and address of the member that ``init`` runs on
``archive``     in ``load`` hooks: path of the image's tar in the node
``client``      in ``env``: ``directory`` is the folder of the client's certificate; ``ca_base64``,
                ``certificate_base64`` and ``key_base64`` are what is in it
``secret``      in ``files`` and ``env``, function: a random text of this cluster's own, by a name
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model import spec
from minicluster.model.deferred import CLIENT_PARTS, SECRET
from minicluster.model.spec import LOCALHOST
from minicluster.profile import addressing, schema
from minicluster.profile.build import build_ref
from minicluster.profile.load import Loaded, check_count, inside
from minicluster.profile.template import render


@dataclass(frozen=True)
class _Node:
    """What templates see of a node."""

    name: str
    role: str
    index: int
    address: str
    hostname: str


@dataclass(frozen=True)
class _Endpoint:
    """What templates see of a published port. Where it is reached depends on who asks, so that comes late."""

    name: str
    node: str
    port: int
    host: str
    host_port: str
    url: str


@dataclass
class _Scope:
    """Renders the templates of one place of the profile."""

    loaded: Loaded
    context: Mapping[str, Any]
    at: tuple[str | int, ...] = ()

    def inner(self, *at: str | int, **names: Any) -> _Scope:
        return _Scope(self.loaded, {**self.context, **names}, (*self.at, *at))

    def text(self, text: str, *at: str | int) -> str:
        return render(text, self.context, self.loaded.document.where((*self.at, *at)))

    def words(self, words: Iterable[str], *at: str | int) -> tuple[str, ...]:
        return tuple(self.text(word, *at, i) for i, word in enumerate(words))

    def mapping(self, items: Mapping[str, str], *at: str | int) -> dict[str, str]:
        return {name: self.text(value, *at, name) for name, value in items.items()}

    def hooks(self, hooks: Sequence[schema.Hook], *at: str | int) -> tuple[spec.HookSpec, ...]:
        return tuple(
            spec.HookSpec(hook.on, self.words(hook.run, *at, i, "run"), tuple(hook.capture))
            for i, hook in enumerate(hooks)
        )


@dataclass(frozen=True)
class _Deferred:
    """Stands in templates for a value that exists only later; ``@{…}`` in the spec."""

    names: Mapping[str, str] = field(default_factory=dict)

    def __dir__(self) -> Iterable[str]:
        return self.names

    def __getattr__(self, name: str) -> str:
        try:
            return self.names[name]
        except KeyError:
            raise AttributeError(f"has no attribute {name!r}") from None


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
        port_is_free: tells whether a host port can be had.
        bind_address: the address of the engine's machine that endpoints are published on, beside 127.0.0.1.
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
            raise UsageError(
                f"--image {name}={ref}: {ref!r} is no image", "", "Write its reference, as `docker pull` takes it."
            )
    ports = {name for role in profile.roles.values() for name in role.endpoints}
    _check_names(overrides.port, "--port", ports, "endpoint")

    before = {node.name: node for node in previous.nodes} if previous else {}
    roles = _topology(counts, subnet, before)
    nodes = [node for group in roles.values() for node in group]
    captured = [name for hook in profile.hooks.init for name in hook.capture]
    hook_names = {
        "captured": _Deferred({name: f"@{{captured.{name}}}" for name in captured}),
        "joining": "@{joining}",
        "initial_member": _Deferred({"name": "@{initial_member.name}", "address": "@{initial_member.address}"}),
    }
    top = _Scope(
        loaded,
        {
            "cluster": {"name": cluster, "subnet": subnet, "gateway": addressing.gateway(subnet)},
            "settings": profile.settings,
            "roles": roles,
            "nodes": nodes,
        },
    )
    plain = _Scope(loaded, {"settings": profile.settings})  # an image is the same whatever cluster it is for
    kept: dict[str, spec.ImageSpec] = {}
    if previous and (previous.overrides.set, previous.overrides.image) == (overrides.set, overrides.image):
        # What is built with a file of the user's stays as it is until something else is asked for: it may be gone.
        kept = {name: image for name, image in previous.images.items() if image.additional_contexts}
    images = {name: kept.get(name) or _image(plain, name, overrides.image.get(name)) for name in profile.images}
    published = _publish(top, cluster, roles, overrides, before, port_is_free)

    def the_endpoint(name: str) -> _Deferred:
        the_endpoints(name)
        found = ("url", "host", "host_port", "node", "address")
        return _Deferred({part: f"@{{endpoint.{name}.{part}}}" for part in found})

    parts = ("host", "host_port", "url")

    def the_endpoints(name: str) -> list[_Endpoint]:
        found = [
            _Endpoint(e.name, node, e.port, *(f"@{{endpoint.{name}.{node}.{part}}}" for part in parts))
            for node, es in published.items()
            for e in es
            if e.name == name
        ]
        if not found:
            raise ValueError(f"no endpoint is called {name!r}. {nearest(name, ports)}")
        return found

    env_scope = top.inner(
        endpoint=the_endpoint,
        endpoints=the_endpoints,
        client=_Deferred({part: f"@{{client.{part}}}" for part in ("directory", *CLIENT_PARTS)}),
        secret=_secret_of(profile),
    )
    used_images = {profile.roles[role].image for role, group in roles.items() if group}
    return spec.Spec(
        cluster=cluster,
        profile=profile.name,
        summary=profile.summary,
        source=source,
        subnet=subnet,
        gateway=addressing.gateway(subnet),
        images={name: image for name, image in images.items() if name in used_images},
        nodes=tuple(_node(top, node, roles, hook_names, published[node.name], bind_address) for node in nodes),
        init=top.inner("hooks", **hook_names).hooks(profile.hooks.init, "init"),
        load=top.inner("hooks", archive="@{archive}").hooks(profile.hooks.load, "load"),
        reset=top.inner("hooks").hooks(profile.hooks.reset, "reset"),
        members=top.hooks([profile.members], "members")[0] if profile.members else None,
        env=env_scope.mapping(profile.env, "env"),
        client=_certificate(top.inner("client"), profile.client.certificate, "certificate") if profile.client else None,
        client_files=_client_files(env_scope, profile),
        kernel=dict(profile.kernel),
        example=profile.example,
        demo_image=_demo_image(profile, overrides),
        overrides=overrides,
        bind_address=bind_address,
    )


def _check_names(given: Mapping[str, Any], option: str, known: Iterable[str], kind: str) -> None:
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{option} {name}={value}: no {kind} is called {name!r}", "", nearest(name, known))


def node_counts(loaded: Loaded, overrides: spec.Overrides) -> dict[str, int]:
    """How many nodes each role has.

    Raises:
        UsageError, ProfileError: roles that are not there, or cannot have so many, were asked for.
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


def _topology(counts: Mapping[str, int], subnet: str, before: Mapping[str, spec.NodeSpec]) -> dict[str, list[_Node]]:
    wanted = [(role, index, f"{role}-{index}") for role, count in counts.items() for index in range(1, count + 1)]
    kept = {name: before[name].address for _role, _index, name in wanted if name in before}
    # Those of nodes that leave as well: they still run while their successors start.
    free = addressing.free_addresses(subnet, [node.address for node in before.values()])
    roles: dict[str, list[_Node]] = {role: [] for role in counts}
    for role, index, name in wanted:
        roles[role].append(_Node(name, role, index, kept.get(name) or next(free), name))
    return roles


def _client_files(scope: _Scope, profile: schema.Profile) -> tuple[spec.FileSpec, ...]:
    sources = profile.client.files if profile.client else {}
    inner = scope.inner("client", "files")
    return tuple(spec.FileSpec(name, _content(inner, source, name), 0o600) for name, source in sources.items())


def built_images(loaded: Loaded) -> dict[str, spec.ImageSpec]:
    """The images that the profile's recipes make, by their names in it. Raises as :func:`resolve` does."""
    scope = _Scope(loaded, {"settings": loaded.profile.settings})
    made = [name for name, image in loaded.profile.images.items() if image.build is not None]
    return {name: _image(scope, name, None) for name in made}


def _image(top: _Scope, name: str, given: str | None) -> spec.ImageSpec:
    loaded, scope = top.loaded, top.inner("images", name)
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
    paths = {
        file: path for file, path in scope.mapping(image.additional_contexts, "additional_contexts").items() if path
    }
    paths = {file: str(Path(path).expanduser().resolve()) for file, path in paths.items()}
    for path in paths.values():
        if not Path(path).is_file():
            raise UsageError(f"there is no file {path}", f"Image {name} is to be built with it.", "Check the path.")
    ref = build_ref(loaded.profile.name, name, folder, args=args, contexts=paths)
    return spec.ImageSpec(name, ref, "build", str(folder), args=args, additional_contexts=paths)


def _publish(
    top: _Scope,
    cluster: str,
    roles: Mapping[str, Sequence[_Node]],
    overrides: spec.Overrides,
    before: Mapping[str, spec.NodeSpec],
    is_free: Callable[[int], bool],
) -> dict[str, tuple[spec.EndpointSpec, ...]]:
    """Gives every endpoint of every node its host port: the one asked for, the one it has, or a free one."""
    loaded = top.loaded
    used = {e.host_port for node in before.values() for e in node.endpoints}
    fixed: dict[int, str] = {}  # port that is asked for -> whose it is
    for role, nodes in roles.items():
        for node in nodes:
            for name in loaded.profile.roles[role].endpoints:
                if (first := overrides.port.get(name)) is not None:
                    port = first + node.index - 1
                    if port in fixed:
                        raise UsageError(
                            f"--port {name}={first}: {node.name} and {fixed[port]} cannot both have {port}",
                            "An endpoint's port counts up from the first node of each role that has it.",
                            "Leave the choice to minicluster.",
                        )
                    fixed[port] = node.name
    used |= set(fixed)
    result: dict[str, tuple[spec.EndpointSpec, ...]] = {}
    for role, nodes in roles.items():
        for node in nodes:
            endpoints = []
            for name, endpoint in loaded.profile.roles[role].endpoints.items():
                asked = overrides.port.get(name)
                had = (
                    next((e.host_port for e in before[node.name].endpoints if e.name == name), None)
                    if node.name in before
                    else None
                )
                if asked is not None:
                    port = asked + node.index - 1
                    if not 1 <= port <= 65535:
                        raise UsageError(
                            f"--port {name}={asked}: {port} is no port", "Ports are 1 to 65535.", "Ask for another."
                        )
                elif had is not None and had not in fixed:
                    port = had
                else:
                    port = addressing.choose_port(
                        f"{cluster}/{node.name}/{name}", lambda p: p not in used and is_free(p)
                    )
                used.add(port)
                at = ("roles", role, "endpoints", name, "url")
                url = _url(top.text(endpoint.url, *at), loaded.document.where(at))
                endpoints.append(spec.EndpointSpec(name, endpoint.port, port, url))
            result[node.name] = tuple(endpoints)
    return result


def _url(pattern: str, where: str) -> str:
    try:
        return pattern.format(host="@{host}", port="@{port}")
    except (KeyError, IndexError, ValueError) as error:
        raise ProfileError(f"{where}: the URL names {error}", "It may name {host} and {port}.", "Correct it.") from None


def _demo_image(profile: schema.Profile, overrides: spec.Overrides) -> str:
    # The demo image is baked into the images that the recipes make; one that the user brings does not have it.
    return "" if overrides.image else profile.demo_image or ""


def _secret_of(profile: schema.Profile) -> Callable[..., str]:
    def secret(name: str, form: str = "hex") -> str:
        late = f"@{{secret.{name}.{form}}}"
        if not SECRET.fullmatch(late):
            raise ValueError(f"secret({name!r}, {form!r}): a name is a-z, 0-9 and _, a form is hex, base64, uuid or ec")
        if not any(role.authority for role in profile.roles.values()):
            raise ValueError("a secret comes from the authority, which no role keeps: give one `authority: true`")
        return late

    return secret


def _certificate(
    scope: _Scope, certificate: schema.Certificate, *at: str | int, node: _Node | None = None, bind_address: str = ""
) -> spec.CertificateSpec:
    """One for a node is valid for every address at which the node is handed out."""
    inner = scope.inner(*at)
    names = inner.words(certificate.names, "names")
    addresses = (
        *((node.address, LOCALHOST, bind_address) if node else ()),
        *inner.words(certificate.addresses, "addresses"),
    )
    return spec.CertificateSpec(
        directory=certificate.directory or "",
        common_name=inner.text(certificate.common_name, "common_name"),
        organization=inner.text(certificate.organization, "organization"),
        names=(*((node.name, "localhost") if node else ()), *names),
        addresses=tuple(dict.fromkeys(addresses)),
        issuer=certificate.issuer,
    )


def _node(
    top: _Scope,
    node: _Node,
    roles: Mapping[str, Sequence[_Node]],
    hook_names: Mapping[str, Any],
    endpoints: tuple[spec.EndpointSpec, ...],
    bind_address: str,
) -> spec.NodeSpec:
    role = top.loaded.profile.roles[node.role]
    scope = top.inner("roles", node.role, node=node, peers=[n for n in roles[node.role] if n is not node])
    hooks = scope.inner("hooks", **hook_names)
    reached = bind_address if endpoints else LOCALHOST
    return spec.NodeSpec(
        name=node.name,
        role=node.role,
        index=node.index,
        address=node.address,
        image=role.image,
        entrypoint=scope.words(role.entrypoint, "entrypoint"),
        command=scope.words(role.command, "command"),
        env=scope.mapping(role.env, "env"),
        volumes=tuple(role.volumes),
        shared=tuple(role.shared),
        capabilities=tuple(role.capabilities),
        tmpfs=dict(role.tmpfs),
        memory=int(role.memory or 0),
        footprint=int(role.footprint),
        nested=role.nested,
        authority=role.authority,
        stop_timeout=role.stop_timeout,
        files=tuple(_file(scope, path, file) for path, file in role.files.items()),
        certificates=tuple(
            _certificate(scope, c, "certificates", i, node=node, bind_address=reached)
            for i, c in enumerate(role.certificates)
        ),
        ready=scope.words(role.ready.exec, "ready", "exec") if role.ready else (),
        depends_on=tuple(role.depends_on),
        endpoints=endpoints,
        join=hooks.hooks(role.hooks.join, "join"),
        leave=hooks.hooks(role.hooks.leave, "leave"),
    )


def _file(scope: _Scope, path: str, file: schema.File) -> spec.FileSpec:
    return spec.FileSpec(path, _content(scope, file.source, "files", path, "source"), int(file.mode, 8), file.bootstrap)


def _content(scope: _Scope, name: str, *at: str | int) -> str:
    """What a file of the profile comes to."""
    source = inside(scope.loaded, name, (*scope.at, *at))
    where = scope.loaded.document.where((*scope.at, *at))
    try:
        content = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{where}: {name!r} cannot be read as text", str(error)) from None
    if source.suffix == ".j2":
        context = {**scope.context, "secret": _secret_of(scope.loaded.profile)}
        content = render(content, context, where, file=str(source))
    return content
