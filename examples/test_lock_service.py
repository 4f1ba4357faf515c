"""A lock service on etcd that stays correct while etcd loses its leader.

A lock is a key that is removed with its holder's lease. Two properties need a real cluster to be tested:

- mutual exclusion: at most one client holds the lock;
- fencing: a former holder, which does not know yet that its lease has expired, cannot write any more. Each holder has
  a token greater than all before it, etcd's revision; the storage refuses a token less than one that it has seen.

Needs: pip install etcd3gw. Run it: pytest test_lock_service.py
"""

import base64
import functools
import time
from concurrent.futures import ThreadPoolExecutor

import etcd3gw
import pytest
import requests
from etcd3gw.exceptions import Etcd3Exception


class LockService:
    """Locks in etcd, through the first member that answers."""

    def __init__(self, cluster):
        env = cluster.env()
        session = requests.Session()
        session.trust_env = False  # $REQUESTS_CA_BUNDLE would take precedence over the cluster's own authority
        session.verify = env["ETCDCTL_CACERT"]
        session.cert = (env["ETCDCTL_CERT"], env["ETCDCTL_KEY"])
        connect = functools.partial(etcd3gw.client, protocol="https", timeout=2, session=session)
        self.members = [connect(host=e.host, port=e.port) for e in cluster.endpoints()]

    def ask(self, request, within=20):
        """The first answer. A member that does not answer may still have executed the request."""
        end = time.monotonic() + within
        while True:
            for member in self.members:
                try:
                    return request(member)
                except (Etcd3Exception, requests.RequestException):
                    if time.monotonic() > end:
                        raise
            time.sleep(0.05)

    def lease(self, seconds):
        return self.ask(lambda etcd: etcd.lease(ttl=seconds))

    def try_acquire(self, name, lease):
        """A token if this lease holds the lock, also by an earlier request whose answer was lost. Else None."""
        key = base64.b64encode(name.encode()).decode()
        txn = {
            "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": 0}],
            "success": [{"request_put": {"key": key, "value": "", "lease": lease.id}}],
            "failure": [{"request_range": {"key": key}}],
        }
        answer = self.ask(lambda etcd: etcd.transaction(txn))
        if answer.get("succeeded"):
            return int(answer["header"]["revision"])
        (holder,) = answer["responses"][0]["response_range"]["kvs"]
        return int(holder["create_revision"]) if int(holder["lease"]) == lease.id else None

    def acquire(self, name, lease, within=30):
        end = time.monotonic() + within
        while (token := self.try_acquire(name, lease)) is None:
            assert time.monotonic() < end, f"{name} was not acquired after {within} s"
            time.sleep(0.05)
        return token

    def release(self, lease):
        """Removes the lease, and with it the key. A missing lease is no error: an earlier answer may have been lost."""

        def revoke(etcd):
            answer = etcd.session.post(etcd.get_url("/kv/lease/revoke"), json={"ID": lease.id}, timeout=2)
            if not (answer.ok or "lease not found" in answer.text):
                raise Etcd3Exception(answer.text)

        self.ask(revoke)


class Storage:
    """What the lock protects."""

    def __init__(self):
        self.writes = []

    def write(self, token, text):
        fresh = not self.writes or token >= self.writes[-1][0]
        self.writes += [(token, text)] * fresh
        return fresh


@pytest.mark.minicluster("etcd", size={"kv": 3})
def test_one_at_a_time_while_the_leader_dies(cluster):
    storage, inside = Storage(), []

    def work(name, locks):
        for turn in range(5):
            lease = locks.lease(seconds=10)
            token = locks.acquire("account", lease)
            assert not inside, f"{inside} and {name} hold the lock at the same time"
            inside.append(name)
            assert storage.write(token, f"{name} begins {turn}")
            time.sleep(0.05)
            assert storage.write(token, f"{name} ends {turn}")
            inside.remove(name)
            locks.release(lease)

    with ThreadPoolExecutor() as pool:
        workers = [pool.submit(work, name, LockService(cluster)) for name in ("ann", "bob", "cem")]
        while len(storage.writes) < 8 and not any(worker.done() for worker in workers):
            time.sleep(0.02)
        cluster.kill(cluster.status().quorum.leader)
        for worker in workers:
            worker.result(timeout=40)
    assert len(storage.writes) == 3 * 5 * 2, "every worker had all its turns"
    tokens = [token for token, _text in storage.writes]
    assert tokens[::2] == tokens[1::2], "each turn ended before the next one began"


@pytest.mark.minicluster("etcd", size={"kv": 3})
def test_a_holder_that_slept_too_long_is_fenced_off(cluster):
    locks, storage = LockService(cluster), Storage()
    sleeper = locks.acquire("account", locks.lease(seconds=2))  # which it does not renew
    cluster.kill(cluster.status().quorum.leader)
    successor = locks.acquire("account", locks.lease(seconds=10))
    assert storage.write(successor, "mine now")
    assert not storage.write(sleeper, "still mine, I think")


@pytest.mark.minicluster("etcd", size={"kv": 3})
def test_a_holder_cut_off_with_the_leader_loses_the_lock_safely(cluster):
    """The holder talks to the leader only, which is cut off from the others: it cannot renew its lease, nor write."""
    leader = cluster.leader()
    cut_off, rest, storage = LockService(cluster), LockService(cluster), Storage()
    urls = {endpoint.port: endpoint.node for endpoint in cluster.endpoints()}
    cut_off.members = [m for m in cut_off.members if urls[m.port] == leader]
    rest.members = [m for m in rest.members if urls[m.port] != leader]
    held = cut_off.acquire("account", cut_off.lease(seconds=3))
    assert storage.write(held, "mine")
    with cluster.fault.isolate(leader):
        successor = rest.acquire("account", rest.lease(seconds=30))  # once the majority let the lease expire
        assert storage.write(successor, "mine now")
        with pytest.raises((Etcd3Exception, requests.RequestException)):
            cut_off.ask(lambda etcd: etcd.lease(ttl=3), within=1)
        assert not storage.write(held, "still mine, I think")
    assert rest.try_acquire("account", cut_off.lease(seconds=10)) is None
