"""What tests of Kubernetes share: a user's clients, short ways to say what shall run, the table of what is proved."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.dynamic import DynamicClient

from tests.engine.conftest import Result, Shell, eventually

DEMO = "localhost/minicluster/demo:1"
AGENTS = ("agent-1", "agent-2")
#: For a shell in a pod that is there to be asked things: ends at once when told to.
HOLD = "trap 'exit 0' TERM; sleep 10000 & wait"

Manifest = dict[str, Any]
Test = TypeVar("Test", bound=Callable[..., None])

#: What is proved, as (area, what). docs/kubernetes-conformance.md lists exactly these.
PROVED: list[tuple[str, str]] = []


def conformance(area: str, what: str) -> Callable[[Test], Test]:
    """Says what a test proves, for the table in the documents."""

    def note(test: Test) -> Test:
        PROVED.append((area, what))
        return test

    return note


def get(url: str, timeout: float = 2) -> str:
    """What a web server answers; nothing where it does not."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return str(answer.read().decode()).strip()
    except OSError:
        return ""


@dataclass
class Kube:
    """A cluster, as the owner of a kubeconfig sees it: stock kubectl, and the official Python client."""

    shell: Shell
    cluster: str
    folder: Path  # for files that clients want
    spaces: list[str] = field(default_factory=list)

    @cached_property
    def api(self) -> Any:
        return config.new_client_from_config(self.shell.env["KUBECONFIG"])

    @cached_property
    def core(self) -> Any:
        return client.CoreV1Api(self.api)

    @cached_property
    def apps(self) -> Any:
        return client.AppsV1Api(self.api)

    @cached_property
    def batch(self) -> Any:
        return client.BatchV1Api(self.api)

    @cached_property
    def any(self) -> Any:
        """Whatever kind there is, of whatever version."""
        return DynamicClient(self.api, cache_file=str(self.folder / "discovered.json"))

    @cached_property
    def versions(self) -> set[str]:
        return set(self.kubectl("api-versions").out.split())

    def version(self, *wanted: str) -> str:
        """The first of these versions of an API that the cluster has."""
        return next(version for version in wanted if version in self.versions)

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Of every node."""
        nodes = self.shell.minicluster("status", self.cluster, "-o", "json").json["nodes"]
        return {node["name"]: node["address"] for node in nodes}

    def kubectl(self, *argv: str, ok: bool = True, given: str | None = None, timeout: float = 60) -> Result:
        if given is None:
            return self.shell.run("kubectl", *argv, ok=ok, timeout=timeout)
        done = subprocess.run(
            ["kubectl", *argv],
            env=os.environ | self.shell.env,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not ok or done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *argv: str, given: bool = False) -> subprocess.Popen[str]:
        """``kubectl`` in the background."""
        return subprocess.Popen(
            ["kubectl", *argv],
            env=os.environ | self.shell.env,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def create(self, *manifests: Manifest, namespace: str | None = None) -> Any:
        """Creates them all, and gives the last."""
        made = None
        for manifest in manifests:
            kind = self.any.resources.get(api_version=manifest.get("apiVersion", "v1"), kind=manifest["kind"])
            made = kind.create(body={"apiVersion": "v1"} | manifest, namespace=namespace if kind.namespaced else None)
        return made

    def space(self, name: str) -> Space:
        """A new name space, in which pods may be made."""
        self.core.create_namespace({"metadata": {"name": name}})
        self.spaces.append(name)
        eventually(lambda: self._may_have_pods(name), what=f"pods may be made in {name}")
        return Space(self, name)

    def _may_have_pods(self, name: str) -> bool:
        try:
            self.core.create_namespaced_pod(name, pod("any"), dry_run="All")
        except client.ApiException:
            return False  # the account that pods run under is made meanwhile
        return True


@dataclass
class Space:
    """A name space of a test's own."""

    kube: Kube
    name: str

    def create(self, *manifests: Manifest) -> Any:
        return self.kube.create(*manifests, namespace=self.name)

    def refused(self, manifest: Manifest) -> client.ApiException:
        """That the API server does not take it, and what it says."""
        try:
            self.create(manifest)
        except client.ApiException as error:
            return error
        raise AssertionError(f"it was taken: {manifest}")

    def kubectl(self, *argv: str, ok: bool = True, given: str | None = None) -> Result:
        return self.kube.kubectl("--namespace", self.name, *argv, ok=ok, given=given)

    def apply(self, *manifests: Manifest) -> None:
        """As a user does it with a file."""
        items = [{"apiVersion": "v1"} | manifest for manifest in manifests]
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def pod(self, name: str) -> Any:
        return self.kube.core.read_namespaced_pod(name, self.name)

    def pods(self, labels: str = "") -> list[Any]:
        """Those that are not on their way out."""
        found = self.kube.core.list_namespaced_pod(self.name, label_selector=labels).items
        return [pod for pod in found if not pod.metadata.deletion_timestamp]

    def ready(self, *names: str, within: float = 60) -> list[Any]:
        """Waits until these pods are ready, all at once."""

        def check() -> bool:
            states = {pod.metadata.name: is_ready(pod) for pod in self.pods()}
            return all(states.get(name) for name in names)

        eventually(check, within=within, what=f"ready: {names}")
        return [self.pod(name) for name in names]

    def several(self, count: int, labels: str, within: float = 60) -> list[Any]:
        """Waits until so many pods of these labels are ready, and no others are there."""

        def check() -> list[Any]:
            found = self.pods(labels)
            return found if len(found) == count and all(map(is_ready, found)) else []

        return list(eventually(check, within=within, what=f"{count} pods {labels} ready"))

    def ended(self, name: str, within: float = 60) -> Any:
        """Waits until a pod has ended, and gives it."""

        def check() -> Any:
            found = self.pod(name)
            return found if found.status.phase in ("Succeeded", "Failed") else None

        return eventually(check, within=within, what=f"{name} has ended")

    def log(self, name: str, *options: str) -> str:
        return self.kubectl("logs", name, *options).out

    def run(self, name: str, script: str, *options: str, ok: bool = True) -> str:
        """What a shell in a pod answers."""
        return self.kubectl("exec", name, *options, "--", "sh", "-c", script, ok=ok).out.strip()

    def endpoints(self, service: str) -> set[str]:
        """Names of the pods that a service leads to."""
        found = self.kube.core.read_namespaced_endpoints(service, self.name).subsets or []
        return {address.target_ref.name for subset in found for address in subset.addresses or []}


