"""Nodes of a fake engine that form swarms."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from minicluster.engine.protocol import ExecResult
from minicluster.model import labels
from tests.fakes.engine import OK, FakeEngine


class FakeSwarm:
    """Makes the nodes of a fake engine answer as those of the bundled swarm profile (and of the toy profile) do.

    It remembers who joined, by the containers' names, so that a plan that forgets to form or to join does not pass.
    """

    TOKENS = ("SWMTKN-worker-secret", "SWMTKN-manager-secret")

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.join: dict[str, set[str]] = defaultdict(set)  #: cluster -> names of its nodes
        for command, answer in {
            "swarm-init": self._form,
            "swarm-join": self._join,
            "swarm-members": self._members,
            "swarm-remove": self._forget,
            "docker swarm leave --force": self._leave,
        }.items():
            engine.answers[command] = answer

    def _who(self, container: str) -> tuple[str, str]:
        about = self.engine.boxes[container].container.labels
        return about[labels.CLUSTER], about[labels.NODE]

    def _form(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, node = self._who(container)
        self.join[cluster].add(node)
        return ExecResult(0, "\n".join(self.TOKENS) + "\n", "")

    def _join(self, container: str, argv: Sequence[str]) -> ExecResult:
        cluster, node = self._who(container)
        if argv[1] not in self.TOKENS:
            return ExecResult(1, "", "invalid join token")
        self.join[cluster].add(node)
        return OK

    def _leave(self, container: str, _argv: Sequence[str]) -> ExecResult:
        return OK  # a node that left stays in the list, as one that is down

    def _forget(self, container: str, argv: Sequence[str]) -> ExecResult:
        self.join[self._who(container)[0]].discard(argv[1])
        return OK

    def _members(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, asked = self._who(container)
        if asked not in self.join[cluster]:
            return ExecResult(1, "", "swarm-members: this node is in no swarm")
        running = {c.labels[labels.NODE] for c in self.engine.containers(cluster) if c.state == "running"}
        rows = [
            {"name": n, "ready": n in running, "voter": n.startswith("master"), "leader": n == "master-1"}
            for n in sorted(self.join[cluster])
        ]
        return ExecResult(0, "\n".join(map(json.dumps, rows)), "")
