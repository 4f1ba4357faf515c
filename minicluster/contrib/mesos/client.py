"""A client of the Mesos masters and agents: state, tasks, and the output of tasks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from minicluster.contrib.mesos.http import Client, HTTPError
from minicluster.errors import MiniclusterError, NotReady, UsageError, nearest

_PERIOD = 0.5  # seconds between two requests for what has been added to a file

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
    node: str = ""  #: the node of its agent; "" where that is gone


@dataclass(frozen=True)
class Mesos:
    """The masters and agents of a cluster."""

    masters: Client
    agents: Mapping[str, str]  #: HOST:PORT as the master knows it -> the agent's published base URL
    nodes: Mapping[str, str] = field(default_factory=dict)  #: HOST:PORT as the master knows it -> the agent's node

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
        state = self.state()
        nodes = {id: self.nodes.get(address, "") for id, address in _addresses(state).items()}
        found = [replace(task, node=nodes.get(task.agent, "")) for task in tasks_of(state)]
        return [task for task in found if ended or task.active]

    def drain(self, address: str, *, grace_period: float | None = None) -> None:
        """Asks the agent at HOST:PORT to end its tasks; its master offers it no more. Frameworks start them elsewhere.

        Args:
            grace_period: seconds that a task has to end at the most; None: as its framework wants.

        Raises:
            UsageError: this Mesos cannot drain agents.
        """
        limit = {} if grace_period is None else {"max_grace_period": {"nanoseconds": round(grace_period * 1e9)}}
        self._about_agent("DRAIN_AGENT", address, **limit)

    def wait_drained(
        self,
        address: str,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until all tasks of an agent that drains have ended.

        Raises:
            NotReady: some have not after ``timeout`` seconds.
        """
        deadline = clock() + timeout
        while True:
            state = self.state()
            agent = next((id for id, place in _addresses(state).items() if place == address), "")
            left = [task.id for task in tasks_of(state) if task.active and task.agent == agent]
            if not left:
                return
            if clock() >= deadline:
                raise NotReady(
                    f"the agent is not drained after {timeout:g} s",
                    f"Tasks that have not ended: {', '.join(left)}.",
                    "It continues. --grace-period limits the time that a task has.",
                )
            sleep(_PERIOD)

    def reactivate(self, address: str) -> None:
        """Makes the agent at HOST:PORT, which was drained, take tasks again.

        Raises:
            UsageError: this Mesos cannot drain agents.
        """
        self._about_agent("REACTIVATE_AGENT", address)

    def _about_agent(self, call: str, address: str, **more: Any) -> None:
        version = str(self.masters.get("/version")["version"])
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (1, 9):
            raise UsageError("Mesos cannot drain agents before version 1.9", f"The masters run {version}.")
        agent = next((id for id, place in _addresses(self.state()).items() if place == address), "")
        if not agent:
            raise MiniclusterError(
                f"the agent at {address} is not registered",
                "",
                f"Wait until it is: `minicluster status {self.masters.cluster}`.",
            )
        body = {"type": call, call.lower(): {"agent_id": {"value": agent}, **more}}
        self.masters.call("POST", "/api/v1", body)

    def log(self, word: str, file: str = "stdout") -> tuple[Task, Iterator[bytes]]:
        """The task that a word refers to, and the content of a file in its sandbox.

        Args:
            word: a task ID, or a part that occurs in one ID only; tasks that have not ended are preferred.
            file: a path in the sandbox.

        Raises:
            UsageError: no task matches, or several do.
            MiniclusterError: its agent no longer exists or has no sandbox of it, or the sandbox has no such file.
        """
        task, address, directory = self._sandbox(word)
        return task, self._read(task, address, directory, file)

    def follow(
        self, word: str, file: str = "stdout", *, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[bytes]:
        """The content of a file in a task's sandbox, and what is added to it until the task has ended.

        Arguments and errors are those of :meth:`log`.
        """
        task, address, directory = self._sandbox(word)
        offset = 0
        for chunk in self._read(task, address, directory, file):
            offset += len(chunk)
            yield chunk
        ended = not task.active
        while True:
            # Read once more after the task has ended: it may have written until then.
            if self._size(task, address, directory, file) > offset:
                known = offset  # a download has all of the file; a read only of what is text
                for chunk in self._read(task, address, directory, file):
                    new, known = chunk[known:], max(0, known - len(chunk))
                    offset += len(new)
                    yield new
            if ended:
                return
            sleep(_PERIOD)
            ended = not any(t.id == task.id and t.active for t in tasks_of(self.state()))

    def _sandbox(self, word: str) -> tuple[Task, str, str]:
        """A task, its agent's HOST:PORT, and the directory of its files there."""
        state = self.state()
        task = _matching(word, tasks_of(state))
        address = _addresses(state).get(task.agent, "")
        if address not in self.agents:
            raise MiniclusterError(
                f"the agent of task {task.id} no longer exists",
                f"The task's output was on agent {task.agent or '(unknown)'}.",
            )
        return task, address, _sandbox(task, self.agent_state(address))

    def _read(self, task: Task, address: str, directory: str, file: str) -> Iterator[bytes]:
        try:
            yield from self._agent(address).stream(f"/files/download?path={quote(f'{directory}/{file}', safe='')}")
        except HTTPError as error:
            raise self._no_file(error, task, address, directory, file) from error

    def _size(self, task: Task, address: str, directory: str, file: str) -> int:
        """The bytes that a file has now."""
        try:
            answer = self._agent(address).get(f"/files/read?path={quote(f'{directory}/{file}', safe='')}")
        except HTTPError as error:
            raise self._no_file(error, task, address, directory, file) from error
        return int(answer["offset"])

    def _no_file(self, error: HTTPError, task: Task, address: str, directory: str, file: str) -> MiniclusterError:
        """The error of a file that could not be read: where the sandbox is there, with the files that it has."""
        if error.status not in (400, 404):
            return error
        folder = f"{directory}/{file}".rpartition("/")[0]
        try:
            found = self._agent(address).get(f"/files/browse?path={quote(folder, safe='')}")
            names = [str(entry["path"]).removeprefix(f"{directory}/") for entry in found]
        except HTTPError:
            why = (
                f"The agent at {address} has no {directory}: agents delete the sandboxes of tasks that ended long ago."
            )
            return MiniclusterError(f"task {task.id} has no {file}", why)
        return UsageError(f"task {task.id} has no file {file}", "", nearest(file, names))

    def _agent(self, address: str) -> Client:
        return Client("Mesos agent", [self.agents[address]], {}, self.masters.cluster)


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


def _addresses(state: Mapping[str, Any]) -> dict[str, str]:
    """HOST:PORT of each agent that the master knows, by the agent's ID."""
    return {str(a["id"]): str(a.get("pid", "")).partition("@")[2] for a in state.get("slaves", ())}


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