def is_ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def container(script: str = "", name: str = "main", **more: Any) -> Manifest:
    """The demo web server, or a script."""
    return {"name": name, "image": DEMO} | ({"command": ["sh", "-c", script]} if script else {}) | more


def pod(name: str, *containers: Manifest, labels: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A pod that ends fast; of the demo web server where no container is named."""
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name} | (labels or {})},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers) or [container()]} | spec,
    }


def job(name: str, script: str, **spec: Any) -> Manifest:
    template = pod(name, container(script), restartPolicy="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": template["metadata"] | {"name": None}, "spec": template["spec"]}} | spec,
    }


def workload(kind: str, name: str, template: Manifest, **spec: Any) -> Manifest:
    """A Deployment or the like of pods such as this."""
    labels = template["metadata"]["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": labels["app"]}},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        }
        | spec,
    }


def service(name: str, port: int = 80, selects: str = "", **spec: Any) -> Manifest:
    return {
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": selects or name}, "ports": [{"name": "http", "port": port, "targetPort": 80}]}
        | spec,
    }


def claim(name: str, size: str = "10Mi") -> Manifest:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def readiness(**probe: Any) -> Manifest:
    """Asked every second; of the web server where nothing else is said."""
    asks = probe or {"httpGet": {"path": "/", "port": 80}}
    return {"readinessProbe": {"periodSeconds": 1, "failureThreshold": 1} | asks}
