"""What the plan of a cluster on several hosts has in addition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicluster.model import labels
from minicluster.plan.steps import ForgetHost, RemoveContainer

if TYPE_CHECKING:
    from minicluster.model.spec import NodeSpec, Spec
    from minicluster.plan.builder import Steps
    from minicluster.plan.observed import Observed


def remove_strays(steps: Steps, spec: Spec, observed: Observed) -> None:
    """Removes what is left of nodes on hosts that they are no longer on, before they exist again."""
    for host, id_ in observed.forgotten.items():
        cause = "it does not answer, and the swarm keeps the addresses of the nodes that move for it"
        steps.add(f"forget {host}", "", ForgetHost(host, id_), cause)
    for name, containers in observed.strays.items():
        node = spec.node(name)
        cause = f"the node is on host {node.host} now" if node else "the spec no longer has this node"
        for container in containers:
            steps.add(f"remove {container}", name, RemoveContainer(container), cause)


def out_of_reach(node: NodeSpec, observed: Observed) -> bool:
    """Its host does not answer. Only a rollback leaves a node there; ``up`` moves it."""
    return node.host in observed.gone and node.name not in observed.containers


def host_label(node: NodeSpec) -> dict[str, str]:
    """The label that says which host something of a node is on."""
    return {labels.HOST: node.host} if node.host else {}
