"""Conformance: the nodes and the API."""

from __future__ import annotations

import concurrent.futures
import json
import re
import shutil
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest
from kubernetes import client, watch

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    CRD,
    Kube,
    Manifest,
    Space,
    conformance,
)

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


# --- nodes


@conformance("Cluster", "every agent is a Ready node under its name and address, and of the cluster's version")
def test_nodes_are_ready(kube: Kube, begun: Space) -> None:
    nodes = {node["metadata"]["name"]: node for node in kube.kubectl("get", "nodes", "-o", "json").json["items"]}
    version = kube.kubectl("version", "-o", "json").json["serverVersion"]["gitVersion"]
    assert sorted(nodes) == list(AGENTS)
    for name, node in nodes.items():
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert conditions["MemoryPressure"] == conditions["DiskPressure"] == "False"
        assert node["status"]["nodeInfo"]["kubeletVersion"] == version
        addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
        assert addresses == {"InternalIP": kube.addresses[name], "Hostname": name}
        assert node["spec"]["podCIDR"] == f"10.244.{name.removeprefix('agent-')}.0/24"


@conformance("Cluster", "`kubectl api-versions` lists the stable APIs that workloads use, and each is available")
def test_apis(kube: Kube) -> None:
    wanted = {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1", "storage.k8s.io/v1"}
    wanted |= {"apiextensions.k8s.io/v1", "admissionregistration.k8s.io/v1", "certificates.k8s.io/v1"}
    assert wanted <= kube.versions
    services = kube.kubectl("get", "apiservices", "-o", "json").json["items"]
    states = {s["metadata"]["name"]: {c["type"]: c["status"] for c in s["status"]["conditions"]} for s in services}
    assert len(states) > 10
    assert [name for name, state in states.items() if state["Available"] != "True"] == []
    assert kube.kubectl("get", "--raw", "/readyz").out == "ok"


@conformance("Cluster", "requests without a certificate or with a wrong token get 401 or 403")
def test_unauthenticated_requests_are_refused(kube: Kube) -> None:
    server = kube.api.configuration.host
    context = ssl.create_default_context(cafile=kube.api.configuration.ssl_ca_cert)

    def asked(path: str, **headers: str) -> int:
        try:
            request = urllib.request.Request(server + path, headers=headers)
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert asked("/api/v1/secrets") in (401, 403)
    assert asked("/api/v1/namespaces/default/pods") in (401, 403)
    assert asked("/api/v1/nodes", Authorization="Bearer wrong") == 401
    stranger = ("--kubeconfig", "/dev/null", "--server", server, "--token", "wrong")
    stranger += ("--certificate-authority", kube.api.configuration.ssl_ca_cert)
    bare = kube.kubectl(*stranger, "get", "pods", ok=False)
    assert "Unauthorized" in bare.err or "must be logged in" in bare.err
    assert bare.code != 0


# --- API


@conformance("API", "watches report objects added, modified and deleted, in that order")
def test_watches(kube: Kube, space: Space) -> None:
    since = kube.core.list_namespaced_config_map(space.name, label_selector="t=1").metadata.resource_version
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        looking = watch.Watch()
        for event in looking.stream(
            kube.core.list_namespaced_config_map,
            space.name,
            label_selector="t=1",
            resource_version=since,
            timeout_seconds=20,
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                looking.stop()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        following = pool.submit(follow)
        space.create({"kind": "ConfigMap", "metadata": {"name": "other"}})
        space.create({"kind": "ConfigMap", "metadata": {"name": "one", "labels": {"t": "1"}}})
        eventually(lambda: seen == [("ADDED", "one")])
        kube.core.patch_namespaced_config_map("one", space.name, {"data": {"a": "b"}})
        kube.core.delete_namespaced_config_map("one", space.name)
        following.result(timeout=30)
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


@conformance("API", "label and field selectors")
def test_selectors(kube: Kube, asking: Space, space: Space) -> None:
    for name, tier in (("a", "front"), ("b", "back"), ("c", "back")):
        space.create({"kind": "ConfigMap", "metadata": {"name": name, "labels": {"tier": tier, "t": "1"}}})

    def names(**selector: str) -> list[str]:
        return [item.metadata.name for item in kube.core.list_namespaced_config_map(space.name, **selector).items]

    assert names(label_selector="tier=back") == ["b", "c"]
    assert names(label_selector="t,tier notin (back)") == ["a"]
    assert names(label_selector="tier in (front,back)", field_selector="metadata.name!=b") == ["a", "c"]
    fields = "--field-selector=spec.nodeName=agent-1,status.phase=Running"
    listed = kube.kubectl("get", "pods", "-A", fields, "-l", "app=agent-1", "-o", "name")
    assert listed.out == "pod/agent-1\n"


@conformance("API", "replacing an outdated version is a conflict; patches; dry runs")
def test_changes(kube: Kube, space: Space) -> None:
    space.create({"kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1", "b": "2"}})
    old = kube.core.read_namespaced_config_map("one", space.name)
    space.kubectl("patch", "configmap", "one", "--type=merge", "-p", '{"data": {"a": "2"}}')
    old.data["a"] = "3"
    with pytest.raises(client.ApiException) as refused:
        kube.core.replace_namespaced_config_map("one", space.name, old)
    assert refused.value.status == 409
    space.kubectl("patch", "configmap", "one", "--type=json", "-p", '[{"op": "remove", "path": "/data/b"}]')
    kube.core.delete_namespaced_config_map("one", space.name, dry_run="All")
    assert kube.core.read_namespaced_config_map("one", space.name).data == {"a": "2"}


@conformance("API", "server-side apply: each field has its owner, and others get a conflict")
def test_server_side_apply(space: Space) -> None:
    def apply(by: str, value: str, *more: str) -> Any:
        text = json.dumps(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value, by: "mine"}}
        )
        return space.kubectl(
            "apply", "--server-side", f"--field-manager={by}", *more, "-f", "-", given=text, ok=False
        )  # fmt: skip

    assert apply("first", "1").code == 0
    refused = apply("second", "2")
    assert refused.code != 0
    assert 'conflict with "first"' in refused.err
    assert apply("second", "2", "--force-conflicts").code == 0
    found = space.kube.core.read_namespaced_config_map("one", space.name)
    assert found.data == {"a": "2", "first": "mine", "second": "mine"}
    assert {field.manager for field in found.metadata.managed_fields} == {"first", "second"}


