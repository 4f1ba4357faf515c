"""Three kv and three masters: if one of them fails, writes continue, and none is lost.

Written by the official Python client through the one address that ``minicluster env`` gives; see checker.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.engine.checker import Checker, store_of, writing
from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kubernetes.kubelife import Kube

NAME = "t-kube-masters"
NODES = {"kv-1", "kv-2", "kv-3", "balancer-1", "master-1", "master-2", "master-3", "agent-1"}
SIZES = ("--size", "kv=3", "--size", "master=3", "--size", "agent=1")


@pytest.fixture(scope="module")
def kube(outer: Shell) -> Iterator[Kube]:
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, *SIZES, "--set", "failover=quick", timeout=900)
        kube = Kube(outer, NAME)
        kube.furnish("agent-1")
        yield kube
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture
def whole(kube: Kube) -> Iterator[Kube]:
    """The cluster; repaired afterwards if a test failed."""
    yield kube
    if kube.status()["phase"] != "ready":
        kube.outer.minicluster("up", "--name", NAME, ok=False, timeout=300)


def write(kube: Kube) -> AbstractContextManager[Checker]:
    return writing(store_of("kubernetes", kube.outer, kube.name))


@contextmanager
def agents_stay_ready(kube: Kube) -> Iterator[None]:
    """Within the block no answer of an API server has an agent that is not Ready."""
    seen: list[dict[str, bool]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(kube.nodes())
            stop.wait(0.2)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert {"agent-1": True} in seen
    assert {"agent-1": False} not in seen


def holder(kube: Kube, component: str) -> str:
    """The master whose controller manager or scheduler leads: its identity begins with the host name."""
    lease = kube.get("lease", "--namespace", "kube-system", component)
    return str(lease["spec"]["holderIdentity"]).split("_")[0] if lease else ""


def measured(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s")


@pytest.mark.long
def test_status_shows_the_quorum(whole: Kube) -> None:
    whole.is_ready()
    text = whole.outer.minicluster("status", NAME).out
    quorum = whole.status()["quorum"]
    assert quorum["leader"] in ("kv-1", "kv-2", "kv-3")
    assert f"quorum: 3 of 3, leader {quorum['leader']}, survives 1 loss\n" in text


@pytest.mark.long
def test_five_of_each(outer: Shell) -> None:
    name = f"{NAME}-five"
    try:
        sizes = ("--size", "kv=5", "--size", "master=5", "--size", "agent=1")
        outer.minicluster("up", "kubernetes", "--name", name, *sizes, timeout=900)
        kube = Kube(outer, name)
        kube.furnish("agent-1")
        outer.minicluster("kill", "master-1", "master-2", "kv-1", "kv-2", "-c", name)
        assert "survives no loss" in outer.minicluster("status", name, ok=False).out
        kube.canary("agent-1", "agent-1", within=120)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_the_balancers_certificate(whole: Kube) -> None:
    """It is valid for the balancer's address and name, and issued by the cluster's authority."""
    trusted = ("curl", "-sS", "--cacert", "/etc/kubernetes/pki/kubelet/ca.pem")
    address = next(n["address"] for n in whole.status()["nodes"] if n["name"] == "balancer-1")
    for host in (address, "balancer-1"):
        asked = whole.outer.docker("exec", f"{NAME}-agent-1", *trusted, f"https://{host}:6443/readyz")
        assert asked.out == "ok"


@pytest.mark.long
@pytest.mark.parametrize("which", ["the leading kv", "another kv"])
def test_a_kv_is_killed(whole: Kube, which: str) -> None:
    leader = whole.status()["quorum"]["leader"]
    node = leader if which == "the leading kv" else next(n for n in ("kv-1", "kv-2", "kv-3") if n != leader)
    with agents_stay_ready(whole), write(whole) as checker:
        whole.verb("kill", node)
        checker.progress()
        whole.outer.minicluster("up", "--name", NAME)
        checker.progress()
    measured(f"{which} killed and repaired, the longest gap between writes", checker.longest_gap)
    whole.is_ready()


@pytest.mark.long
@pytest.mark.parametrize("which", ["the master whose controllers lead", "another master"])
def test_a_master_is_killed(whole: Kube, which: str) -> None:
    leader = eventually(lambda: holder(whole, "kube-controller-manager"), what="a controller manager leads")
    node = leader if which.startswith("the") else next(n for n in ("master-1", "master-2", "master-3") if n != leader)
    with agents_stay_ready(whole), write(whole) as checker:
        whole.verb("kill", node)
        begun = time.monotonic()
        checker.progress()
        assert whole.status()["phase"] == "degraded"
        whole.canary("agent-1", "agent-1")
        measured(f"{which} killed, everything works after", time.monotonic() - begun)
        whole.outer.minicluster("up", "--name", NAME)
        checker.progress()
    measured(f"{which} killed and repaired, the longest gap between writes", checker.longest_gap)
    whole.is_ready()


@pytest.mark.long
def test_a_master_that_hangs_gets_no_requests(whole: Kube) -> None:
    leader = eventually(lambda: holder(whole, "kube-controller-manager"), what="a controller manager leads")
    with agents_stay_ready(whole), write(whole) as checker:
        whole.outer.docker("pause", f"{NAME}-{leader}")
        begun = time.monotonic()
        checker.progress()
        whole.canary("agent-1", "agent-1")
        measured("a master hangs, everything works after", time.monotonic() - begun)
        whole.outer.docker("unpause", f"{NAME}-{leader}")
        checker.progress()
    measured("a master hangs and continues, the longest gap between writes", checker.longest_gap)
    whole.is_ready()


@pytest.mark.long
def test_a_master_that_is_cut_off_is_not_missed(whole: Kube) -> None:
    leader = eventually(lambda: holder(whole, "kube-controller-manager"), what="a controller manager leads")
    with agents_stay_ready(whole), write(whole) as checker:
        said = whole.outer.minicluster("fault", "partition", "--isolate", leader, "-c", NAME)
        assert f"partition {leader} / " in said.out
        begun = time.monotonic()
        checker.progress()
        whole.canary("agent-1", "agent-1")
        measured("a master is cut off, everything works after", time.monotonic() - begun)
        whole.outer.minicluster("heal", "-c", NAME)
        checker.progress()
    measured("a master is cut off and back, the longest gap between writes", checker.longest_gap)
    whole.is_ready()


@pytest.mark.long
def test_without_the_balancer_a_master_is_named(whole: Kube) -> None:
    def nodes() -> list[str]:
        return [e["node"] for e in whole.outer.minicluster("info", NAME, "-o", "json").json["endpoints"]]

    assert nodes()[0] == "balancer-1"
    whole.verb("kill", "balancer-1")
    assert whole.kubectl("get", "nodes", ok=False).code != 0
    assert nodes()[0].startswith("master-")
    again = Kube(whole.outer, NAME)
    assert again.nodes() == {"agent-1": True}
    again.canary("agent-1", "agent-1")
    whole.outer.minicluster("up", "--name", NAME)
    assert nodes()[0] == "balancer-1"
    again = Kube(whole.outer, NAME)
    assert again.nodes() == {"agent-1": True}
    whole.is_ready()


@pytest.mark.long
def test_all_is_stopped_and_started(whole: Kube) -> None:
    with write(whole):
        whole.verb("stop")
        begun = time.monotonic()
        whole.verb("start")
        measured("start", time.monotonic() - begun)
        whole.canary("agent-1", "agent-1")
        measured("start, everything works after", time.monotonic() - begun)
    whole.is_ready()


@pytest.mark.long
def test_all_are_restarted_at_once_by_the_engine(whole: Kube) -> None:
    with write(whole):
        whole.outer.docker("restart", *(f"{NAME}-{node}" for node in sorted(NODES)))
        begun = time.monotonic()
        whole.canary("agent-1", "agent-1", within=120)
        measured("docker restart of all, everything works after", time.monotonic() - begun)
    whole.is_ready()


@pytest.mark.long
def test_one_after_the_other_restarts(whole: Kube) -> None:
    with write(whole) as checker:
        begun = time.monotonic()
        whole.verb("restart", "--rolling", "kv", "master")
        measured("restart --rolling of kv and masters", time.monotonic() - begun)
    measured("restart --rolling, the longest gap between writes", checker.longest_gap)
    assert checker.longest_gap < 10  # writes go on; it was 0.3 s
    whole.is_ready()
