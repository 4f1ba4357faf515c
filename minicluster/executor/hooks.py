"""Runs hooks: commands of a profile in nodes. What one prints can be captured, for the commands of later hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicluster.errors import NodeFailed, NotFound, NotReady
from minicluster.executor.waiting import ask_any, log_tail, longer
from minicluster.model.deferred import fill
from minicluster.model.events import Event
from minicluster.model.naming import container_name, count
from minicluster.model.redact import readable_words

if TYPE_CHECKING:
    from minicluster.executor.run import Run
    from minicluster.plan.steps import Fallback, RunHook, Step

_LEAVE_PATIENCE = 60.0  # seconds that a best-effort hook has when nodes leave: moving work away takes its time
_MEMBERS_PATIENCE = 10.0  # seconds that members have to report which of them are ready


def run_hook(step: Step, action: RunHook, run: Run) -> None:
    """Runs a hook, on other nodes if it has a fallback and fails; keeps the lines that it captures."""
    try:
        lines = _run_in(action.container, action, run)
    except (NodeFailed, NotFound) as error:
        if action.fallback:
            lines = _fall_back(step, action, action.fallback, run, error)
        elif action.best_effort:  # the node may no longer exist, if an interrupted change is resumed
            run.listener(Event("note", step.node, text=f"{step.node}: {error.what}; continuing"))
            return
        else:
            raise
    except NotReady as error:
        if not action.best_effort:
            raise
        run.listener(Event("note", step.node, text=f"{step.node}: {error.what}; continuing"))
        return
    if len(lines) < len(action.capture):
        raise NodeFailed(
            f"`{' '.join(readable_words(action.command))}` in {action.container} printed {count(len(lines), 'line')}, "
            f"expected {len(action.capture)} ({', '.join(action.capture)})",
            "The profile captures each of them for later hooks.",
            "Run the command in the node, or correct `capture` in the profile.",
        )
    for name, line in zip(action.capture, lines, strict=False):
        run.captured[f"captured.{name}"] = line.strip()


def _run_in(container: str, action: RunHook, run: Run) -> list[str]:
    """Runs a hook's command in a node; the lines that it printed."""
    argv, shown = fill(action.command, run.captured), " ".join(readable_words(action.command))
    patience = min(_LEAVE_PATIENCE, run.timeout) if action.best_effort else run.remaining()
    try:
        result = run.engine.exec(container, argv, timeout=patience, cancel=run.cancel)
    except TimeoutError:
        raise NotReady(
            f"`{shown}` in {container} timed out",
            f"The end of its log:\n{log_tail(run.engine, container)}",
            longer(run),
        ) from None
    if result.exit_code != 0:
        raise NodeFailed(
            f"`{shown}` failed in {container} with status {result.exit_code}",
            _masked((result.stderr or ("" if action.capture else result.stdout)).strip(), run),
            "Run it again with --keep to inspect what is left.",
        )
    return result.stdout.splitlines()


def _masked(text: str, run: Run) -> str:
    """What hooks captured are secrets, and commands often repeat their arguments in errors."""
    for value in filter(None, run.captured.values()):
        text = text.replace(value, "***")
    return text


def _fall_back(step: Step, action: RunHook, fallback: Fallback, run: Run, failed: NodeFailed | NotFound) -> list[str]:
    """Runs a failed hook on other nodes; see :class:`Fallback`.

    The members are asked only now: their answer takes longer than most hooks, and normally any node will do.
    """
    names = [*fallback.nodes]
    patience = min(_MEMBERS_PATIENCE, run.remaining() or _MEMBERS_PATIENCE)
    members, _why = ask_any(run.engine, fallback.asked, fallback.command, timeout=patience, cancel=run.cancel)
    if members is not None:
        healthy = [name for name in names if name in members and members[name].ready]
        names = sorted(healthy, key=lambda name: not members[name].leader)
    for name in names:
        run.listener(Event("progress", step.node, action.phase, f"{action.command[0]} on {name}"))
        try:
            return _run_in(container_name(run.cluster, name), action, run)
        except (NodeFailed, NotFound) as error:
            failed = error
    raise failed
