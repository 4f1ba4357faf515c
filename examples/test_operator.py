"""An operator on Kubernetes: it creates a ConfigMap for each Greeting, and repairs it when it is changed.

The tests run a controller against a real API server: custom resources that are validated, watches that report changes,
and owner references by which a ConfigMap is removed together with its Greeting.

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
    """The controller."""

    def __init__(self, api: client.ApiClient) -> None:
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._stopped = threading.Event()
        self._watched = (
            (self.custom.list_namespaced_custom_object, (GROUP, VERSION, "default", PLURAL)),
            (self.core.list_namespaced_config_map, ("default",)),
        )
        self._threads = [threading.Thread(target=self._run, args=watched, daemon=True) for watched in self._watched]
        for thread in self._threads:
            thread.start()

    def _run(self, listing, arguments) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(client.ApiException):  # a watch that is too old starts again
                for _event in watch.Watch().stream(listing, *arguments, timeout_seconds=1):
                    self.reconcile()

    def reconcile(self) -> None:
        """Compares all objects, so missed events do not matter."""
        found = self.custom.list_namespaced_custom_object(GROUP, VERSION, "default", PLURAL)["items"]
        there = {c.metadata.name: c for c in self.core.list_namespaced_config_map("default").items}
        for greeting in found:
            name, text = greeting["metadata"]["name"], f"Hello, {greeting['spec']['name']}!"
            owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Greeting", "name": name}
            owner["uid"] = greeting["metadata"]["uid"]
            wanted = {"metadata": {"name": name, "ownerReferences": [owner]}, "data": {"text": text}}
            with contextlib.suppress(client.ApiException):  # it was changed meanwhile: the watch reports that
                if name not in there:
                    self.core.create_namespaced_config_map("default", wanted)
                elif there[name].data != wanted["data"]:
                    self.core.replace_namespaced_config_map(name, "default", wanted)

    def stop(self) -> None:
        """Returns when its watches have ended."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def api(minicluster):
    cluster = minicluster("kubernetes", size={"agent": 0})  # nothing here needs a pod
    return config.new_client_from_config(cluster.env()["KUBECONFIG"])


@pytest.fixture
def greetings(api):
    """The API of greetings, while the operator runs."""
    client.ApiextensionsV1Api(api).create_custom_resource_definition(DEFINITION)
    custom = client.CustomObjectsApi(api)
    soon(lambda: custom.list_namespaced_custom_object(GROUP, VERSION, "default", PLURAL), "the definition is served")
    operator = Operator(api)
    yield custom
    operator.stop()


def greeting(name: str, whom: str) -> dict[str, object]:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Greeting", "metadata": {"name": name}, "spec": {"name": whom}}


def soon(check, what: str, within: float = 60.0):
    """The result of a check, once it is true and no error."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(client.ApiException):
            if answer := check():
                return answer
        assert time.monotonic() < end, f"not after {within:g} s: {what}"
        time.sleep(0.05)


def text(api: client.ApiClient, name: str) -> str:
    return client.CoreV1Api(api).read_namespaced_config_map(name, "default").data["text"]


def test_a_config_map_is_created_and_updated(api, greetings):
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("first", "world"))
    soon(lambda: text(api, "first") == "Hello, world!", "it is created")
    change = {"spec": {"name": "you"}}
    greetings.patch_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, "first", change)
    soon(lambda: text(api, "first") == "Hello, you!", "it is updated")


def test_a_config_map_that_is_removed_or_changed_is_repaired(api, greetings):
    core = client.CoreV1Api(api)
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("second", "world"))
    soon(lambda: text(api, "second"), "it is created")
    core.delete_namespaced_config_map("second", "default")
    soon(lambda: text(api, "second"), "it is created again")
    core.patch_namespaced_config_map("second", "default", {"data": {"text": "changed"}})
    soon(lambda: text(api, "second") == "Hello, world!", "it is repaired")


def test_a_config_map_is_removed_with_its_greeting(api, greetings):
    greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("third", "world"))
    soon(lambda: text(api, "third"), "it is created")
    greetings.delete_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, "third")
    names = lambda: [c.metadata.name for c in client.CoreV1Api(api).list_namespaced_config_map("default").items]  # noqa: E731
    soon(lambda: "third" not in names(), "the garbage collector removes it")


def test_an_invalid_greeting_is_refused_by_the_api_server(greetings):
    with pytest.raises(client.ApiException) as caught:
        greetings.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, greeting("odd", ""))
    assert caught.value.status == 422
