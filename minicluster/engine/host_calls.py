"""Which of a cluster's hosts a call goes to, and what becomes of a host that does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from minicluster.engine import host_copies
from minicluster.engine.host_copies import AT, Labelled
from minicluster.errors import EngineError, NoEngine, NotFound
from minicluster.model import labels

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec

T = TypeVar("T")


class HostCalls:
    """The hosts that answer, those that do not, and where their containers are."""

    def __init__(self, hosts: Mapping[str, Engine], gone: Mapping[str, str]) -> None:
        self.hosts: Mapping[str, Engine] = dict(hosts)
        self._opened = [*hosts.values()]  # also those that stop answering
        self.gone: Mapping[str, str] = dict(gone)
        names = [*self.hosts, *self.gone]
        self.endpoint = f"hosts:{','.join(names)}"
        self.reference = json.dumps({"hosts": sorted(names)})  # the same whether they answer or not
        self._where: dict[str, str] = {}  # a container's name, or its ID -> host
        self._managing = ""  # the host that manages their swarm, once it is known
        self._lock = threading.RLock()

    def _call(self, host: str, call: Callable[[Engine], T]) -> T:
        """What a host answers; one that does not is left out from now on."""
        engine = self.hosts.get(host)
        if engine is None:
            raise NoEngine(f"host {host} does not answer", self.gone.get(host, ""), f"Start its engine: host {host}.")
        try:
            return call(engine)
        except NoEngine as error:
            with self._lock:
                self.hosts = {name: each for name, each in self.hosts.items() if name != host}
                self.gone = {**self.gone, host: error.why or error.what}
            error.what = f"host {host}: {error.what}"
            raise

    def _each(self, call: Callable[[Engine], T]) -> dict[str, T]:
        """What all hosts that answer say, asked at once. Raises ``NoEngine`` where none of them does."""
        names = [*self.hosts]
        with ThreadPoolExecutor(len(names) or 1) as pool:
            asked = {name: pool.submit(self._call, name, call) for name in names}
        found, lost = {}, None
        for name, future in asked.items():
            try:
                found[name] = future.result()
            except NoEngine as error:
                lost = error
        if not found:
            raise lost or NoEngine("no host answers", "\n".join(f"{name}: {why}" for name, why in self.gone.items()))
        return found

    def _all(self, hosts: Sequence[str], call: Callable[[Engine], object]) -> None:
        """Calls these hosts at once, each of which has to answer."""
        with ThreadPoolExecutor(len(hosts) or 1) as pool:
            for done in [pool.submit(self._call, host, call) for host in hosts]:
                done.result()

    def _host_of(self, container: str) -> tuple[str, str]:
        """The host that has a container, and its name there."""
        name, at, host = container.partition(AT)
        if at:
            return host, name
        host = self._where.get(container, "")  # another thread may remove it meanwhile
        if not host:
            found = self._each(lambda engine: engine.container(container))
            having = [host for host, one in found.items() if one]
            if not having and self.gone:
                raise NoEngine(
                    f"no container {container} on the hosts that answer",
                    "\n".join(f"host {name} does not answer: {why}" for name, why in self.gone.items()),
                    f"Start its engine: host {next(iter(self.gone))}.",
                )
            if not having:
                raise NotFound(f"no container {container} on any host")
            ours = [replace(one, host=on) for on, one in found.items() if one and labels.HOSTS in one.labels]
            meant = [one.host for one in self._meant(ours) if AT not in one.name]
            with self._lock:
                host = self._where.setdefault(container, (meant or having)[0])
        return host, container

    def _on(self, container: str, call: Callable[[Engine, str], T]) -> T:
        host, name = self._host_of(container)
        return self._call(host, lambda engine: call(engine, name))

    def _target(self, about: Mapping[str, str]) -> str:
        """The host that something is created on."""
        return about.get(labels.HOST, "") or next(iter(self.hosts), "")

    def _marked(self, about: Mapping[str, str]) -> Mapping[str, str]:
        """The labels of something that is created: without that of the hosts it would not be seen any more."""
        return {labels.HOSTS: ",".join([*self.hosts, *self.gone]), **about}

    def _manager(self) -> Engine:
        """An engine that manages the hosts' swarm; asked for once."""
        engines = dict(self.hosts)  # another thread may leave one out meanwhile
        if self._managing in engines:
            return engines[self._managing]
        swarms = {}
        for name in [*engines][:1]:  # nearly always the first is one, and the others need not be asked
            with suppress(NoEngine):
                swarms[name] = self._call(name, lambda engine: engine.swarm())
        if not any(swarm.manager for swarm in swarms.values()):
            swarms = self._each(lambda engine: engine.swarm())
        managers = [name for name, swarm in swarms.items() if swarm.manager]
        if not managers:
            errors = [f"{name}: {swarm.error}" for name, swarm in swarms.items() if swarm.error]
            raise EngineError(
                "no host manages a Docker Swarm",
                "\n".join(errors) or "A cluster on several hosts has a network of their swarm.",
                f"`minicluster hosts init {','.join([*self.hosts, *self.gone])}` makes a swarm of them; "
                "`minicluster hosts check` says more.",
            )
        self._managing = managers[0]
        return engines[managers[0]]

    def _meant(self, found: list[Labelled]) -> list[Labelled]:
        """The same, with those renamed that are on another host than their node."""
        return host_copies.meant(found, self._newest_spec)

    def _newest_spec(self, cluster: str) -> Spec | None:
        found = self._each(lambda engine: engine.volumes(cluster))
        return host_copies.newest_spec(one for its in found.values() for one in its)
