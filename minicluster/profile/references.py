"""What a profile's parts say of each other, and of its files: everything that a schema cannot check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model import naming
from minicluster.profile.parts import names as part_names

if TYPE_CHECKING:
    from minicluster.profile.loaded import Loaded
    from minicluster.profile.schema import Apply, Bench, Hook, Image, Program, Role
    from minicluster.profile.yamldoc import Where

#: A path in the folder of another profile; one with _ in front is a folder of files that profiles share.
_REFERENCE = re.compile(r"(?P<profile>_?[a-z][a-z0-9-]*):(?P<path>.+)")

#: Names that no role can have, and why: a node's volumes are CLUSTER-ROLE-N-PATH.
_RESERVED = {
    "node": "In hooks, that is the node itself.",
    "shared": "Names of volumes that nodes share begin with it.",
    "spec": "Names of the volumes with a cluster's spec begin with it.",
    "lease": "Names of the volumes with a cluster's lease begin with it.",
}

_TWICE = "Both folders, or bin and files, have it."
_PATH = "Check the path: it is relative to the profile's folder."

#: Files of minicluster's own in a client's folder; see operations/client_folder.py and operations/hand_out.py.
CLIENT_FILES = ("authority", "ca.pem", "cert.pem", "engine", "env.sh", "key.pem")

_NESTED_IN_MEMORY = ("/run", "/tmp")  # of nested nodes; see engine/privileges.py

BIN = "/usr/local/bin"  #: where scripts of ``bin`` are installed


def check_references(loaded: Loaded) -> None:
    """Refuses a profile that cannot work. Raises ``ProfileError`` with the position of the first thing wrong."""
    profile = loaded.profile
    for name, image in profile.images.items():
        _check_image(loaded, name, image)
    _check_parts(loaded)
    _check_settings(loaded)
    _check_authority(loaded)
    for name, role in profile.roles.items():
        _check_role(loaded, name, role)
        _check_mounts(loaded, name, role)
        _check_files(loaded, name, role)
        _check_hidden(loaded, name, role)
    for file_name, source in (profile.client.files if profile.client else {}).items():
        if file_name in CLIENT_FILES:
            what, why = f"a file cannot be named {file_name!r}", "Minicluster itself has a file of that name there."
            raise _error(loaded, ("client", "files", file_name), what, why, "Choose another name for it.", key=True)
        if not inside(loaded, source, ("client", "files", file_name)).is_file():
            raise _error(loaded, ("client", "files", file_name), f"no such file: {source}", fix=_PATH)
    for at, hook in _hooks(loaded):
        if hook.on != "node" and hook.on not in profile.roles:
            raise _error(
                loaded, (*at, "on"), f"no role named {hook.on!r}", fix=nearest(hook.on, [*profile.roles, "node"])
            )
    for name, program in profile.programs.items():
        _check_program(loaded, name, program)
    for i, apply in enumerate(profile.apply):
        _check_apply(loaded, ("apply", i), apply)
    for kind, bench in profile.bench.items():
        _check_bench(loaded, ("bench", kind), bench)
    _check_hooks(loaded)


def _check_bench(loaded: Loaded, at: Where, bench: Bench) -> None:
    if (bench.image is None) == (bench.part is None):
        raise _error(loaded, at, "a load generator needs either image or part", fix="Say which image has the program.")
    roles, images = loaded.profile.roles, {role.image for role in loaded.profile.roles.values()}
    if bench.role not in roles:
        raise _error(loaded, (*at, "role"), f"no role named {bench.role!r}", fix=nearest(bench.role, roles))
    if bench.image is not None and bench.image not in images:
        what = f"no role has an image {bench.image!r}"
        raise _error(loaded, (*at, "image"), what, fix=nearest(bench.image, images))
    if bench.part is not None and bench.part not in (known := part_names()):
        raise _error(loaded, (*at, "part"), f"no part named {bench.part!r}", fix=nearest(bench.part, known))


def _check_program(loaded: Loaded, name: str, program: Program) -> None:
    profile, used = loaded.profile, {part for image in loaded.profile.images.values() for part in image.parts}
    named: list[tuple[str, str | None, Iterable[str]]] = [
        ("image", program.image, profile.images),
        ("on", program.on, profile.roles),
        ("part", program.part, used),
    ]
    for key, value, known in named:
        if value is not None and value not in known:
            what = {"image": "image", "on": "role", "part": "part"}[key]
            raise _error(loaded, ("programs", name, key), f"no {what} named {value!r}", fix=nearest(value, known))


def _check_apply(loaded: Loaded, at: Where, apply: Apply) -> None:
    programs = loaded.profile.programs
    if apply.program not in programs:
        fix = nearest(apply.program, programs)
        raise _error(loaded, (*at, "program"), f"no program named {apply.program!r}", fix=fix)
    if programs[apply.program].on:
        for key in ("whole", "stdin"):
            if getattr(apply, key):
                what = f"{key} is for a program that runs on the user's machine"
                why = f"{apply.program} runs in a node, where it gets the path of one file."
                raise _error(loaded, (*at, key), what, why, f"Remove {key}.")


def _error(loaded: Loaded, at: Where, what: str, why: str = "", fix: str = "", *, key: bool = False) -> ProfileError:
    return ProfileError(f"{loaded.document.where(at, key=key)}: {what}", why, fix)


def _check_image(loaded: Loaded, name: str, image: Image) -> None:
    at: Where = ("images", name)
    if (image.build is None) == (image.image is None):
        fix = "Give it `build`, a folder with a Dockerfile, or `image`, a reference."
        raise _error(loaded, at, f"image {name!r} needs either build or image", fix=fix)
    if image.platforms and image.image is None:
        why = "An image that is built is built for the engine's platform."
        raise _error(loaded, (*at, "platforms"), "platforms are for an image that is pulled", why, "Remove platforms.")
    if image.args and image.build is None:
        raise _error(loaded, (*at, "args"), "args are for an image that is built", fix="Remove args.")
    for i, part in enumerate(image.parts):
        if part not in (known := part_names()):
            raise _error(loaded, (*at, "parts", i), f"no part named {part!r}", fix=nearest(part, known))
    if image.parts and image.build is None:
        raise _error(loaded, (*at, "parts"), "parts are for an image that is built", fix="Remove parts.")
    for key in ("build", "overlay"):
        folder = getattr(image, key)
        if folder is not None and not (inside(loaded, folder, (*at, key)) / "Dockerfile").is_file():
            raise _error(loaded, (*at, key), f"no Dockerfile in {folder!r}", fix=_PATH)


def _check_parts(loaded: Loaded) -> None:
    """Refuses versions of parts that no image has."""
    profile = loaded.profile
    used = {part for image in profile.images.values() for part in image.parts}
    named: list[tuple[Where, str]] = [(("parts", name), name) for name in profile.parts]
    named += [(("main_part",), profile.main_part)] if profile.main_part else []
    for at, name in named:
        if name not in used:
            raise _error(loaded, at, f"no image has a part {name!r}", fix=nearest(name, used))
    if profile.main_part and "version" not in profile.settings:
        fix = 'Add `version: ""` to settings.'
        raise _error(loaded, ("main_part",), "main_part needs a setting named version", fix=fix)


def _check_settings(loaded: Loaded) -> None:
    profile = loaded.profile
    named: list[tuple[Where, str]] = [(("immutable", i), name) for i, name in enumerate(profile.immutable)]
    named += [(("patterns", name), name) for name in profile.patterns]
    named += [(("subnets", i), name) for i, name in enumerate(profile.subnets)]
    for at, name in named:
        if name not in profile.settings:
            raise _error(loaded, at, f"no setting named {name!r}", fix=nearest(name, profile.settings), key=True)
    for name, wanted in profile.patterns.items():
        try:
            value = profile.settings[name]
            values = [*value] if isinstance(value, (list, dict)) else [value]
            matches = all(re.fullmatch(wanted.pattern, str(one)) for one in values)
        except re.error as error:
            raise _error(
                loaded, ("patterns", name, "pattern"), f"not a regular expression: {error}", fix="Correct it."
            ) from None
        if not matches:
            default = loaded.document.defaults.get(name, "")
            raise _error(
                loaded,
                ("settings", name),
                f"{name} {wanted.message}",
                "",
                f"The default is {naming.value_text(default)}." if default != "" else "Correct the value.",
            )


def _check_authority(loaded: Loaded) -> None:
    profile = loaded.profile
    if any(role.authority for role in profile.roles.values()):
        return
    # Certificates of an authority that no node keeps could not be renewed, nor issued to a node that comes later.
    needy: list[Where] = [("roles", name, "certificates") for name, role in profile.roles.items() if role.certificates]
    needy += [("client",)] if profile.client else []
    if needy:
        fix = "Give a role `authority: true`."
        raise _error(loaded, needy[0], "certificates need a role with `authority: true`", fix=fix)


def _check_role(loaded: Loaded, name: str, role: Role) -> None:
    profile, at = loaded.profile, ("roles", name)
    if name in _RESERVED:
        raise _error(
            loaded, at, f"a role cannot be named {name!r}", _RESERVED[name], "Choose another name for it.", key=True
        )
    if role.image not in profile.images:
        fix = nearest(role.image, profile.images)
        raise _error(loaded, (*at, "image"), f"no image named {role.image!r}", fix=fix)
    if role.min > role.max:
        raise _error(loaded, (*at, "min"), f"min is {role.min} and max is {role.max}", fix="Make min the smaller one.")
    check_count(loaded, name, role.count, loaded.document.where((*at, "count")))
    most = max(role.allowed, default=role.max)
    for number in role.nodes:
        if number > most:
            what = f"there is no {name}-{number}: role {name} has at most {naming.count(most, 'node')}"
            raise _error(loaded, (*at, "nodes", str(number)), what, fix="Correct the number.", key=True)
    above = list(profile.roles)[: list(profile.roles).index(name)]
    for i, other in enumerate(role.depends_on):
        if other not in above:
            what = f"no role named {other!r} above {name!r}"
            raise _error(loaded, (*at, "depends_on", i), what, fix=nearest(other, above))
    for other in role.requires:
        if other not in profile.roles:
            fix = nearest(other, profile.roles)
            raise _error(loaded, (*at, "requires", other), f"no role named {other!r}", fix=fix)
    ports: dict[int, str] = {}
    for endpoint, about in role.endpoints.items():
        if about.port in ports:
            what = f"port {about.port} is already endpoint {ports[about.port]}"
            raise _error(loaded, (*at, "endpoints", endpoint, "port"), what, fix="Give it another port.")
        ports[about.port] = endpoint
    for i, certificate in enumerate(role.certificates):
        if certificate.directory is None:
            what, fix = "a node's certificate needs a directory", "Add `directory`, a folder in the node."
            raise _error(loaded, (*at, "certificates", i), what, fix=fix)


def _check_mounts(loaded: Loaded, name: str, role: Role) -> None:
    mounted: set[str] = set()
    for key in ("volumes", "shared", "tmpfs"):
        for i, path in enumerate(getattr(role, key)):
            if path in mounted:
                place = path if key == "tmpfs" else i
                at, what = ("roles", name, key, place), f"{path} is mounted twice"
                raise _error(loaded, at, what, fix="Remove one of the two.", key=key == "tmpfs")
            mounted.add(path)
    if role.data and role.data not in role.volumes:
        raise _error(
            loaded, ("roles", name, "data"), f"{role.data} is not a volume", fix=nearest(role.data, role.volumes)
        )


def _check_hidden(loaded: Loaded, name: str, role: Role) -> None:
    """Refuses files that a node would not see: they are written before it starts and has its folders in memory.

    A file in a volume is written into the volume.
    """
    in_memory = {*role.tmpfs, *(_NESTED_IN_MEMORY if role.nested else ())}
    mounted = {*role.volumes, *role.shared, *in_memory}
    written: list[tuple[Where, str]] = [(("files", path), path) for path in role.files]
    written += [(("registries", "files", path), path) for path in (role.registries.files if role.registries else ())]
    written += [(("certificates", i), f"{c.directory}/ca.pem") for i, c in enumerate(role.certificates)]
    written += [(("bin",), path) for i in range(len(role.bin)) for path in scripts(loaded, name, i)]
    for at, path in written:
        below = sorted(mount for mount in mounted if PurePosixPath(mount).is_relative_to(path))
        around = [mount for mount in mounted if PurePosixPath(path).is_relative_to(mount)]
        if below:
            what, fix = f"{path} is a file, and {below[0]} is mounted there", "Move one of the two."
            raise _error(loaded, ("roles", name, *at), what, fix=fix, key=True)
        if around and (inmost := max(around, key=len)) in in_memory:
            what, why = f"the node does not see {path}", f"{inmost} is in memory, and empty when the node starts."
            raise _error(loaded, ("roles", name, *at), what, why, "Write it to another path.", key=True)


def _check_files(loaded: Loaded, name: str, role: Role) -> None:
    at = ("roles", name)
    for path, file in role.files.items():
        if not inside(loaded, file.source, (*at, "files", path, "source")).is_file():
            raise _error(loaded, (*at, "files", path, "source"), f"no such file: {file.source}", fix=_PATH)
    for path, file in (role.registries.files if role.registries else {}).items():
        place = (*at, "registries", "files", path)
        if not inside(loaded, file.source, (*place, "source")).is_file():
            raise _error(loaded, (*place, "source"), f"no such file: {file.source}", fix=_PATH)
        if file.bootstrap:
            raise _error(loaded, (*place, "bootstrap"), "every node is told of registries", fix="Remove bootstrap.")
    installed: dict[str, Path] = {}
    for i in range(len(role.bin)):
        for path, source in scripts(loaded, name, i).items():
            if path in role.files or path in installed:
                what = f"{path} is installed twice"
                raise _error(loaded, bin_place(loaded, name, i), what, _TWICE, "Remove one of the two.")
            installed[path] = source


def scripts(loaded: Loaded, role: str, i: int) -> dict[str, Path]:
    """The scripts of one of a role's ``bin`` folders: path in the node -> file.

    Raises:
        ProfileError: there is no such folder, or it holds what is not a file.
    """
    reference, at = loaded.profile.roles[role].bin[i], bin_place(loaded, role, i)
    folder = inside(loaded, reference, at)
    if not folder.is_dir():
        raise _error(loaded, at, f"no such folder: {reference}", fix=_PATH)
    found = sorted(folder.iterdir())
    for path in found:
        if not path.is_file() or path.suffix == ".j2":
            what = "a template" if path.is_file() else "a folder"
            raise _error(
                loaded, at, f"{reference}/{path.name} is {what}", "Scripts are installed as they are.", "Move it."
            )
    if not found:
        raise _error(loaded, at, f"no scripts in {reference}", fix=_PATH)
    return {f"{BIN}/{path.name}": path for path in found}


def bin_place(loaded: Loaded, role: str, i: int) -> Where:
    """The place of one of a role's ``bin`` folders, of which a single one need not be a list."""
    at: Where = ("roles", role, "bin")
    return (*at, i) if (*at, i) in loaded.document.values else at


