"""A container engine in memory, and systems whose nodes run on it."""

from minicluster.engine.protocol import ExecResult
from tests.fakes.box import Box
from tests.fakes.engine import OK, FakeEngine, Hang
from tests.fakes.etcd import FakeEtcd
from tests.fakes.swarm import FakeSwarm

__all__ = ["OK", "Box", "ExecResult", "FakeEngine", "FakeEtcd", "FakeSwarm", "Hang"]
