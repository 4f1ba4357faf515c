"""What tests of Kubernetes share: a user's clients, builders of manifests, and the table of what is proved."""

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

#: For pods that several tests use: one of them evicts pods that do not tolerate its taint.
STAYS = {"tolerations": [{"operator": "Exists"}]}

DEMO = "localhost/minicluster/demo:1"
AGENTS = ("agent-1", "agent-2")
#: For a pod in which tests run commands: it ends at once on SIGTERM.
HOLD = "trap 'exit 0' TERM; sleep 10000 & wait"

Manifest = dict[str, Any]
Test = TypeVar("Test", bound=Callable[..., None])

#: What is proved, as (area, what). docs/conformance.md lists exactly these.
PROVED: list[tuple[str, str]] = []


def conformance(area: str, what: str) -> Callable[[Test], Test]:
    """What a test proves, for the table in docs/conformance.md."""

    def note(test: Test) -> Test:
        PROVED.append((area, what))
        return test

    return note


def get(url: str, timeout: float = 2) -> str:
    """The body of a web server's answer; empty where it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return str(answer.read().decode()).strip()
    except OSError:
        return ""


@dataclass
class Kube:
    """A cluster, as the owner of a kubeconfig sees it: kubectl, and the official Python client."""

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
        """Objects of any kind and version."""
        return DynamicClient(self.api, cache_file=str(self.folder / "discovered.json"))

    @cached_property
    def versions(self) -> set[str]:
        return set(self.kubectl("api-versions").out.split())

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
        """Creates them all and returns the last one."""
        made = None
        for manifest in manifests:
            kind = self.any.resources.get(api_version=manifest.get("apiVersion", "v1"), kind=manifest["kind"])
            made = kind.create(body={"apiVersion": "v1"} | manifest, namespace=namespace if kind.namespaced else None)
        return made

    def space(self, name: str) -> Space:
        """A new namespace, once pods may be created in it."""
        self.core.create_namespace({"metadata": {"name": name}})
        self.spaces.append(name)
        eventually(lambda: self._may_have_pods(name), what=f"pods may be made in {name}")
        return Space(self, name)

    def _may_have_pods(self, name: str) -> bool:
        try:
            self.core.create_namespaced_pod(name, pod("any"), dry_run="All")
        except client.ApiException:
            return False  # the service account of its pods does not exist yet
        return True


@dataclass
class Space:
    """A namespace of a test's own."""

    kube: Kube
    name: str

    def create(self, *manifests: Manifest) -> Any:
        return self.kube.create(*manifests, namespace=self.name)

    def refused(self, manifest: Manifest) -> client.ApiException:
        """The error with which the API server refuses it."""
        try:
            self.create(manifest)
        except client.ApiException as error:
            return error
        raise AssertionError(f"it was accepted: {manifest}")

    def kubectl(self, *argv: str, ok: bool = True, given: str | None = None) -> Result:
        return self.kube.kubectl("--namespace", self.name, *argv, ok=ok, given=given)

    def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply`, as a user does it with a file."""
        items = [{"apiVersion": "v1"} | manifest for manifest in manifests]
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def pod(self, name: str) -> Any:
        return self.kube.core.read_namespaced_pod(name, self.name)

    def pods(self, labels: str = "") -> list[Any]:
        """Those that are not being deleted."""
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
        """Waits until exactly so many pods have these labels, and all are ready."""

        def check() -> list[Any]:
            found = self.pods(labels)
            return found if len(found) == count and all(map(is_ready, found)) else []

        return list(eventually(check, within=within, what=f"{count} pods {labels} ready"))

    def ended(self, name: str, within: float = 60) -> Any:
        """Waits until a pod has ended and returns it."""

        def check() -> Any:
            found = self.pod(name)
            return found if found.status.phase in ("Succeeded", "Failed") else None

        return eventually(check, within=within, what=f"{name} has ended")

    def log(self, name: str, *options: str) -> str:
        return self.kubectl("logs", name, *options).out

    def run(self, name: str, script: str, *options: str, ok: bool = True) -> str:
        """The output of a shell script in a pod."""
        return self.kubectl("exec", name, *options, "--", "sh", "-c", script, ok=ok).out.strip()

    def endpoints(self, service: str) -> set[str]:
        """Names of the pods that are endpoints of a service."""
        found = self.kube.core.read_namespaced_endpoints(service, self.name).subsets or []
        return {address.target_ref.name for subset in found for address in subset.addresses or []}


def is_ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def container(script: str = "", name: str = "main", **more: Any) -> Manifest:
    """The demo web server, or a script."""
    return {"name": name, "image": DEMO} | ({"command": ["sh", "-c", script]} if script else {}) | more


def pod(name: str, *containers: Manifest, labels: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A pod that stops fast; with the demo web server where no container is given."""
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
    """A Deployment, StatefulSet or DaemonSet of such pods."""
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
    """A readiness probe every second; of the web server by default."""
    asks = probe or {"httpGet": {"path": "/", "port": 80}}
    return {"readinessProbe": {"periodSeconds": 1, "failureThreshold": 1} | asks}


def cron_job(name: str, schedule: str, **spec: Any) -> Manifest:
    made = job("any", "echo on time")
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": made["spec"]}} | spec,
    }


def taken(space: Space, manifest: Manifest) -> bool:
    try:
        space.create(manifest)
    except client.ApiException:
        return False
    return True


#: A custom resource of a user's.
CRD: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.t.example.org"},
    "spec": {
        "group": "t.example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {"size": {"type": "integer", "minimum": 1}},
                            },
                            "status": {"type": "object", "properties": {"done": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}
