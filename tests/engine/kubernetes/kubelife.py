"""A Kubernetes cluster as its tests see it: by the stock kubectl, and by a canary that takes all of it to answer."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterable
from typing import Any

from tests.engine.conftest import Result, Shell, eventually

DEMO = "localhost/minicluster/demo:1"

_numbers = itertools.count(1)


class Kube:
    """The stock client of a cluster, set up by what ``minicluster env`` prints, each time that it is made."""

    def __init__(self, outer: Shell, name: str) -> None:
        self.outer, self.name = outer, name
        self.shell = Shell(outer.env | self.env())

    def env(self) -> dict[str, str]:
        """What ``minicluster env`` prints now; it is written anew for whatever runs."""
        return dict(self.outer.minicluster("env", self.name, "-o", "json").json)

    def kubectl(self, *argv: str, ok: bool = True, timeout: float = 60) -> Result:
        return self.shell.run("kubectl", "--request-timeout=5s", *argv, ok=ok, timeout=timeout)

    def get(self, *argv: str) -> Any:
        """An object, or a list's items; none where the API server does not answer."""
        answer = self.kubectl("get", *argv, "-o", "json", ok=False)
        if answer.code != 0:
            return []
        return answer.json["items"] if answer.json["kind"] == "List" else answer.json

    def apply(self, *objects: dict[str, Any]) -> None:
        """Makes objects, again and again until the API server has taken them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        argv = ["bash", "-c", 'kubectl --request-timeout=5s apply --validate=false -f - <<<"$1"', "-", text]
        eventually(lambda: self.shell.run(*argv, ok=False).code == 0, what="the API server takes objects")

    def verb(self, verb: str, *argv: str, ok: bool = True, timeout: float = 300) -> Result:
        """A verb of minicluster's on this cluster."""
        return self.outer.minicluster(verb, *argv, "-c", self.name, ok=ok, timeout=timeout)

    def status(self) -> Any:
        return self.outer.minicluster("status", self.name, "-o", "json").json

    def is_ready(self, within: float = 90) -> None:
        eventually(lambda: self.status()["phase"] == "ready", within=within, what=f"{self.name} is ready")

    def nodes(self) -> dict[str, bool]:
        """Every node that Kubernetes knows, and whether it is Ready."""
        return {node["metadata"]["name"]: is_so(node, "Ready") for node in self.get("nodes")}

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Those that are not about to go."""
        return [p for p in self.get("pods", "-l", selector) if "deletionTimestamp" not in p["metadata"]]

    def inside(self, pod: str, command: str, ok: bool = True, timeout: float = 60) -> Result:
        return self.shell.run("kubectl", "exec", pod, "--", "sh", "-c", command, ok=ok, timeout=timeout)

    def furnish(self, *agents: str) -> None:
        """A pod to ask from on each of these agents, and the one claim of a volume that all of them write to."""
        claim = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
        }  # fmt: skip
        self.apply(claim, *(asker(agent) for agent in agents))
        for agent in agents:
            selector = f"app=ask-{agent}"
            eventually(lambda selector=selector: running(self.pods(selector)), what=f"{selector} runs")

    def ask(self, agent: str, host: str, within: float = 30) -> str:
        """What a demo server answers to a pod on that agent."""
        command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc {host} 80"

        def answer() -> str:
            pods = running(self.pods(f"app=ask-{agent}"))
            if not pods:
                return ""
            name = pods[0]["metadata"]["name"]
            try:
                said = self.inside(name, command, ok=False, timeout=5).out
            except subprocess.TimeoutExpired:
                return ""
            return said.splitlines()[-1] if "200 OK" in said else ""

        return str(eventually(answer, within=within, what=f"{host} answers to a pod on {agent}"))

    def canary(self, on: str, asked_on: str, within: float = 60) -> float:
        """Seconds until the whole cluster has worked once: a pod is made, is scheduled to an agent, runs, and answers
        to a pod on another one by the name of a service that is just as new."""
        begun = time.monotonic()
        name = f"canary-{next(_numbers)}"
        self.apply(service(name), pod(name, on))
        said = self.ask(asked_on, name, within)
        took = time.monotonic() - begun
        assert said == name
        self.kubectl("delete", "pod,service", name, "--wait=false", "--grace-period=0", ok=False)
        return took


def running(pods: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose containers are ready."""
    return [pod for pod in pods if is_so(pod, "Ready")]


def is_so(made: dict[str, Any], condition: str) -> bool:
    """Whether a pod's or node's condition is true."""
    return any(c["type"] == condition and c["status"] == "True" for c in made["status"].get("conditions", ()))


def pod(name: str, on: str) -> dict[str, Any]:
    """The demo server on a certain agent, put there by the scheduler."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": on}, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": DEMO}],
        },
    }  # fmt: skip


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }  # fmt: skip


def deployment(
    name: str, replicas: int, on: str = "", command: list[str] | None = None, claim: str = ""
) -> dict[str, Any]:
    """Demo servers."""
    container: dict[str, Any] = {"name": "web", "image": DEMO}
    if command:
        container["command"] = command
    else:
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    if on:
        spec["nodeSelector"] = {"kubernetes.io/hostname": on}
    if claim:
        container["volumeMounts"] = [{"name": "kept", "mountPath": "/kept"}]
        spec["volumes"] = [{"name": "kept", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }  # fmt: skip


def asker(agent: str) -> dict[str, Any]:
    return deployment(f"ask-{agent}", 1, agent, ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"], "kept")
