"""Shell completion of values. It must never print or fail: without an engine there are no candidates."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

_PATIENCE = 2.0  # seconds that an engine has to answer; a user who pressed TAB waits

_OWN_IMAGES = "minicluster/"  # of nodes and parts
_OF_CLUSTERS = ("logs", "shell", "start", "stop", "top")  # take a cluster's name in place of a node

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _or_nothing(find: Callable[[], Iterable[str | CompletionItem]], incomplete: str) -> list[CompletionItem]:
    """The candidates that begin with what is typed; none after an error, or if they take too long to find."""
    found: list[CompletionItem] = []

    def run() -> None:
        try:
            items = [item if isinstance(item, CompletionItem) else CompletionItem(item) for item in find()]
        except Exception:
            return
        found.extend(item for item in items if item.value.startswith(incomplete))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(_PATIENCE)
    return [*found]


def _of(find: Callable[[click.Context, str], Iterable[str | CompletionItem]]) -> Complete:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _or_nothing(lambda: find(ctx, incomplete), incomplete)

    return complete


def _words(ctx: click.Context, _incomplete: str) -> list[str]:
    at = ctx.find_root()
    for name in ctx.params.get("words") or ():
        command = at.command.get_command(at, name) if isinstance(at.command, click.Group) else None
        if command is None:
            return []
        at = click.Context(command, parent=at, info_name=name)
    return at.command.list_commands(at) if isinstance(at.command, click.Group) else []


def _engine() -> Engine:
    from minicluster.engine.discover import connect

    return connect()


def _profile(ctx: click.Context) -> Mapping[str, Any]:
    """The profile that the words so far name, as it is written: checking it would take a multiple of the time."""
    import yaml

    from minicluster import discovery
    from minicluster.operations.up import DEFAULT_PROFILE
    from minicluster.profile import folders

    # click parses no argument while the value of an option is missing: what it has not parsed is in ``args``.
    word = ctx.params.get("profile") or next(iter(ctx.args), None)
    name = ctx.params.get("name")
    its = discovery.project() if ctx.command.name == "up" else None
    if its and (chosen := word or name or next(iter(its.clusters))) in its.clusters:
        word = its.clusters[chosen].profile
    if word is None and name and name not in folders.names():
        from minicluster.cluster import Cluster

        word = Cluster.open(name).spec.source
    folder, _bundled = folders.locate(word or name or DEFAULT_PROFILE)
    text = (folder / "profile.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return data


def _clusters(_ctx: click.Context, _incomplete: str) -> list[CompletionItem]:
    from minicluster import cluster

    return [CompletionItem(c.cluster, help=f"{c.profile}, {c.phase}") for c in cluster.clusters()]


def _nodes(ctx: click.Context, _incomplete: str) -> list[str]:
    from minicluster.cluster import Cluster
    from minicluster.errors import UsageError

    name, words = ctx.params.get("cluster"), ctx.params.get("nodes") or ()
    try:
        found = Cluster.open(name)
    except UsageError:  # several, and none is named yet
        if name or ctx.command.name not in _OF_CLUSTERS:
            raise
        if not words:
            return [item.value for item in _clusters(ctx, _incomplete)]
        found = Cluster.open(words[0])
    names = found.node_names([])
    return [*names, *dict.fromkeys(name.rpartition("-")[0] for name in names)]


def _profiles(_ctx: click.Context, _incomplete: str) -> list[str]:
    from minicluster.profile import folders

    return folders.names()


def _demos(ctx: click.Context, incomplete: str) -> list[str]:
    from minicluster.demos import catalog

    found = dict.fromkeys(path.stem for path, _of in catalog.files(ctx.params.get("profile")))
    return [*found, *_files(ctx, incomplete)] if incomplete else [*found]


def _clusters_and_profiles(ctx: click.Context, incomplete: str) -> list[str]:
    from minicluster import discovery

    its = discovery.project()
    return list(dict.fromkeys([*(its.clusters if its else ()), *_profiles(ctx, incomplete)]))


def _address_modes(_ctx: click.Context, _incomplete: str) -> Iterable[str]:
    from minicluster.operations.connect import MODES

    return MODES


def _restart_policies(_ctx: click.Context, _incomplete: str) -> Iterable[str]:
    from minicluster.model.spec import RESTART_POLICIES

    return RESTART_POLICIES


def _hosts(_ctx: click.Context, incomplete: str) -> list[str]:
    from minicluster.engine import client_config

    given = incomplete.split(",")[:-1]
    return [",".join([*given, name]) for name in client_config.contexts() if name not in given]


def _networks(_ctx: click.Context, _incomplete: str) -> list[str]:
    own = ("bridge", "host", "none")  # those that every engine has; nodes cannot join them
    return ["none", *(name for name in _engine().network_names() if name not in own)]


def _images(_ctx: click.Context, _incomplete: str) -> list[str]:
    return sorted(tag for image in _engine().images() for tag in image.tags)


def _roles(ctx: click.Context, _incomplete: str) -> list[CompletionItem]:
    roles = _profile(ctx)["roles"].items()
    return [CompletionItem(f"{name}=", help=role.get("summary", "")) for name, role in roles]


def _cluster_roles(ctx: click.Context, _incomplete: str) -> list[str]:
    from minicluster.cluster import Cluster

    return [f"{role}=" for role in Cluster.open(ctx.params.get("cluster")).spec.roles]


def _endpoints(ctx: click.Context, _incomplete: str) -> list[str]:
    roles = _profile(ctx)["roles"]
    names = dict.fromkeys(name for role in roles.values() for name in role.get("endpoints", ()))
    return [*(f"{name}=" for name in names), *_mounts(ctx, "")]


def _mounts(ctx: click.Context, _incomplete: str) -> list[str]:
    return [f"{role}:" for role in _profile(ctx)["roles"]]


def _profile_images(ctx: click.Context, incomplete: str) -> list[str]:
    name, equals, _ = incomplete.partition("=")
    return [f"{name}={ref}" for ref in _images(ctx, "")] if equals else [f"{name}=" for name in _profile(ctx)["images"]]


def _image_names(ctx: click.Context, _incomplete: str) -> list[str]:
    return [name for name, image in _profile(ctx)["images"].items() if "build" in image]


def _settings(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """``NAME=`` of the settings, with their defaults, and of the parts' versions; the values that there are to choose
    from, once there is a name."""
    from minicluster.model.naming import value_text

    profile = _profile(ctx)
    settings: Mapping[str, Any] = profile.get("settings") or {}
    name, equals, _ = incomplete.partition("=")
    if equals:
        return [CompletionItem(f"{name}={value}") for value in _values(profile, name)]
    of_parts = [f"{part}.version" for part in _parts(profile)]
    found = [CompletionItem(f"{key}=", help=f"default: {value_text(value)}") for key, value in settings.items()]
    return found + [CompletionItem(f"{key}=") for key in of_parts]


def _parts(profile: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(part for image in profile["images"].values() for part in image.get("parts", ())))


def _values(profile: Mapping[str, Any], setting: str) -> list[str]:
    import re

    default = (profile.get("settings") or {}).get(setting)
    if isinstance(default, bool):
        return ["true", "false"]
    part = profile.get("main_part") if setting == "version" else setting.removesuffix(".version")
    if part in _parts(profile):
        from minicluster.profile import parts

        return list(parts.load(str(part)).versions)
    pattern = ((profile.get("patterns") or {}).get(setting) or {}).get("pattern", "")
    return pattern.split("|") if re.fullmatch(r"[\w.-]+(\|[\w.-]+)+", pattern) else []


def _files(_ctx: click.Context, incomplete: str) -> list[str]:
    import glob

    return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(incomplete)}*"))]


files = _of(_files)  #: on this machine
words = _of(_words)  #: names of commands, after those of groups
clusters = _of(_clusters)  #: names of clusters
nodes = _of(_nodes)  #: nodes and roles of the cluster at hand
demos = _of(_demos)  #: names of demos, of the profile at hand, and files
profiles = _of(_profiles)  #: names of profiles
clusters_and_profiles = _of(_clusters_and_profiles)  #: clusters of the project file, and names of profiles
address_modes = _of(_address_modes)
restart_policies = _of(_restart_policies)
networks = _of(_networks)  #: the engine's
hosts = _of(_hosts)  #: docker contexts, separated by commas
images = _of(_images)  #: the engine's
roles = _of(_roles)  #: of the profile at hand, each followed by ``=``
cluster_roles = _of(_cluster_roles)  #: of the cluster at hand, each followed by ``=``
endpoints = _of(_endpoints)  #: of the profile at hand, each followed by ``=``, and its roles for other ports
mounts = _of(_mounts)  #: roles of the profile at hand, each followed by ``:``
profile_images = _of(_profile_images)  #: ``NAME=REF``: images of the profile at hand, and the engine's
image_names = _of(_image_names)  #: images that the profile at hand builds
settings = _of(_settings)  #: ``NAME=VALUE``: settings of the profile at hand


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files on this machine, and nodes and roles followed by ``:``."""

    there = [CompletionItem(f"{item.value}:") for item in nodes(ctx, param, incomplete)]
    return there + files(ctx, param, incomplete)


def images_or_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The engine's images, except minicluster's own, and files on this machine."""
    found = [item for item in images(ctx, param, incomplete) if not item.value.startswith(_OWN_IMAGES)]
    return found + files(ctx, param, incomplete)


class Bash(BashComplete):
    """click's completion for bash, which hands over ``NAME=VALUE`` in three words: here it is one again."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The complete words, and the word to be completed."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            joins = len(words) > 1 and not words[-1].startswith("--") and (word == "=" or words[-1].endswith("="))
            if joins:
                words[-1] += word
            else:
                words.append(word)
        self.begun = words[-1].rpartition("=")[0] if words and words[-1] != incomplete else None
        return words[:-1], words[-1] if words else ""

    def format_completion(self, item: CompletionItem) -> str:
        """A line for the script. bash replaces only what follows the last ``=``."""
        value = item.value
        if self.begun is not None:
            value = value.removeprefix(f"{self.begun}=")
        return f"{item.type},{value}"


def prepare() -> None:
    """Before a shell gets candidates: nothing that goes wrong may be written between the words of its user."""
    add_completion_class(Bash)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
