"""Writes numbered keys all along while a cluster is treated badly: every acknowledged one must be there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.engine.conftest import Shell, eventually

_PATIENCE = 3.0  # seconds that one attempt has


class Store(Protocol):
    """A key-value store, reached through a stock client library. Any call may fail with any exception."""

    def put(self, key: str) -> None:
        """Returns once the store has acknowledged the key."""

    def keys(self) -> set[str]:
        """Every key, by a read that a majority vouches for."""

    def close(self) -> None: ...


class Etcd:
    """etcd3gw, over every published endpoint in turn: one that fails is left for the next."""

    def __init__(self, env: dict[str, str]) -> None:
        from etcd3gw.client import Etcd3Client

        def client(url: str) -> Any:
            at = urlsplit(url)
            tls = {
                "ca_cert": env.get("ETCDCTL_CACERT"),
                "cert_cert": env.get("ETCDCTL_CERT"),
                "cert_key": env.get("ETCDCTL_KEY"),
            }
            given = {name: path for name, path in tls.items() if path}
            made = Etcd3Client(at.hostname, at.port, at.scheme, timeout=_PATIENCE, api_path="/v3/", **given)
            made.session.trust_env = False  # requests would let REQUESTS_CA_BUNDLE win over the cluster's own authority
            return made

        self._clients = [client(url) for url in env["ETCDCTL_ENDPOINTS"].split(",")]
        self._at = 0

    def _try(self, call: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._clients[self._at], call)(*args, **options)
        except Exception:
            self._at = (self._at + 1) % len(self._clients)
            raise

    def put(self, key: str) -> None:
        assert self._try("put", f"check/{key}", "x")

    def keys(self) -> set[str]:
        found = self._try("get_prefix", "check/")
        return {metadata["key"].decode().removeprefix("check/") for _value, metadata in found}

    def close(self) -> None:
        for client in self._clients:
            client.session.close()


class ZooKeeper:
    """kazoo, which finds a server that serves by itself."""

    def __init__(self, env: dict[str, str]) -> None:
        from kazoo.client import KazooClient
        from kazoo.retry import KazooRetry

        logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # it tells of every connection that breaks, as many will
        forever = KazooRetry(max_tries=-1, delay=0.05, backoff=1, max_delay=0.2)
        self._client = KazooClient(env["ZOOKEEPER_HOSTS"], timeout=_PATIENCE, connection_retry=forever)
        self._client.start(timeout=30)
        self._client.ensure_path("/check")

    def put(self, key: str) -> None:
        from kazoo.exceptions import NodeExistsError

        with contextlib.suppress(NodeExistsError):  # an attempt before was carried out, and its answer lost
            self._client.create_async(f"/check/{key}").get(timeout=_PATIENCE)

    def keys(self) -> set[str]:
        self._client.sync("/check")
        return set(self._client.get_children("/check"))

    def close(self) -> None:
        self._client.stop()
        self._client.close()


class Consul:
    """py-consul, over every published server in turn."""

    def __init__(self, env: dict[str, str], urls: list[str]) -> None:
        import consul

        token = env.get("CONSUL_HTTP_TOKEN")
        self._clients = [
            consul.Consul(at.hostname, at.port, token=token, scheme=at.scheme, connections_timeout=_PATIENCE)
            for at in map(urlsplit, urls)
        ]
        self._at = 0

    def _try(self, call: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._clients[self._at].kv, call)(*args, **options)
        except Exception:
            self._at = (self._at + 1) % len(self._clients)
            raise

    def put(self, key: str) -> None:
        assert self._try("put", f"check/{key}", "x")

    def keys(self) -> set[str]:
        _index, found = self._try("get", "check/", keys=True, consistency="consistent")
        return {key.removeprefix("check/") for key in found or ()}

    def close(self) -> None:
        for client in self._clients:
            client.http.session.close()


class ConfigMaps:
    """The official client of Kubernetes, at the one address that its kubeconfig has."""

    def __init__(self, env: dict[str, str]) -> None:
        from kubernetes import client, config

        logging.getLogger("urllib3.connectionpool").setLevel(logging.CRITICAL)
        self._client: Any = config.new_client_from_config(env["KUBECONFIG"])
        self._api: Any = client.CoreV1Api(self._client)

    def put(self, key: str) -> None:
        from kubernetes.client.exceptions import ApiException

        made = {"metadata": {"name": f"check-{key}", "labels": {"check": "yes"}}}
        try:
            self._api.create_namespaced_config_map("default", made, _request_timeout=_PATIENCE)
        except ApiException as error:
            if error.status != 409:  # an attempt before was carried out, and its answer lost
                raise

    def keys(self) -> set[str]:
        found = self._api.list_namespaced_config_map("default", label_selector="check=yes", _request_timeout=_PATIENCE)
        return {made.metadata.name.removeprefix("check-") for made in found.items}

    def close(self) -> None:
        self._api.delete_collection_namespaced_config_map("default", label_selector="check=yes")
        self._client.close()


def store_of(profile: str, shell: Shell, name: str) -> Store:
    """The client of a cluster, set up with what minicluster says of it."""
    env = shell.minicluster("env", name, "-o", "json").json
    if profile == "etcd":
        return Etcd(env)
    if profile == "zookeeper":
        return ZooKeeper(env)
    if profile == "kubernetes":
        return ConfigMaps(env)
    endpoints = shell.minicluster("info", name, "-o", "json").json["endpoints"]
    return Consul(env, [e["url"] for e in endpoints if e["name"] == "http" and e["node"].startswith("master-")])


class Checker:
    """Writes keys 1, 2, 3, … one after the other, each again and again until it is acknowledged, in a thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged: list[int] = []
        self.longest_gap = 0.0  #: seconds between one acknowledgement and the next, at most
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        last = time.monotonic()
        for number in itertools.count(1):
            while True:
                if self._stop.is_set():
                    return
                try:
                    self.store.put(str(number))
                    break
                except Exception as error:  # whatever a client raises while its cluster is hurt
                    self.errors.append(f"{number}: {type(error).__name__}: {error}")
                    self._stop.wait(0.02)
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now
            self.acknowledged.append(number)
            self._stop.wait(0.002)

    def progress(self, more: int = 20, within: float = 60.0) -> None:
        """Waits until so many further writes are acknowledged: the cluster works."""
        wanted = len(self.acknowledged) + more
        end = time.monotonic() + within
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < end, f"no {more} more writes within {within:g} s; the last: {self.errors[-3:]}"
            time.sleep(0.05)

    def verify(self) -> None:
        """Every acknowledged key is there."""

        def read() -> set[str]:
            with contextlib.suppress(Exception):
                return self.store.keys()
            return set()

        there = eventually(read, what="a read of all keys")
        lost = sorted({str(number) for number in self.acknowledged} - there, key=int)
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged writes are lost: {lost[:10]}"


@contextlib.contextmanager
def writing(store: Store) -> Iterator[Checker]:
    """Writes within the block, and verifies at its end."""
    checker = Checker(store)
    checker._thread.start()
    try:
        checker.progress()
        yield checker
        checker.progress()
    finally:
        checker._stop.set()
        checker._thread.join(30)
    try:
        checker.verify()
    finally:
        store.close()
