"""The façade: everything that minicluster does, for the command line, the tests and every later front end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster.events import Listener, ignore
from minicluster.report import Change, ClusterInfo, ClusterStatus, ClusterSummary

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, ExecResult
    from minicluster.plan.model import Plan
    from minicluster.profile.spec import Spec


class Cluster:
    """One running cluster. Get one by :meth:`up` or :meth:`open`."""

    def __init__(self, engine: Engine, spec: Spec) -> None: ...

    @classmethod
    def up(
        cls,
        profile: str | None = None,
        *,
        name: str | None = None,
        size: Mapping[str, int] | None = None,
        set: Mapping[str, str] | None = None,
        image: Mapping[str, str] | None = None,
        port: Mapping[str, int] | None = None,
        keep: bool = False,
        timeout: float = 120.0,
        listener: Listener = ignore,
        engine: Engine | None = None,
    ) -> Cluster:
        """Stands a cluster up, or applies the difference to one that runs; ``.change`` tells what was done."""

    change: Change | None  #: what the ``up`` that returned this did

    @classmethod
    def open(cls, name: str | None = None, *, engine: Engine | None = None) -> Cluster:
        """The cluster of that name; without one $MINICLUSTER, then the only one there is."""

    def status(self) -> ClusterStatus: ...
    def info(self) -> ClusterInfo: ...
    def env(self) -> dict[str, str]: ...
    def node_names(self, words: Sequence[str]) -> list[str]:
        """Nodes by name or role; all of them for no words."""

    def exec(self, node: str, argv: Sequence[str], *, timeout: float | None = None) -> ExecResult: ...
    def exec_argv(self, node: str, argv: Sequence[str], *, tty: bool, stdin: bool = True) -> tuple[list[str], dict[str, str]]: ...
    def logs(self, nodes: Sequence[str] = (), *, follow: bool = False, tail: int | None = None) -> Iterator[tuple[str, str]]:
        """(node, line) pairs."""

    def load(self, image: str, nodes: Sequence[str] = (), *, listener: Listener = ignore) -> None: ...
    def down(self, *, listener: Listener = ignore) -> Change: ...


def dry_run(
    profile: str | None = None,
    *,
    name: str | None = None,
    size: Mapping[str, int] | None = None,
    set: Mapping[str, str] | None = None,
    image: Mapping[str, str] | None = None,
    port: Mapping[str, int] | None = None,
) -> Plan:
    """The plan that :meth:`Cluster.up` would carry out; without an engine, the plan of a first ``up``."""


def clusters(engine: Engine | None = None) -> list[ClusterSummary]: ...
def down(names: Sequence[str], *, all: bool = False, listener: Listener = ignore) -> list[Change]: ...
