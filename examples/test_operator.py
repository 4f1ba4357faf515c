"""An operator on Kubernetes: for each Greeting that users make, a ConfigMap; mended when somebody spoils it.

What is tested is a controller of one's own against a real API server: custom resources that are validated, watches that
tell of changes, owner references by which what was made goes with what it was made for.

Needs: pip install kubernetes. Run it: pytest test_operator.py
"""

import contextlib
import threading
import time

import pytest
from kubernetes import client, config, watch

GROUP, VERSION, PLURAL = "example.org", "v1", "greetings"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}}}
    },
}
DEFINITION = {
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": PLURAL, "singular": "greeting", "kind": "Greeting"},
        "versions": [{"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
    },
}


class Operator:
    """The controller: what it hears of, it makes so."""

    def __init__(self, api: client.ApiClient) -> None:
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._over = threading.Event()
        self._heard = (
            (self.custom.list_namespaced_custom_object, (GROUP, VERSION, "default", PLURAL)),
            (self.core.list_namespaced_config_map, ("default",)),
        )
        self._threads = [threading.Thread(target=self._run, args=heard, daemon=True) for heard in self._heard]
        for thread in self._threads:
            thread.start()

    def _run(self, listing, arguments) -> None:
        while not self._over.is_set():
            with contextlib.suppress(client.ApiException):  # a watch that is too old begins anew
                for _event in watch.Watch().stream(listing, *arguments, timeout_seconds=1):
                    self.reconcile()

    def reconcile(self) -> None:
        """Looks at all there is, so that it does not matter what was missed."""
        found = self.custom.list_namespaced_custom_object(GROUP, VERSION, "default", PLURAL)["items"]
        there = {c.metadata.name: c for c in self.core.list_namespaced_config_map("default").items}
        for greeting in found:
            name, text = greeting["metadata"]["name"], f"Hello, {greeting['spec']['name']}!"
            owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Greeting", "name": name}
            owner["uid"] = greeting["metadata"]["uid"]
            wanted = {"metadata": {"name": name, "ownerReferences": [owner]}, "data": {"text": text}}
            with contextlib.suppress(client.ApiException):  # somebody was faster: we shall hear of that
                if name not in there:
                    self.core.create_namespaced_config_map("default", wanted)
                elif there[name].data != wanted["data"]:
                    self.core.replace_namespaced_config_map(name, "default", wanted)

    def end(self) -> None:
        """Waits for its watches to end."""
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def api(minicluster):
    cluster = minicluster("kubernetes", size={"agent": 0})  # nothing here needs a pod
    return config.new_client_from_config(cluster.env()["KUBECONFIG"])


@pytest.fixture
def greetings(api):
    """Makes, changes and removes greetings, by name; the operator is at work meanwhile."""
    client.ApiextensionsV1Api(api).create_custom_resource_definition(DEFINITION)
    custom = client.CustomObjectsApi(api)
    soon(lambda: custom.list_namespaced_custom_object(GROUP, VERSION, "default", PLURAL), "the definition is served")
    operator = Operator(api)
    yield custom
    operator.end()


def greeting(name: str, whom: str) -> dict[str, object]:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Greeting", "metadata": {"name": name}, "spec": {"name": whom}}


def soon(check, what: str, within: float = 15.0):
    """What a check answers once that is something true and no error."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(client.ApiException):
            if answer := check():
                return answer
        assert time.monotonic() < end, f"not after {within:g} s: {what}"
        time.sleep(0.05)


def text(api: client.ApiClient, name: str) -> str:
    return client.CoreV1Api(api).read_namespaced_config_map(name, "default").data["text"]


def test_what_is_asked_for_is_made_and_follows_changes(api, greetings):
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("first", "world"))
    soon(lambda: text(api, "first") == "Hello, world!", "it is made")
    change = {"spec": {"name": "you"}}
    greetings.patch_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, "first", change)
    soon(lambda: text(api, "first") == "Hello, you!", "it follows")


def test_what_somebody_removes_or_spoils_is_mended(api, greetings):
    core = client.CoreV1Api(api)
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("second", "world"))
    soon(lambda: text(api, "second"), "it is made")
    core.delete_namespaced_config_map("second", "default")
    soon(lambda: text(api, "second"), "it is made again")
    core.patch_namespaced_config_map("second", "default", {"data": {"text": "spoilt"}})
    soon(lambda: text(api, "second") == "Hello, world!", "it is mended")


def test_it_goes_with_what_it_was_made_for(api, greetings):
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("third", "world"))
    soon(lambda: text(api, "third"), "it is made")
    greetings.delete_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, "third")
    names = lambda: [c.metadata.name for c in client.CoreV1Api(api).list_namespaced_config_map("default").items]  # noqa: E731
    soon(lambda: "third" not in names(), "the garbage collector removes it")


def test_what_makes_no_sense_is_refused_by_the_api_server(greetings):
    with pytest.raises(client.ApiException) as refused:
        greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("odd", ""))
    assert refused.value.status == 422
