"""The project file with variables, paths and defaults filled in, as ``minicluster config`` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicluster.project.definition import Definition, Project, Registry


def resolved(project: Project) -> dict[str, Any]:
    """The file as plain data, itself a valid project file. Empty keys are left out.

    A text with a variable whose name says that it is a secret, such as API_TOKEN, stays as it is written.
    """
    clusters = {name: _cluster(project, it) for name, it in project.clusters.items()}
    return {"version": 1, "clusters": clusters}


def _cluster(project: Project, it: Definition) -> dict[str, Any]:
    at = ("clusters", it.name)
    data: dict[str, Any] = {
        "profile": it.profile,
        "size": dict(it.size),
        "set": dict(it.set),
        "image": dict(it.image),
        "disk": dict(it.disk),
        "ports": dict(it.ports),
        "bind_address": it.bind_address,
        "mounts": [
            {"role": m.role, "host": m.host, "path": m.path, **({"read_only": True} if m.read_only else {})}
            for m in it.mounts
        ],
        "networks": list(it.networks),
        "registry_mirrors": list(it.registry_mirrors),
        "registries": [_registry(one) for one in it.registries],
        "ca": it.ca,
        "hosts": list(it.hosts),
        "place": {word: hosts.split(",") for word, hosts in it.place.items()},
        "encrypt": it.encrypt or "",
        "restart": "" if it.restart == "no" else it.restart,
        "load": list(it.load),
        "apply": list(it.apply),
        "ttl": it.ttl,
    }
    kept = {key: _shown(value, project, (*at, key)) for key, value in data.items()}
    return {key: value for key, value in kept.items() if value not in ("", {}, [])}


def _registry(it: Registry) -> dict[str, Any]:
    more = {"mirrors": list(it.mirrors), "ca": it.ca, "insecure": it.insecure}
    shown = {key: value for key, value in more.items() if value}
    return {"host": it.host, **shown, **({} if it.credentials else {"credentials": False})}


def _shown(value: Any, project: Project, at: tuple[str | int, ...]) -> Any:
    if at in project.secret:
        return project.secret[at]
    if isinstance(value, dict):
        return {key: _shown(inner, project, (*at, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner, project, (*at, i)) for i, inner in enumerate(value)]
    return value.replace("$", "$$") if isinstance(value, str) else value


def yaml_text(project: Project) -> str:
    """The same as YAML."""
    import yaml

    text: str = yaml.safe_dump(resolved(project), sort_keys=False, allow_unicode=True)
    return text


def json_schema() -> dict[str, Any]:
    """The JSON Schema of minicluster.yaml, as published in docs/project.schema.json."""
    from minicluster.profile.catalog import described
    from minicluster.project.schema import File

    return described(File, "minicluster project file")