@conformance("API", "an object with a finalizer waits for it; owned objects are removed with their owner")
def test_finalizers_and_owners(kube: Kube, space: Space) -> None:
    kept = {"kind": "ConfigMap", "metadata": {"name": "kept", "finalizers": ["t.example.org/wait"]}}
    owner = space.create(kept, {"kind": "ConfigMap", "metadata": {"name": "owner"}})
    of = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}
    space.create({"kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [of]}})

    def there() -> set[str]:
        return {item.metadata.name for item in kube.core.list_namespaced_config_map(space.name).items}

    for name in ("kept", "owner"):
        kube.core.delete_namespaced_config_map(name, space.name)
    eventually(lambda: not there() & {"owner", "owned"}, what="the owned one is gone")
    assert kube.core.read_namespaced_config_map("kept", space.name).metadata.deletion_timestamp
    kube.core.patch_namespaced_config_map("kept", space.name, {"metadata": {"finalizers": None}})
    eventually(lambda: "kept" not in there())


@conformance(
    "API",
    "custom resources: defined, validated, listed, watched, with a status subresource, removed with their definition",
)
def test_custom_resources(kube: Kube, space: Space) -> None:
    group = ("t.example.org", "v1", space.name, "widgets")
    custom = client.CustomObjectsApi(kube.api)

    def widget(size: int) -> Manifest:
        return {"apiVersion": "t.example.org/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": size}}

    def made() -> bool:
        try:
            custom.create_namespaced_custom_object(*group, widget(3))
        except client.ApiException as error:
            if error.status in (404, 503):
                return False
            raise
        return True

    kube.kubectl("apply", "-f", "-", given=json.dumps(CRD))
    try:
        eventually(made, what="there may be widgets")
        with pytest.raises(client.ApiException) as refused:
            custom.create_namespaced_custom_object(*group, widget(0))
        assert refused.value.status == 422
        since = custom.list_namespaced_custom_object(*group)["metadata"]["resourceVersion"]
        custom.patch_namespaced_custom_object_status(*group, "one", {"status": {"done": True}, "spec": {"size": 9}})
        columns = eventually(lambda: space.kubectl("get", "wd", ok=False).out, what="kubectl knows the short name")
        assert re.search(r"^NAME +SIZE\none +3$", columns.strip(), re.MULTILINE)
        custom.delete_namespaced_custom_object(*group, "one")
        events = watch.Watch().stream(
            custom.list_namespaced_custom_object, *group, resource_version=since, timeout_seconds=10
        )
        first = next(events)
        assert (first["type"], first["object"]["status"]) == ("MODIFIED", {"done": True})
        assert next(events)["type"] == "DELETED"
        custom.create_namespaced_custom_object(*group, widget(1))
    finally:
        kube.kubectl("delete", "crd", "widgets.t.example.org", "--wait=false")

    def gone() -> bool:
        try:
            custom.list_namespaced_custom_object(*group)
        except client.ApiException as error:
            return bool(error.status == 404)
        return False

    eventually(gone, what="there are no widgets any more")
