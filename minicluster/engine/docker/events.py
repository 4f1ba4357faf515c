"""The engine's events, narrowed down to one cluster's."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any

from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, ConnectionLost
from minicluster.engine.protocol import Cancel, Engine, EngineEvent
from minicluster.errors import NoEngine
from minicluster.model.labels import CLUSTER
from minicluster.model.naming import network_name

#: Lifecycle events only: no commands in nodes, no mounts.
_ACTIONS = (
    *("create", "start", "die", "kill", "stop", "pause", "unpause", "restart", "destroy", "oom"),
    *("connect", "disconnect"),
)


def follow(engine: Engine, api: Api, cluster: str, since: float | None, cancel: Cancel) -> Iterator[EngineEvent]:
    """See :meth:`minicluster.engine.protocol.Engine.events`."""
    what = f"follow the events of cluster {cluster}"
    params: dict[str, Any] = {"filters": {"type": ["container", "network", "volume"], "event": list(_ACTIONS)}}
    if since is not None:
        params["since"] = f"{since:.9f}"
    with translated(what):
        response = api.open("GET", "/events", params=params, timeout=None)
        try:
            with response, cancel.calls(response.abort):
                known = _Known(engine, cluster)
                for message in response.messages():
                    event = known.event(message)
                    if event:
                        yield event
        except ConnectionLost:
            if not cancel.is_set():
                raise
    if not cancel.is_set():
        raise NoEngine(f"the engine stopped answering: {what}", "It ended the stream of its events.")


class _Known:
    """What is known to be a cluster's: events of networks and volumes come without labels."""

    def __init__(self, engine: Engine, cluster: str) -> None:
        self.engine, self.cluster = engine, cluster
        self.containers = {c.id: c.labels for c in engine.containers(cluster)}
        self.networks = {n.id for n in engine.networks(cluster)}
        self.others: set[str] = set()  # networks that are not the cluster's
        self.volumes = {v.name: v.labels for v in engine.volumes(cluster)}
        self.connections: dict[tuple[str, str], str] = {}  # network and container -> the last action
        self.created: set[str] = set()  # volumes whose creation was reported: the engine repeats it for each container

    def event(self, message: Mapping[str, Any]) -> EngineEvent | None:
        """The event of a message; None where it is not the cluster's."""
        kind, action, actor = message["Type"], message["Action"], message["Actor"]
        about, key = actor.get("Attributes") or {}, actor["ID"]
        labels = self._labels(kind, action, key, about)
        if labels is None:
            return None
        detail: dict[str, str | int] = {}
        if action == "die":
            detail["exit_code"] = int(about.get("exitCode") or 0)
        if action == "kill":
            number = str(about.get("signal", ""))
            known = number.isdecimal() and int(number) in set(signal.Signals)
            detail["signal"] = signal.Signals(int(number)).name if known else number
        return EngineEvent(message["timeNano"] / 1e9, kind, action, about.get("name", key), labels, detail)

    def _labels(self, kind: str, action: str, key: str, about: Mapping[str, str]) -> Mapping[str, str] | None:
        """The labels of what an event is about; None where it is not the cluster's, or a repetition."""
        if kind == "container":
            if about.get(CLUSTER) != self.cluster:
                return None
            self.containers[key] = about
            return about
        if kind == "network":
            if not self._owns_network(key, about.get("name", "")):
                return None
            container = about.get("container", "")
            if action in ("connect", "disconnect"):  # the engine reports a disconnection twice
                if self.connections.get((key, container)) == action:
                    return None
                self.connections[key, container] = action
            return self.containers.get(container, {})
        if action == "create":
            if key in self.created:
                return None
            self.created.add(key)
            self.volumes = {**self.volumes, **{v.name: v.labels for v in self.engine.volumes(self.cluster)}}
        if action == "destroy":
            self.created.discard(key)
        return self.volumes.get(key)

    def _owns_network(self, key: str, name: str) -> bool:
        """Whether a network is the cluster's. Any event may be the first one seen: the engine answers a request for
        events a moment before it begins to collect them."""
        if key not in self.networks | self.others:
            self.networks |= {n.id for n in self.engine.networks(self.cluster)}
            # One that has been removed meanwhile is known by its name only.
            if key not in self.networks and name == network_name(self.cluster) and not self.engine.network(name):
                self.networks.add(key)
            if key not in self.networks:
                self.others.add(key)
        return key in self.networks
