"""What tests of addresses and policies share."""

from __future__ import annotations

from tests.engine.kubernetes.kube import AGENTS, Kube, Manifest, Space


def address(space: Space, name: str) -> str:
    """The address in a Service's status; empty as long as there is none."""
    ingress = space.kube.core.read_namespaced_service(name, space.name).status.load_balancer.ingress
    return str(ingress[0].ip) if ingress else ""


def announced_by(kube: Kube, wanted: str) -> str:
    """The agent that has an address."""
    for agent in AGENTS:
        said = kube.shell.docker("exec", f"{kube.cluster}-{agent}", "ip", "addr", "show", "dev", "lo", ok=False)
        if f"inet {wanted}/" in said.out:
            return agent
    return ""


def reasons(space: Space, name: str) -> dict[str, str]:
    """Events about a Service: reason -> message."""
    found = space.kube.core.list_namespaced_event(space.name, field_selector=f"involvedObject.name={name}").items
    return {event.reason: event.message for event in found}


def asks(kube: Kube, node: str, url: str) -> str:
    said = kube.shell.docker("exec", f"{kube.cluster}-{node}", "curl", "-sS", "-m", "2", url, ok=False)
    return said.out.strip() or said.err.strip()


def policy(name: str, selects: str = "", **spec: object) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": selects}} if selects else {}} | spec,
    }


def reaches(space: Space, asker: str, host: str, port: int = 80) -> bool:
    """Whether a pod gets a connection."""
    return "open" in space.run(asker, f"nc -w 1 {host} {port} </dev/null >/dev/null 2>&1 && echo open", ok=False)
