"""A Kubernetes cluster in tests of its life: its kubectl, and a canary that needs every component to answer."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import time
from collections.abc import Iterable
from typing import Any

from tests.engine.conftest import Result, Shell, eventually

DEMO = "localhost/minicluster/demo:1"

_numbers = itertools.count(1)


def variables(outer: Shell, name: str) -> dict[str, str]:
    """What ``minicluster env`` sets now: PATH leads to the cluster's own kubectl, unless the one here fits."""
    words = (shlex.split(line, comments=True) for line in outer.minicluster("env", name).out.splitlines())
    pairs = (line[1].partition("=") for line in words if line[:1] == ["export"])
    return {key: value for key, _, value in pairs}


class Kube:
    """The client of a cluster, with the variables that ``minicluster env`` prints when it is created."""

    def __init__(self, outer: Shell, name: str) -> None:
        self.outer, self.name = outer, name
        self.shell = Shell(outer.env | self.env())

    def env(self) -> dict[str, str]:
        """What ``minicluster env`` prints now, which depends on the nodes that run."""
        return variables(self.outer, self.name)

    def kubectl(self, *argv: str, ok: bool = True, timeout: float = 60) -> Result:
        return self.shell.run("kubectl", "--request-timeout=5s", *argv, ok=ok, timeout=timeout)

    def get(self, *argv: str) -> Any:
        """An object, or the items of a list; empty if the API server does not answer."""
        answer = self.kubectl("get", *argv, "-o", "json", ok=False)
        if answer.code != 0:
            return []
        return answer.json["items"] if answer.json["kind"] == "List" else answer.json

    def apply(self, *objects: dict[str, Any]) -> None:
        """Creates objects, and retries until the API server has accepted them."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        argv = ["bash", "-c", 'kubectl --request-timeout=5s apply --validate=false -f - <<<"$1"', "-", text]
        eventually(lambda: self.shell.run(*argv, ok=False).code == 0, what="the API server accepts objects")

    def verb(self, verb: str, *argv: str, ok: bool = True, timeout: float = 300) -> Result:
        """Runs a command of minicluster on this cluster."""
        return self.outer.minicluster(verb, *argv, "-c", self.name, ok=ok, timeout=timeout)

    def status(self) -> Any:
        return self.outer.minicluster("status", self.name, "-o", "json").json

    def is_ready(self, within: float = 90) -> None:
        eventually(lambda: self.status()["phase"] == "ready", within=within, what=f"{self.name} is ready")

    def nodes(self) -> dict[str, bool]:
        """Name -> whether it is Ready, of every node that Kubernetes knows."""
        return {node["metadata"]["name"]: is_so(node, "Ready") for node in self.get("nodes")}

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Those that are not being deleted."""
        return [p for p in self.get("pods", "-l", selector) if "deletionTimestamp" not in p["metadata"]]

    def inside(self, pod: str, command: str, ok: bool = True, timeout: float = 60) -> Result:
        return self.shell.run("kubectl", "exec", pod, "--", "sh", "-c", command, ok=ok, timeout=timeout)

    def furnish(self, *agents: str) -> None:
        """Creates a pod for requests on each of these agents, and a volume that all of them write to."""
        claim = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
        }  # fmt: skip
        self.apply(claim, *(asker(agent) for agent in agents))
        for agent in agents:
            selector = f"app=ask-{agent}"
            eventually(lambda selector=selector: running(self.pods(selector)), what=f"{selector} runs")

    def ask(self, agent: str, host: str, within: float = 30) -> str:
        """The answer of a demo server to a pod on that agent."""
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
        """Seconds until a new pod is scheduled to an agent, runs, and answers a pod on another agent by the name of
        a new service."""
        begun = time.monotonic()
        name = f"canary-{next(_numbers)}"
        self.apply(service(name), pod(name, on))
        said = self.ask(asked_on, name, within)
        took = time.monotonic() - begun
        assert said == name
        self.kubectl("delete", "pod,service", name, "--wait=false", "--grace-period=0", ok=False)
        return took


def running(pods: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are Ready."""
    return [pod for pod in pods if is_so(pod, "Ready")]


def is_so(made: dict[str, Any], condition: str) -> bool:
    """Whether a pod's or node's condition is true."""
    return any(c["type"] == condition and c["status"] == "True" for c in made["status"].get("conditions", ()))


def pod(name: str, on: str) -> dict[str, Any]:
    """The demo server, with a node selector for an agent."""
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
