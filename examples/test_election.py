"""An election on ZooKeeper: exactly one of several candidates leads, and a new one soon after it is isolated.

A candidate is a thread with its own ZooKeeper client, connected to one server, as if it ran on that machine. It uses
kazoo's Election, which does not stop a leader that loses its connection. The application must do that, since another
candidate may soon lead; this is what the tests check.

Needs: pip install kazoo. Run it: pytest test_election.py
"""

import threading
import time

import pytest
from kazoo.client import KazooClient, KazooState

SESSION = 4.0  #: seconds without a heartbeat after which ZooKeeper ends a client's session


class Candidate:
    """A candidate. ``leading`` has the names of all candidates that lead."""

    def __init__(self, name: str, host: str, leading: set[str]) -> None:
        self.name, self.leading = name, leading
        self.client = KazooClient(host, timeout=SESSION)
        self._resign, self._closed = threading.Event(), threading.Event()
        self.client.add_listener(self._on_state)
        self.client.start()
        threading.Thread(target=self._run, daemon=True).start()

    def _on_state(self, state: str) -> None:
        if state != KazooState.CONNECTED:
            self.leading.discard(self.name)
            self._resign.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self.client.Election("/election", self.name).run(self._lead)
            except Exception:  # the session ended meanwhile: try again with a new one
                time.sleep(0.1)

    def _lead(self) -> None:
        self._resign.clear()
        if self.client.connected and not self._closed.is_set():
            self.leading.add(self.name)
            self._resign.wait()

    def quit(self) -> None:
        """Closes the session, which ends at once."""
        self._closed.set()
        self.leading.discard(self.name)
        self._resign.set()
        self.client.stop()
        self.client.close()


@pytest.fixture
def cluster(minicluster):
    return minicluster("zookeeper", size={"kv": 3})


@pytest.fixture
def leading(cluster):
    """The names of the candidates that lead; the test fails if there are ever two."""
    found: set[str] = set()
    stop, most = threading.Event(), [0]

    def look() -> None:
        while not stop.wait(0.005):
            most[0] = max(most[0], len(found))

    watcher = threading.Thread(target=look)
    watcher.start()
    yield found
    stop.set()
    watcher.join()
    assert most[0] == 1, "two candidates led at the same time"


@pytest.fixture
def candidates(cluster, leading):
    """A candidate for each server, by the server's name."""
    made = {e.node: Candidate(e.node, f"{e.host}:{e.port}", leading) for e in cluster.endpoints()}
    yield made
    for candidate in made.values():
        candidate.quit()


def one_leads(leading: set[str], within: float, but: str = "") -> str:
    """Waits until a candidate other than ``but`` leads."""
    end = time.monotonic() + within
    while not (names := set(leading)) or but in names:
        assert time.monotonic() < end, f"no other leader after {within:g} s: {names or 'none'}"
        time.sleep(0.01)
    (name,) = names
    return name


def test_another_leads_at_once_after_the_leader_quits(candidates, leading):
    first = one_leads(leading, within=10)
    candidates[first].quit()
    assert one_leads(leading, within=2, but=first) != first


def test_another_leads_after_the_leaders_machine_dies(cluster, candidates, leading):
    first = one_leads(leading, within=10)
    cluster.node(first).kill()  # the server that it is connected to; its session times out
    second = one_leads(leading, within=SESSION + 8, but=first)
    cluster.node(first).start()
    time.sleep(2)
    assert leading == {second}, "a candidate that comes back does not replace the leader"


def test_the_election_survives_the_loss_of_zookeepers_own_leader(cluster, candidates, leading):
    one_leads(leading, within=10)
    cluster.kill(cluster.status().quorum.leader)
    time.sleep(1)
    one_leads(leading, within=SESSION + 8)
