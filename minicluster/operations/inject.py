"""Faults from Python: each method applies one and returns it, and the end of a ``with`` block heals it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from minicluster.errors import MiniclusterError
from minicluster.model.events import Listener, ignore
from minicluster.operations import faults, heal
from minicluster.plan import faults as planning

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.fault import ActiveFault, Fault
    from minicluster.model.spec import Spec

Words: TypeAlias = str | Sequence[str]  #: nodes, roles, or leader, follower, voter, ROLE-any


class Injected:
    """A fault in force. It is healed by :meth:`heal`, or at the end of a ``with`` block, whatever happens in it."""

    def __init__(self, engine: Engine, spec: Spec, active: ActiveFault) -> None:
        self._engine = engine
        self._spec = spec
        self._active = active
        self.id = active.id  #: its number in the cluster
        self.text = active.fault.text  #: as a command has it
        self.nodes = active.fault.nodes  #: that were chosen
        self.groups = active.fault.groups  #: of a partition

    def __enter__(self) -> Injected:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        try:
            self.heal()
        except MiniclusterError:
            if kind is None:  # the error of the block says more
                raise

    def __repr__(self) -> str:
        return f"<fault {self.id} of {self._spec.cluster}: {self.text}>"

    def heal(self) -> None:
        """Ends the fault; no error where it has ended, whichever fault has its number by then.

        Raises ``MiniclusterError`` where hosts that do not answer may still hold it; the others do not.
        """
        heal.end(self._engine, self._spec, self._active)


class Faults:
    """The faults that can be applied to a cluster. Nothing is asked: a quorum may be lost.

    Nodes are named by words: nodes, roles, or ``leader``, ``follower``, ``voter``, ``ROLE-any``, which are resolved
    once, before anything is done. ``seconds``: after which a fault ends by itself; 0 is never. All raise ``UsageError``
    for values that are not valid, and ``NodeFailed`` where the kernel or the engine cannot.
    """

    def __init__(self, engine: Engine, spec: Callable[[], Spec], listener: Listener = ignore) -> None:
        self._engine = engine
        self._spec = spec
        self._listener = listener

    def _target(self) -> faults.Target:
        return faults.Target(self._engine, self._spec())

    def _apply(self, target: faults.Target, fault: Fault, seconds: float) -> Injected:
        wanted = planning.lasting(fault, seconds)
        return Injected(self._engine, target.spec, faults.apply(self._engine, target.spec, wanted, self._listener))

    def partition(self, *groups: Words, one_way: bool = False, clients: bool = False, seconds: float = 0.0) -> Injected:
        """No packet passes between the groups.

        Args:
            one_way: only packets from the first group to the others are lost.
            clients: the first group is unreachable from outside of the cluster as well.
        """
        target = self._target()
        named = [target.nodes(_words(group)) for group in groups]
        return self._apply(target, planning.partition(named, one_way=one_way, clients=clients), seconds)

    def isolate(
        self, who: str = "leader", *, one_way: bool = False, clients: bool = False, seconds: float = 0.0
    ) -> Injected:
        """A partition of a node, or of a ``minority`` or ``majority`` of the voters, from all other nodes."""
        target = self._target()
        return self._apply(target, faults.isolate(target, who, one_way=one_way, clients=clients), seconds)

    def delay(
        self, nodes: Words, milliseconds: float, *, jitter: float = 0.0, to: Words = (), seconds: float = 0.0
    ) -> Injected:
        """Delays the packets that nodes send, by so many milliseconds; ``to``: only those to these nodes."""
        target = self._target()
        on, only = target.nodes(_words(nodes)), target.nodes(_words(to))
        return self._apply(target, planning.shaped("delay", on, only, delay=milliseconds, jitter=jitter), seconds)

    def loss(self, nodes: Words, percent: float, *, to: Words = (), seconds: float = 0.0) -> Injected:
        """Loses so many percent of the packets that nodes send."""
        target = self._target()
        on, only = target.nodes(_words(nodes)), target.nodes(_words(to))
        return self._apply(target, planning.shaped("loss", on, only, percent=percent), seconds)

    def reorder(
        self, nodes: Words, percent: float, *, delay: float = 10.0, to: Words = (), seconds: float = 0.0
    ) -> Injected:
        """Sends so many percent of the packets at once, and the others so many milliseconds later."""
        target = self._target()
        on, only = target.nodes(_words(nodes)), target.nodes(_words(to))
        return self._apply(target, planning.shaped("reorder", on, only, percent=percent, delay=delay), seconds)

    def rate(self, nodes: Words, bits: int, *, seconds: float = 0.0) -> Injected:
        """Limits what nodes send to so many bits a second."""
        target = self._target()
        on = target.nodes(_words(nodes))
        return self._apply(target, planning.simple("rate", on, f"{bits}bit", rate=bits), seconds)

    def dns(self, nodes: Words, *, seconds: float = 0.0) -> Injected:
        """Lets no name resolve in nodes."""
        target = self._target()
        return self._apply(target, planning.simple("dns", target.nodes(_words(nodes))), seconds)

    def hang(self, nodes: Words, process: str, *, seconds: float = 0.0) -> Injected:
        """Stops the processes of this name in nodes (SIGSTOP)."""
        target = self._target()
        on = target.nodes(_words(nodes))
        return self._apply(target, planning.simple("hang", on, process, process=process), seconds)

    def kill(self, nodes: Words, process: str) -> None:
        """Kills the processes of this name in nodes (SIGKILL), once."""
        target = self._target()
        self._apply(target, planning.simple("kill", target.nodes(_words(nodes)), process, process=process), 0.0)

    def cpu(self, nodes: Words, percent: float, *, seconds: float = 0.0) -> Injected:
        """Limits the processor time of each of the nodes, in percent of one processor."""
        target = self._target()
        on = target.nodes(_words(nodes))
        return self._apply(target, planning.simple("cpu", on, f"{percent:g}%", percent=percent), seconds)

    def memory(self, nodes: Words, size: int, *, seconds: float = 0.0) -> Injected:
        """Limits the memory of each of the nodes, in bytes."""
        target = self._target()
        return self._apply(target, planning.simple("memory", target.nodes(_words(nodes)), size, memory=size), seconds)

    def disk_full(self, nodes: Words, *, seconds: float = 0.0) -> Injected:
        """Fills the file system that has the data of nodes, which ``up`` with ``disk`` gives them."""
        target = self._target()
        return self._apply(target, planning.simple("disk-full", target.nodes(_words(nodes))), seconds)


def _words(words: Words) -> list[str]:
    return [words] if isinstance(words, str) else list(words)
