"""What tests of addresses share: clusters and clients, on this machine, in containers of its engine, and elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import Shell, etcd_called, eventually

ROOT = Path(__file__).parents[2]
NAME = "t-addr"
OTHER = "t-addr-other"
FIRST, LAST = "t-addr-a", "t-addr-z"  #: networks that sort before and after the cluster's: engines sort them by name


@contextmanager
def cluster(engine: Engine, name: str = NAME, **options: Any) -> Iterator[Cluster]:
    """One member of etcd for the block."""
    with Cluster.up("etcd", name=name, size={"kv": 1}, engine=engine, **options) as made:
        yield made


@contextmanager
def networks(outer: Shell, *names: str) -> Iterator[None]:
    try:
        for name in names:
            outer.docker("network", "create", name)
        yield
    finally:
        for name in names:
            outer.docker("network", "rm", name)


@contextmanager
def guest(outer: Shell, image: str, network: str, *options: str, name: str = "t-addr-x") -> Iterator[str]:
    """A container that is not the cluster's, on a network."""
    try:
        outer.docker("run", "-d", "--name", name, "--network", network, *options, image, "sleep", "600")
        yield name
    finally:
        outer.docker("rm", "-f", "-v", name, ok=False)


def addresses_of(engine: Engine, container: str, *names: str) -> list[set[str]]:
    """For each name the addresses that a container gets for it."""
    found = [engine.exec(container, ["getent", "ahostsv4", name]).stdout for name in names]
    return [{line.split()[0] for line in answer.splitlines()} for answer in found]


def address_in(outer: Shell, network: str, container: str) -> str:
    return facts(outer, container, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')


def facts(outer: Shell, container: str, template: str) -> str:
    return outer.docker("inspect", container, "--format", template).out.strip()


def healthy(engine: Engine, name: str = NAME, mode: str = "auto") -> list[str]:
    """The endpoints as returned on this machine; etcd's client has reached each, with certificates verified."""
    opened = Cluster.open(name, engine=engine, address_mode=mode)
    opened.connect()
    opened.write_client_files()
    return served(Shell(), opened.env())


def far_healthy(shell: Shell, name: str = NAME) -> list[str]:
    """The same, as returned by a minicluster elsewhere."""
    return served(shell, shell.minicluster("env", name, "-o", "json").json)


def served(shell: Shell, env: dict[str, str]) -> list[str]:
    client = replace(shell, env={**shell.env, **env})
    eventually(lambda: client.run("etcdctl", "endpoint", "health", ok=False).code == 0, within=20)
    return list(env["ETCDCTL_ENDPOINTS"].split(","))


#: Tests of an application, which use the stock client at the address that the plugin returns.
TESTS = """
import os, subprocess, time
from minicluster.host.processes import Process
from minicluster.model.lease import Lease

def etcdctl(cluster, *words):
    env = os.environ | cluster.env()
    return subprocess.run(["etcdctl", *words], env=env, capture_output=True, text=True, check=True).stdout

def test_the_application(minicluster):
    cluster = minicluster(os.environ["PROFILE"], size={"kv": 1})
    print("it is at", cluster.endpoint("client").url)
    assert etcdctl(cluster, "put", "greeting", "hello") == "OK\\n"
    assert etcdctl(cluster, "get", "greeting", "--print-value-only") == "hello\\n"

def test_finds_it_empty(minicluster):
    cluster = minicluster(os.environ["PROFILE"], size={"kv": 1})
    assert etcdctl(cluster, "get", "greeting") == ""
    if "LOST" in os.environ:
        # As if the last renewal, for ten minutes, were nearly ten minutes ago.
        until = time.time() + float(os.environ["LOST"])
        cluster.renew(Lease(Process.this(), until))
        print("the lease of", cluster.name, "is over at", until, flush=True)
        time.sleep(600)
"""


def plugin_tests(outer: Shell, profile: Path) -> dict[str, str]:
    """Writes TESTS and a profile for them; returns variables with their paths."""
    etcd_called(outer, profile)
    file = profile.with_name("test_it.py")
    file.write_text(TESTS)
    return {"PROFILE": str(profile), "TESTS": str(file)}


def pytest_words(tests: dict[str, str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-s", tests["TESTS"]]


def found_at(output: str) -> str:
    """The host in the URL that the tests got. All of them have passed, on one cluster."""
    assert "2 passed" in output, output
    assert re.search(r"s on clusters: 1 created in .* 1 reset in .* 1 removed", output), output
    found = re.search(r"it is at https://([\d.]+):\d+$", output, re.MULTILINE)
    assert found
    return found[1]
