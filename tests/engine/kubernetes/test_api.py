"""Conformance: the API."""

from __future__ import annotations

import concurrent.futures
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes import client, watch

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    CRD,
    Kube,
    Manifest,
    Space,
    conformance,
)
from tests.engine.sockets import waiting

pytestmark = pytest.mark.long


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


@conformance("API", "260 watches of one user from one address are all served")
def test_many_watches_of_one_address(kube: Kube, space: Space) -> None:
    """All clients on the host come from the gateway's address. This one is subject to priority and fairness."""
    space.kubectl("create", "serviceaccount", "many")
    space.kubectl("create", "role", "many", "--verb=list,watch", "--resource=configmaps")
    space.kubectl("create", "rolebinding", "many", "--role=many", f"--serviceaccount={space.name}:many")
    token = space.kubectl("create", "token", "many").out.strip()
    url = urlsplit(kube.api.configuration.host)
    context = ssl.create_default_context(cafile=kube.api.configuration.ssl_ca_cert)
    path = f"/api/v1/namespaces/{space.name}/configmaps?watch=1&timeoutSeconds=60"
    request = f"GET {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n\r\n"
    assert url.hostname
    assert url.port
    with waiting(260, url.hostname, url.port, request.encode(), context) as answers:
        assert {answer.split(b" ")[1] for answer in answers} == {b"200"}
