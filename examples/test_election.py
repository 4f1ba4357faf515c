"""An election on ZooKeeper: exactly one of several candidates leads, and another one soon where that is cut off.

A candidate is a thread with a ZooKeeper client of its own, connected to one server, as if it ran on that machine. It
leads by kazoo's recipe. What that leaves to its user, and what is tested here, is to stop leading as soon as the
connection is lost: soon somebody else may be leading.

Needs: pip install kazoo. Run it: pytest test_election.py
"""

import threading
import time

import pytest
from kazoo.client import KazooClient, KazooState

SESSION = 4.0  #: seconds until ZooKeeper gives up a client that it does not hear of


class Candidate:
    """One that wants to lead. ``leading`` are the names of all that do."""

    def __init__(self, name: str, host: str, leading: set[str]) -> None:
        self.name, self.leading = name, leading
        self.client = KazooClient(host, timeout=SESSION)
        self._resign, self._over = threading.Event(), threading.Event()
        self.client.add_listener(self._heard)
        self.client.start()
        threading.Thread(target=self._stand, daemon=True).start()

    def _heard(self, state: str) -> None:
        if state != KazooState.CONNECTED:
            self.leading.discard(self.name)
            self._resign.set()

    def _stand(self) -> None:
        while not self._over.is_set():
            try:
                self.client.Election("/election", self.name).run(self._lead)
            except Exception:  # the session ended in the middle: stand again, with a new one
                time.sleep(0.1)

    def _lead(self) -> None:
        self._resign.clear()
        if self.client.connected and not self._over.is_set():
            self.leading.add(self.name)
            self._resign.wait()

    def quit(self) -> None:
        """Leaves in order: its session ends at once."""
        self._over.set()
        self.leading.discard(self.name)
        self._resign.set()
        self.client.stop()
        self.client.close()


@pytest.fixture
def cluster(minicluster):
    return minicluster("zookeeper", size={"kv": 3})


@pytest.fixture
def leading(cluster):
    """Who leads; the test fails if two ever did."""
    found: set[str] = set()
    over, most = threading.Event(), [0]

    def look() -> None:
        while not over.wait(0.005):
            most[0] = max(most[0], len(found))

    watcher = threading.Thread(target=look)
    watcher.start()
    yield found
    over.set()
    watcher.join()
    assert most[0] == 1, "two led at once"


@pytest.fixture
def candidates(cluster, leading):
    """One beside each server, by the server's name."""
    made = {e.node: Candidate(e.node, f"{e.host}:{e.port}", leading) for e in cluster.endpoints()}
    yield made
    for candidate in made.values():
        candidate.quit()


def one_leads(leading: set[str], within: float, but: str = "") -> str:
    """Waits until somebody leads who is not ``but``."""
    end = time.monotonic() + within
    while not (names := set(leading)) or but in names:
        assert time.monotonic() < end, f"nobody else leads after {within:g} s: {names or 'nobody'}"
        time.sleep(0.01)
    (name,) = names
    return name


def test_another_leads_at_once_where_the_leader_quits(candidates, leading):
    first = one_leads(leading, within=10)
    candidates[first].quit()
    assert one_leads(leading, within=2, but=first) != first


def test_another_leads_where_the_leaders_machine_dies(cluster, candidates, leading):
    first = one_leads(leading, within=10)
    cluster.node(first).kill()  # the server that it is connected to; its session ends after its time
    second = one_leads(leading, within=SESSION + 8, but=first)
    cluster.node(first).start()
    time.sleep(2)
    assert leading == {second}, "one that comes back does not take the office away"


def test_the_office_survives_the_loss_of_zookeepers_own_leader(cluster, candidates, leading):
    one_leads(leading, within=10)
    cluster.kill(cluster.status().quorum.leader)
    time.sleep(1)
    one_leads(leading, within=SESSION + 8)
