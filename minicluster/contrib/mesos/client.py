"""A client of the Mesos masters and agents: state, tasks, and the output of tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from minicluster.contrib.mesos.http import Client, HTTPError
from minicluster.errors import MiniclusterError, UsageError, nearest

#: The states in which a task has ended for good. An unreachable one may come back.
_ENDED = frozenset(
    f"TASK_{state}"
    for state in ("FINISHED", "FAILED", "KILLED", "ERROR", "LOST", "DROPPED", "GONE", "GONE_BY_OPERATOR")
)


@dataclass(frozen=True)
class Task:
    """A task, as the leading master reports it."""

    framework: str  #: the framework's name
    id: str
    name: str
    state: str  #: such as TASK_RUNNING
    ports: tuple[int, ...]  #: on its agent's address
    agent: str  #: the agent's ID
    framework_id: str
    executor: str  #: "" if Mesos' own executor runs it
    active: bool  #: it has not ended


@dataclass(frozen=True)
class Mesos:
    """The masters and agents of a cluster."""

    masters: Client
    agents: Mapping[str, str]  #: HOST:PORT as the master knows it -> the agent's published base URL

    def state(self) -> dict[str, Any]:
        """The leading master's state, as Mesos documents ``/master/state``; a follower redirects to the leader."""
        state: dict[str, Any] = self.masters.get("/master/state")
        return state

    def agent_state(self, address: str) -> dict[str, Any]:
        """An agent's state, by its HOST:PORT."""
        state: dict[str, Any] = self._agent(address).get("/state")
        return state

    def tasks(self, *, ended: bool = False) -> list[Task]:
        """The tasks of all frameworks that have not ended; with ``ended``, also those that the master still lists."""
        found = tasks_of(self.state())
        return [task for task in found if ended or task.active]

    def log(self, word: str, file: str = "stdout") -> tuple[Task, Iterator[bytes]]:
        """The task that a word refers to, and the content of a file in its sandbox.

        Args:
            word: a task ID, or a part that occurs in one ID only; tasks that have not ended are preferred.

        Raises:
            UsageError: no task matches, or several do.
            MiniclusterError: its agent no longer exists or has no sandbox of it.
        """
        state = self.state()
        task = _matching(word, tasks_of(state))
        pid = next((str(a["pid"]) for a in state.get("slaves", ()) if a["id"] == task.agent), "")
        address = pid.partition("@")[2]
        if address not in self.agents:
            raise MiniclusterError(
                f"the agent of task {task.id} no longer exists",
                f"The task's output was on agent {task.agent or '(unknown)'}.",
            )
        directory = _sandbox(task, self.agent_state(address))
        return task, self._read(address, f"{directory}/{file}", task)

    def _read(self, address: str, path: str, task: Task) -> Iterator[bytes]:
        try:
            yield from self._agent(address).stream(f"/files/download?path={quote(path, safe='')}")
        except HTTPError as error:
            if error.status != 404:
                raise
            raise MiniclusterError(
                f"task {task.id} has no {path.rpartition('/')[2]}",
                f"The agent at {address} has no {path}: agents delete the sandboxes of tasks that ended some time ago.",
            ) from error

    def _agent(self, address: str) -> Client:
        return Client("Mesos agent", [self.agents[address]], {})


def tasks_of(state: Mapping[str, Any]) -> list[Task]:
    """Every task in a master's state; tasks that have ended come last."""
    found = []
    for key in ("frameworks", "completed_frameworks"):
        for framework in state.get(key, ()):
            for kind in ("tasks", "unreachable_tasks", "completed_tasks"):
                listed = key == "frameworks" and kind != "completed_tasks"
                found += [_task(task, str(framework["name"]), listed) for task in framework.get(kind, ())]
    return sorted(found, key=lambda task: not task.active)


def _task(data: Mapping[str, Any], framework: str, listed: bool) -> Task:
    """A task; ``listed``: among those that have not ended, where it stays until its framework acknowledges its end."""
    return Task(
        framework=framework,
        id=str(data["id"]),
        name=str(data.get("name", "")),
        state=str(data.get("state", "")),
        ports=tuple(_numbers(str(data.get("resources", {}).get("ports", "")))) or tuple(_discovered(data)),
        agent=str(data.get("slave_id", "")),
        framework_id=str(data.get("framework_id", "")),
        executor=str(data.get("executor_id", "")),
        active=listed and str(data.get("state", "")) not in _ENDED,
    )


def _numbers(ranges: str) -> Iterator[int]:
    """The ports in Mesos' notation of ranges: ``[31000-31001, 31005-31005]``."""
    for first, last in re.findall(r"(\d+)-(\d+)", ranges):
        yield from range(int(first), int(last) + 1)


def _discovered(data: Mapping[str, Any]) -> Iterator[int]:
    for port in ((data.get("discovery") or {}).get("ports") or {}).get("ports", ()):
        yield int(port["number"])


def _matching(word: str, tasks: Iterable[Task]) -> Task:
    known = [*tasks]
    exact = [task for task in known if task.id == word]
    found = exact or [task for task in known if word in task.id]
    found = [task for task in found if task.active] or found
    if len({task.id for task in found}) > 1:
        raise UsageError(f"{word!r} matches several tasks", f"They are {', '.join(task.id for task in found)}.")
    if not found:
        raise UsageError(f"no task matches {word!r}", "", nearest(word, {task.id for task in known}, most=5))
    return found[-1]  # the last run under this ID


def _sandbox(task: Task, state: Mapping[str, Any]) -> str:
    """The directory of a task's files, from its agent's state."""
    for key in ("frameworks", "completed_frameworks"):
        for framework in state.get(key, ()):
            if framework["id"] != task.framework_id:
                continue
            for executor in (*framework.get("executors", ()), *framework.get("completed_executors", ())):
                if executor["id"] == (task.executor or task.id):
                    directory = str(executor["directory"])
                    # The default executor runs several tasks, each in a directory of its own.
                    return f"{directory}/tasks/{task.id}" if executor.get("type") == "DEFAULT" else directory
    raise MiniclusterError(
        f"the agent of task {task.id} does not know it", "Agents discard finished tasks after a while."
    )
