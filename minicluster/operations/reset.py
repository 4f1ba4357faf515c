"""A running cluster made as new: what users put into it goes, by the hooks of its profile; the cluster itself stays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel
from minicluster.errors import NodeFailed, NotReady, UsageError
from minicluster.leases import lock
from minicluster.model.events import Event, Listener
from minicluster.model.results import Change
from minicluster.model.spec import HookSpec, Spec
from minicluster.operations.observe import members

if TYPE_CHECKING:
    from minicluster.engine.protocol import Container, Engine


@dataclass
class _Reset:
    """One reset under way."""

    engine: Engine
    spec: Spec
    containers: Mapping[str, Container]  #: by node
    timeout: float
    listener: Listener
    deadline: float  #: on the monotonic clock
    cancel: Cancel = field(default_factory=Cancel)


def reset(engine: Engine, spec: Spec, *, timeout: float, listener: Listener) -> Change:
    """Runs a profile's reset hooks, one after the other.

    Raises:
        UsageError: the profile has none.
        NodeFailed: a command failed on every node that it could have run on, or a node that it needs does not run.
        NotReady: it took longer than ``timeout`` seconds.
    """
    from minicluster.plan.observed import observe

    begun, commands = time.monotonic(), 0
    with lock.changing(spec.cluster):
        observed = observe(spec.cluster, engine.containers(spec.cluster), [], engine.volumes(spec.cluster))
        spec = observed.spec or spec  # another process may have changed the cluster since it was opened
        if not spec.reset:
            raise UsageError(
                f"cluster {spec.cluster} cannot be reset",
                f"Its profile, {spec.profile}, does not say how: it has no reset hook.",
                f"`minicluster down {spec.cluster}` and `minicluster up` make it anew. docs/profiles.md: hooks.",
            )
        run = _Reset(engine, spec, observed.containers, timeout, listener, begun + timeout)
        everywhere = _everywhere(run) if any(hook.on == "node" for hook in spec.reset) else []
        listener(Event("plan", text=f"reset cluster {spec.cluster}", nodes=tuple(everywhere)))
        try:
            for hook in spec.reset:
                if hook.on == "node":
                    _on_all(run, hook, everywhere)
                else:
                    _on_one(run, hook)
                commands += len(everywhere) if hook.on == "node" else 1
        except BaseException:
            run.cancel.set()
            raise
        seconds = time.monotonic() - begun
        for name in everywhere:
            listener(Event("done", name, "reset", seconds=seconds))
    return Change(spec.cluster, True, commands, seconds, {"run-hook": commands})


def _everywhere(run: _Reset) -> list[str]:
    """Every node; what is in one that does not run could not be removed, and would come back with it."""
    found = run.containers
    idle = [n.name for n in run.spec.nodes if n.name not in found or found[n.name].state != "running"]
    if idle:
        raise NodeFailed(
            f"cluster {run.spec.cluster} cannot be reset",
            f"{', '.join(idle)} {'does' if len(idle) == 1 else 'do'} not run, and what is in there would stay.",
            f"`minicluster up --name {run.spec.cluster}` starts what is down.",
        )
    return [n.name for n in run.spec.nodes]


def _on_all(run: _Reset, hook: HookSpec, names: Sequence[str]) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        try:
            for name in names:
                run.listener(Event("start", name, "resetting", f"{hook.run[0]} on {name}"))
            for future in [pool.submit(_run, run, hook, name) for name in names]:
                future.result()
        except BaseException:
            run.cancel.set()  # before the pool waits for the others
            raise


def _on_one(run: _Reset, hook: HookSpec) -> None:
    """Runs a hook on a node of its role.

    Who works and who leads is asked only once the hook has failed: the answer takes longer than most hooks do, and
    where all is well any node will do.
    """
    found = run.containers
    able = [n.name for n in run.spec.of_role(hook.on) if n.name in found and found[n.name].state == "running"]
    if not able:
        raise NodeFailed(
            f"cluster {run.spec.cluster} cannot be reset",
            f"No node of role {hook.on} runs.",
            f"`minicluster up --name {run.spec.cluster}` starts what is down.",
        )
    run.listener(Event("start", "", "resetting", f"{hook.run[0]} on {able[0]}"))
    try:
        _run(run, hook, able[0])
    except NodeFailed as error:
        failed = error
        for name in _by_rank(run, able[1:]):
            run.listener(Event("progress", "", "resetting", f"{hook.run[0]} on {name}"))
            try:
                _run(run, hook, name)
            except NodeFailed as another:
                failed = another
                continue
            break
        else:
            raise failed from None
    run.listener(Event("done", "", "resetting"))


def _by_rank(run: _Reset, names: Sequence[str]) -> list[str]:
    """Those of the nodes that the cluster counts as ready, the leader first; all where it does not say."""
    if not names:
        return []
    patience = max(0.2, run.deadline - time.monotonic())
    found, _why = members(run.engine, run.spec, run.containers, timeout=min(10.0, patience))
    if found is None:
        return [*names]
    ready = [name for name in names if name in found and found[name].ready]
    return sorted(ready, key=lambda name: not found[name].leader)


def _run(run: _Reset, hook: HookSpec, name: str) -> None:
    container, shown = run.containers[name].name, " ".join(hook.run)
    try:
        patience = max(0.2, run.deadline - time.monotonic())
        result = run.engine.exec(container, hook.run, timeout=patience, cancel=run.cancel)
    except TimeoutError:
        raise NotReady(
            f"cluster {run.spec.cluster} was not reset within {run.timeout:g} s",
            f"`{shown}` in {name} did not end in time.",
            "Give it longer with --timeout, or look at `minicluster status`. A reset may always be done again.",
        ) from None
    if result.exit_code != 0:
        raise NodeFailed(
            f"`{shown}` failed in {name} with status {result.exit_code}",
            (result.stderr or result.stdout).strip(),
            "Mend what it says, or look at `minicluster status`. A reset may always be done again.",
        )
