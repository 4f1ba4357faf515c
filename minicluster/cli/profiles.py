"""``profile list|show|validate|new|test|schema``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minicluster.cli import complete
from minicluster.cli.help import Group
from minicluster.cli.options import Output, output_option, profile_argument, timeout_option
from minicluster.cli.output import columns, paint, print_json
from minicluster.errors import MiniclusterError
from minicluster.model.naming import size, value_text

if TYPE_CHECKING:
    from minicluster.profile.loaded import Loaded
    from minicluster.profile.schema import Role


profile = Group("profile", help="List, show, check, create and test profiles.")


@profile.command("list")
@output_option
def list_(output: Output) -> None:
    """List profiles."""
    from minicluster.profile import catalog, folders

    rows = []
    for name in folders.names():
        try:
            summary = catalog.load(name).profile.summary
        except MiniclusterError as error:  # a broken profile must not hide the others
            summary = f"invalid: {error.what}"
        rows.append((name, summary))
    if output is Output.json:
        print_json([{"name": name, "summary": summary} for name, summary in rows])
    else:
        print(columns(rows, ("NAME", "SUMMARY")))


@profile.command()
@profile_argument
@output_option
def show(profile: str, output: Output) -> None:
    """Show the roles, endpoints and settings of a profile."""
    from minicluster.profile import catalog

    loaded = catalog.load(profile)
    if output is Output.json:
        print_json(_profile_data(loaded))
    else:
        print(_profile_text(loaded))


def _profile_data(loaded: Loaded) -> dict[str, Any]:
    profile = loaded.profile
    return {
        "name": profile.name,
        "summary": profile.summary,
        "directory": str(loaded.directory),
        "roles": [
            {
                "name": name,
                "summary": role.summary,
                "count": role.count,
                "min": role.min,
                "max": role.max,
                "allowed": list(role.allowed),
                "image": role.image,
                "memory": int(role.memory) if role.memory is not None else None,
                "footprint": int(role.footprint),
                "endpoints": [{"name": e, "port": endpoint.port} for e, endpoint in role.endpoints.items()],
            }
            for name, role in profile.roles.items()
        ],
        "settings": dict(profile.settings),
        "images": {
            name: {"build": i.build, "image": i.image, "overlay": i.overlay} for name, i in profile.images.items()
        },
        "env": list(profile.env),
        "demo_image": profile.demo_image,
    }


def _profile_text(loaded: Loaded) -> str:
    profile = loaded.profile
    lines = [f"{paint(profile.name, 'bold')}: {profile.summary}", f"folder: {loaded.directory}", ""]
    rows = [
        (
            name,
            str(role.count),
            _counts(role),
            size(int(role.footprint) or None),
            size(int(role.memory) if role.memory is not None else None),
            ", ".join(f"{e}:{endpoint.port}" for e, endpoint in role.endpoints.items()) or "-",
            role.summary,
        )
        for name, role in profile.roles.items()
    ]
    lines += [columns(rows, ("ROLE", "COUNT", "ALLOWED", "USES", "LIMIT", "ENDPOINTS", "SUMMARY"))]
    if profile.settings:
        lines += ["", columns([(k, value_text(v)) for k, v in profile.settings.items()], ("SETTING", "DEFAULT"))]
    if profile.images:
        images = [(k, f"built from {i.build}" if i.build else f"pulled: {i.image}") for k, i in profile.images.items()]
        lines += ["", columns(images, ("IMAGE", "FROM"))]
    return "\n".join(lines)


def _counts(role: Role) -> str:
    return ",".join(map(str, role.allowed)) if role.allowed else f"{role.min}-{role.max}"


@profile.command()
@click.argument("path", metavar="PATH", help="Profile folder, profile.yaml, or profile name")
@output_option
def validate(path: str, output: Output) -> None:
    """Check a profile and all of its templates.

    The exit status is 2 if it is invalid.
    """
    from minicluster.profile import catalog

    loaded = catalog.validate(path)
    if output is Output.json:
        print_json({"valid": True, "name": loaded.profile.name, "directory": str(loaded.directory)})
    else:
        print(f"{loaded.profile.name}: valid")


@profile.command()
@click.argument("name", metavar="NAME", help="Profile name")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where to create the profile's folder (default: the current folder)",
)
def new(name: str, directory: Path) -> None:
    """Create a new profile from a working example."""
    from minicluster.profile import scaffold

    folder = scaffold.create(name, directory)
    shown = f"./{folder}" if folder.parent == Path() else str(folder)
    print(f"Created {shown}: a working Redis profile to adapt.")
    print(f"Next: {paint(f'minicluster profile test {shown}', 'cyan')}")
    print(f"      {paint(f'minicluster up {shown}', 'cyan')}")


@profile.command("test")
@click.argument("path", metavar="PATH", help="Profile folder or profile name", shell_complete=complete.profiles)
@timeout_option()
@output_option
def check(path: str, timeout: float, output: Output) -> None:
    """Test a profile with a temporary cluster.

    The exit status is 1 if a check failed.
    """
    from minicluster.cli.progress import notices
    from minicluster.cli.termination import terminable
    from minicluster.testing.profile_test import CHECKS, Verdict, check_profile

    width = max(map(len, CHECKS))

    def ended(verdict: Verdict) -> None:
        if output is Output.text:
            color = {"ok": "green", "failed": "red"}.get(verdict.verdict, "yellow")
            seconds = "" if verdict.verdict == "skipped" else f"{verdict.seconds:.1f} s"
            head, *more = verdict.reason.splitlines() or [""]
            line = f"{paint(f'{verdict.verdict:7}', color)}  {verdict.check:{width}}  {seconds:>7}  {head}"
            print("\n".join([line.rstrip(), *(f"         {text}" for text in more)]), flush=True)

    with terminable():
        verdicts = check_profile(path, timeout=timeout, listener=notices(), ended=ended)
    if output is Output.json:
        print_json(verdicts)
    if any(verdict.verdict == "failed" for verdict in verdicts):
        raise click.exceptions.Exit(1)


@profile.command()
def schema() -> None:
    """Print the JSON Schema of profile.yaml, for editors."""
    from minicluster.profile import catalog

    print_json(catalog.json_schema())
