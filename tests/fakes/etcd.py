"""Nodes of a fake engine that form clusters of etcd."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import partial

from minicluster.engine.protocol import ExecResult, Volume
from minicluster.model import labels
from tests.fakes.engine import OK, FakeEngine


class FakeEtcd:
    """Makes the nodes of a fake engine answer as those of the bundled etcd profile do.

    A node bootstraps with the nodes in its bootstrap file, is the member that its data name, or waits to be joined. So
    a plan does not pass that forgets to join a node, leaves a dead member in the list, or bootstraps a second cluster.
    """

    BOOTSTRAP = "/etc/etcd/bootstrap.env"

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.members: dict[str, dict[str, str]] = {}  #: cluster -> its members and their addresses
        self.leader: dict[str, str] = {}  #: cluster -> who leads it as long as it can; else the first that works
        self._data: dict[str, Volume] = {}  # volume -> as it was when a member's data were written on it
        self._lock = threading.Lock()
        for command, answer in {
            "etcd-ready": self._ready,
            "etcd-join": self._join,
            "etcd-remove": self._leave,
            "etcd-members": self._members,
        }.items():
            engine.answers[command] = partial(self._alone, answer)

    def _alone(
        self, answer: Callable[[str, Sequence[str]], ExecResult], container: str, argv: Sequence[str]
    ) -> ExecResult:
        with self._lock:  # nodes join at once
            return answer(container, argv)

    def _who(self, container: str) -> tuple[str, str, str]:
        """The cluster, the node, and its address."""
        found = self.engine.boxes[container].container
        return found.labels[labels.CLUSTER], found.labels[labels.NODE], found.address

    def _volume(self, container: str) -> str:
        config = self.engine.boxes[container].config
        assert config
        return config.volumes["/var/lib/etcd"]

    def _has_data(self, container: str) -> bool:
        volume = self._volume(container)
        # A volume that was recreated under the same name is another one, and empty.
        return volume in self._data and self._data[volume] is self.engine.vols[volume]

    def _write_data(self, container: str) -> None:
        volume = self._volume(container)
        self._data[volume] = self.engine.vols[volume]

    def _bootstrap_nodes(self, container: str) -> dict[str, str]:
        file = self.engine.boxes[container].files.get(self.BOOTSTRAP)
        line = file.content.decode().partition("ETCD_INITIAL_CLUSTER=")[2] if file else ""
        pairs = (entry.partition("=") for entry in line.strip().split(",") if entry)
        return {name: url.removeprefix("https://").removeprefix("http://").split(":")[0] for name, _, url in pairs}

    def _begin(self, container: str) -> str:
        """What a node does once it runs; why it cannot, where it cannot."""
        cluster = self._who(container)[0]
        bootstrap_nodes = self._bootstrap_nodes(container)
        if self._has_data(container):
            return ""  # a member that the others removed waits until it joins again
        if bootstrap_nodes:
            if not any(self._data.get(volume.name) is volume for volume in self.engine.volumes(cluster)):
                self.members.pop(cluster, None)  # no data of it is left
            if self.members.setdefault(cluster, bootstrap_nodes) != bootstrap_nodes:
                return "cluster ID mismatch"
            self._write_data(container)
        return ""

    def _healthy(self, cluster: str) -> list[str]:
        running = {
            c.labels[labels.NODE]: c.name
            for c in self.engine.containers(cluster)
            if c.state == "running" and labels.NODE in c.labels
        }
        for name in running.values():
            self._begin(name)
        return [n for n in self.members.get(cluster, ()) if n in running and self._has_data(running[n])]

    def _quorum(self, cluster: str) -> bool:
        return len(self._healthy(cluster)) >= len(self.members.get(cluster, ())) // 2 + 1

    def _ready(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, node, _address = self._who(container)
        why = self._begin(container)
        if why:
            return ExecResult(1, "", why)
        if node in self.members.get(cluster, ()) and self._has_data(container) and not self._quorum(cluster):
            return ExecResult(1, "", "no leader")
        return OK

    def _join(self, container: str, argv: Sequence[str]) -> ExecResult:
        if argv[1] == "--cancel":
            return OK
        cluster, node, address = self._who(container)
        healthy = self._healthy(cluster)
        if not self._quorum(cluster) or argv[1] not in {self.members[cluster][n] for n in healthy}:
            return ExecResult(1, "", f"etcd-join: {argv[1]} does not list its members")
        self.members[cluster][node] = address
        self._write_data(container)
        return OK

    def _leave(self, container: str, argv: Sequence[str]) -> ExecResult:
        cluster = self._who(container)[0]
        if not self._quorum(cluster):
            return ExecResult(1, "", f"etcd-remove: cannot remove the member at {argv[1]}")
        self.members[cluster] = {n: address for n, address in self.members[cluster].items() if address != argv[1]}
        return OK

    def _members(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, asked, _address = self._who(container)
        healthy = self._healthy(cluster)
        if asked not in healthy or not self._quorum(cluster):
            return ExecResult(1, "", "etcd-members: etcd does not answer, or has no leader")
        leader = self.leader.get(cluster, "")
        leader = leader if leader in healthy else healthy[0]
        rows = [{"name": n, "ready": n in healthy, "voter": True, "leader": n == leader} for n in self.members[cluster]]
        return ExecResult(0, "\n".join(map(json.dumps, rows)), "")