def _hooks(loaded: Loaded) -> Iterator[tuple[Where, Hook]]:
    """Every hook and its place."""
    profile = loaded.profile
    for event in ("init", "load", "held", "tag", "reset"):
        for i, hook in enumerate(getattr(profile.hooks, event)):
            yield ("hooks", event, i), hook
    for event in ("members", "services", "write", "workload"):
        if hook := getattr(profile, event):
            yield (event,), hook
    for name, role in profile.roles.items():
        for event in ("join", "leave"):
            for i, hook in enumerate(getattr(role.hooks, event)):
                yield ("roles", name, "hooks", event, i), hook


def _check_hooks(loaded: Loaded) -> None:
    """Refuses hooks that would never run, or run on another node than they say."""
    profile = loaded.profile
    roles = ", ".join(profile.roles)
    for i, hook in enumerate(profile.hooks.init):
        first = profile.hooks.init[0].on
        if hook.on == "node":
            why = "It bootstraps the cluster on its initial member, which is a node of that role."
            raise _error(
                loaded, ("hooks", "init", i, "on"), "an init hook runs on a role", why, f"Name a role: {roles}."
            )
        if hook.on != first:
            what = "init hooks run on one node, the initial member"
            raise _error(loaded, ("hooks", "init", i, "on"), what, f"The first one is on {first}.", f"Write {first}.")
    if profile.members:
        on, wanted = profile.members.on, profile.hooks.init[0].on if profile.hooks.init else ""
        if on == "node":
            raise _error(loaded, ("members", "on"), "members runs on a role", "", f"Name a role: {roles}.")
        if wanted and on != wanted:
            why = f"It asks the initial member, on which the init hook runs: a node of role {wanted}."
            raise _error(loaded, ("members", "on"), "members runs on the role of init hooks", why, f"Write {wanted}.")
    for event in ("services", "write", "workload"):
        if (asked := getattr(profile, event)) and asked.on == "node":
            raise _error(loaded, (event, "on"), f"{event} runs on a role", "", f"Name a role: {roles}.")
    for name, role in profile.roles.items():
        if role.hooks.join and not profile.hooks.init and not profile.members:
            why = "Without init hooks and members there is no member that nodes could join."
            fix = "Add hooks.init or members."
            raise _error(loaded, ("roles", name, "hooks", "join"), "join hooks never run", why, fix)
    for at, hook in _hooks(loaded):
        if hook.capture and at[:2] != ("hooks", "init"):
            why = "No later hook can use them."
            raise _error(loaded, (*at, "capture"), "only init hooks can capture", why, "Remove capture.")


