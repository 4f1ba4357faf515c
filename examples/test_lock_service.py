"""A lock service on etcd that stays correct while etcd loses its leader.

A lock is a key that goes with its holder's lease. What a mocked client could not show is whether it keeps two promises:

- mutual exclusion: at most one holds the lock;
- fencing: who held it before, and does not know yet that it is over, cannot write any more. Each holder has a token
  greater than all before it, etcd's revision, and the storage refuses a token less than one that it has seen.

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
    """Locks in etcd, by whichever of its members answers."""

    def __init__(self, cluster):
        env = cluster.env()
        session = requests.Session()
        session.trust_env = False  # an $REQUESTS_CA_BUNDLE would count more than the cluster's own authority
        session.verify = env["ETCDCTL_CACERT"]
        session.cert = (env["ETCDCTL_CERT"], env["ETCDCTL_KEY"])
        connect = functools.partial(etcd3gw.client, protocol="https", timeout=2, session=session)
        self.members = [connect(host=e.host, port=e.port) for e in cluster.endpoints()]

    def ask(self, request, within=20):
        """The first answer. A member that gives none may have carried the request out all the same."""
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
        """A token, where the lock is had with this lease: now, or by a request whose answer was lost. Else None."""
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
            assert time.monotonic() < end, f"{name} could not be had"
            time.sleep(0.05)
        return token

    def release(self, lease):
        """The key goes with the lease. That the lease is gone is no error: a former answer may have been lost."""

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
            assert not inside, f"{inside} and {name} hold the lock at once"
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
    assert len(storage.writes) == 3 * 5 * 2, "everybody had all of their turns"
    tokens = [token for token, _text in storage.writes]
    assert tokens[::2] == tokens[1::2], "each ended before the next began"


@pytest.mark.minicluster("etcd", size={"kv": 3})
def test_a_holder_that_slept_too_long_is_fenced_off(cluster):
    locks, storage = LockService(cluster), Storage()
    sleeper = locks.acquire("account", locks.lease(seconds=2))  # and then it does not renew its lease
    cluster.kill(cluster.status().quorum.leader)
    successor = locks.acquire("account", locks.lease(seconds=10))
    assert storage.write(successor, "mine now")
    assert not storage.write(sleeper, "still mine, I think")
