"""Three machines for clusters on several hosts: nodes of the profile swarm, each with its own engine and network.

Each has an address, at which its engine is reached by TCP with mutual TLS, and a docker context that says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.engine.conftest import Shell, eventually

NAMES = ("m1", "m2", "m3")


@dataclass(frozen=True)
class Bed:
    """Machines, and a shell with their contexts."""

    name: str  #: of the cluster whose nodes they are
    outer: Shell  #: the engine that runs them
    shell: Shell  #: commands about clusters on the hosts
    nodes: dict[str, str]  #: host -> node
    addresses: dict[str, str]  #: host -> address

    def docker(self, host: str, *argv: str, ok: bool = True) -> str:
        """What docker prints on a host."""
        return self.shell.docker("--context", host, *argv, ok=ok).out

    def do(self, verb: str, host: str) -> None:
        """What docker does with a machine: kill, start, pause, unpause. Its engine answers after a start."""
        self.outer.docker(verb, f"{self.name}-{self.nodes[host]}")
        if verb == "unpause":
            eventually(self._whole, within=120, what="each machine counts all as members of the swarm")
        if verb == "start":
            answers = ("--context", host, "ps", "-q")
            eventually(lambda: self.shell.docker(*answers, ok=False).code == 0, within=120, what=f"{host} answers")

    def cut(self, host: str) -> None:
        """No packet passes between a machine and any other, this one included; until :meth:`heal`."""
        words = ("--isolate", self.nodes[host], "--clients", "--force", "-c", self.name)
        self.outer.minicluster("fault", "partition", *words)

    def heal(self) -> None:
        """Ends :meth:`cut`. Two managers that are behind at the same time are a swarm without a quorum."""
        self.outer.minicluster("heal", "-c", self.name)
        eventually(self._whole, within=120, what="each machine counts all as members of the swarm")

    def _whole(self) -> bool:
        listing = ("node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}")
        lines = [line for host in self.nodes for line in self.docker(host, *listing, ok=False).splitlines()]
        works = {"Ready Leader", "Ready Reachable"}
        return len(lines) == len(self.nodes) ** 2 and {*lines} == works

    def remains(self, cluster: str, *hosts: str) -> dict[str, list[str]]:
        """Host -> what it has of a cluster; of all hosts by default."""
        found: dict[str, list[str]] = {}
        label = f"label=io.minicluster.cluster={cluster}"
        for host in hosts or self.nodes:
            names = self.docker(host, "ps", "-aq", "--filter", label, "--format", "{{.Names}}").split()
            names += self.docker(host, "network", "ls", "--filter", label, "--format", "{{.Name}}").split()
            names += self.docker(host, "volume", "ls", "--filter", label, "--format", "{{.Name}}").split()
            if names:
                found[host] = names
        return found


def make(outer: Shell, name: str, folder: Path, *options: str) -> Bed:
    """Makes the machines and their contexts, which are in ``folder``."""
    outer.minicluster("up", "swarm", "--name", name, "--size", "master=3", "--size", "agent=0", *options, timeout=600)
    nodes = outer.minicluster("status", name, "-o", "json").json["nodes"]
    addresses = {host: node["address"] for host, node in zip(NAMES, nodes, strict=True)}
    certificates = outer.minicluster("env", name, "-o", "json").json["DOCKER_CERT_PATH"]
    folder.mkdir(parents=True, exist_ok=True)
    shell = Shell({**outer.env, "DOCKER_CONFIG": str(folder)})
    files = ",".join(f"{key}={certificates}/{key}.pem" for key in ("ca", "cert", "key"))
    for host, address in addresses.items():
        shell.docker("context", "create", host, "--docker", f"host=tcp://{address}:2376,{files}")
    return Bed(name, outer, shell, {h: n["name"] for h, n in zip(NAMES, nodes, strict=True)}, addresses)


if __name__ == "__main__":  # by hand: python -m tests.engine.bed NAME FOLDER
    import sys

    made = make(Shell(dict(os.environ)), sys.argv[1], Path(sys.argv[2]))
    print(f"export DOCKER_CONFIG={sys.argv[2]}  # {made.addresses}")