def inside(loaded: Loaded, reference: str, at: Sequence[str | int]) -> Path:
    """A path in the profile's folder, or PROFILE:PATH for one in another's. Raises if it leads out of that folder."""
    folder, relative = loaded.directory, reference
    shared = _REFERENCE.fullmatch(reference)
    if shared:
        from minicluster.profile import folders

        try:
            folder = folders.named(shared["profile"], bundled=loaded.bundled)
        except UsageError as error:
            raise ProfileError(f"{loaded.document.where(at)}: {error.what}", error.why, error.fix) from None
        relative = shared["path"]
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        owner = f"profile {shared['profile']}'s" if shared else "the profile's"
        what = f"{loaded.document.where(at)}: {reference!r} is outside of {owner} folder"
        raise ProfileError(what, "", "Use a path in that folder, or PROFILE:PATH for one in another profile's.")
    return path


def check_count(loaded: Loaded, name: str, count: int, where: str) -> None:
    """Raises ``ProfileError`` if a role cannot have so many nodes."""
    role = loaded.profile.roles[name]
    if role.allowed and count not in role.allowed:
        *others, last = map(str, role.allowed)
        counts = f"{', '.join(others)} or {last}" if others else last
        even = count > 0 and count % 2 == 0 and all(allowed % 2 for allowed in role.allowed)
        why = "An even number of voters survives no more failures than one less." if even else ""
    elif not role.min <= count <= role.max:
        counts, why = (f"{role.min} to {role.max}" if role.min < role.max else str(role.max)), ""
    else:
        return
    what = f"{where}: role {name} takes {naming.count(counts, 'node')}"
    raise ProfileError(what, why, "Choose one of these numbers.")
