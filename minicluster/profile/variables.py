"""Which names templates see in which place of a profile. docs/profiles.md has this table, made from here."""

from __future__ import annotations

from dataclasses import dataclass

#: The places of a profile that have templates -> what is meant, for people.
PLACES = {
    "image": "`args` of an image",
    "role": "`entrypoint`, `command`, `env`, `ready` and `certificates` of a role",
    "file": "`.j2` files of a role",
    "registry": "`registries.files` of a role: paths, and `.j2` files",
    "url": "`url` of an endpoint",
    "anyone": "`anyone` of an endpoint",
    "init": "`init` hooks",
    "join": "`join` hooks",
    "leave": "`leave` hooks",
    "load": "`load` hooks",
    "held": "`held` hooks",
    "tag": "`tag` hooks",
    "reset": "`reset` hooks",
    "members": "`members`, `services`, `write` and `workload`",
    "apply": "`run` of `apply`",
    "client": "`client.certificate`, and `example`",
    "env": "`env` of the profile, and `client.files`",
    "bench": "`run`, `env`, `writes` and `reads` of `bench`",
}

_CLUSTER = frozenset(PLACES) - {"image"}  #: where the cluster is known; an image is the same for every cluster
_NODE = frozenset({"role", "file", "registry", "url", "anyone", "join", "leave"})


@dataclass(frozen=True)
class Variable:
    """A name that templates see."""

    form: str  #: as it is written
    about: str  #: what it is
    places: frozenset[str]
    deferred: bool = False  #: its value comes later, so it can only be joined into text


VARIABLES = {
    "settings": Variable("settings.NAME", "the profile's settings, after `--set`", frozenset(PLACES)),
    "parts": Variable("parts.NAME.version", "the version of each part of the images", frozenset(PLACES)),
    "cluster": Variable(
        "cluster",
        "`name`, `subnet`, `gateway`, `virtual_range`: addresses in it that no node and no other container gets; "
        "`several_hosts`: true where `--hosts` named its hosts",
        _CLUSTER,
    ),
    "roles": Variable(
        "roles.ROLE",
        "the nodes of each role, as a list; a node has `name`, `role`, `index` (from 1), `address`, `hostname`",
        _CLUSTER,
    ),
    "nodes": Variable("nodes", "all nodes, as a list", _CLUSTER),
    "node": Variable("node", "the node that the text is for, or that joins or leaves", _NODE),
    "peers": Variable("peers", "the other nodes of its role, as a list", _NODE),
    "host": Variable("host", "where the user reaches the port: a name or an address", frozenset({"url"}), True),
    "port": Variable("port", "the port there", frozenset({"url"}), True),
    "initial_member": Variable(
        "initial_member", "`name` and `address` of the member that init hooks run on", frozenset({"init", "join"}), True
    ),
    "joining": Variable(
        "joining",
        "names of the nodes that join; an argument that is only `{{ joining }}` becomes as many arguments",
        frozenset({"init", "join"}),
        True,
    ),
    "kept": Variable(
        "kept",
        "addresses of the other nodes that have their data from before; becomes arguments as `{{ joining }}` does",
        frozenset({"init", "join"}),
        True,
    ),
    "captured": Variable(
        "captured.NAME", "a line that an init hook before this one captured", frozenset({"init", "join"}), True
    ),
    "archive": Variable("archive", "path of the image's tar in the node", frozenset({"load"}), True),
    "image": Variable(
        "image",
        "`source`: an image by a name, or the ID, that it has in the node; `name`: a further name",
        frozenset({"tag"}),
        True,
    ),
    "applied": Variable(
        "applied",
        "the file or folder: its `path`, its `name` without a suffix; `folder` and `folder_name`, where it is; `key`, "
        "its path within the folder that the user applies",
        frozenset({"apply"}),
        True,
    ),
    "endpoint": Variable(
        "endpoint(NAME)",
        "the first published port of that name whose node runs: `url`, `host`, `host_port`, `node`, `address`",
        frozenset({"env"}),
        True,
    ),
    "endpoints": Variable(
        "endpoints(NAME)",
        "all of them, as a list: `name`, `node`, `port` (in the node), and later `url`, `host`, `host_port`",
        frozenset({"env"}),
    ),
    "client": Variable(
        "client",
        "the client's certificate: `directory` on the host; `ca_base64`, `certificate_base64`, `key_base64`",
        frozenset({"env"}),
        True,
    ),
    "registries": Variable(
        "registries",
        "the registries that the user named, as a list: `host`, `mirrors`, `ca`, `insecure`, `credentials`, `server`",
        frozenset({"file", "registry"}),
    ),
    "registry": Variable(
        "registry",
        "one of them; or, if `registry.local`, the engine's, whose `host`, `server`, `address`, `port` and `ca` are "
        "deferred values",
        frozenset({"registry"}),
    ),
    "registry_credentials": Variable(
        "registry_credentials",
        "what docker's configuration has for registries, as a client's `config.json`",
        frozenset({"file"}),
        True,
    ),
    "trusted_ca": Variable("trusted_ca", "the certificates of `--ca`, PEM, or nothing", frozenset({"file"})),
    "secret": Variable(
        "secret(NAME, FORM)",
        "a random text of this cluster's own; FORM is hex, base64, uuid or ec (a private key on P-256, PEM)",
        frozenset({"file", "url", "env", "bench"}),
        True,
    ),
}


def visible(place: str) -> list[str]:
    """The names that templates see in a place."""
    return [name for name, variable in VARIABLES.items() if place in variable.places]


def elsewhere(name: str) -> str:
    """Says where a name can be used; "" if there is no such name."""
    found = VARIABLES.get(name)
    return f"{name} is available only in: {', '.join(p for p in PLACES if p in found.places)}." if found else ""
