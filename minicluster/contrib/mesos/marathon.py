"""A client of Marathon: installs, updates and removes applications and groups, and waits for the deployments."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from minicluster.contrib.mesos.http import Client, HTTPError
from minicluster.errors import MiniclusterError, NotReady, UsageError, nearest

_VARIABLE = re.compile(r"\$\{(MINICLUSTER_\w+)\}")
_PERIOD = 0.5  # seconds between two requests for the state of a deployment


@dataclass(frozen=True)
class Definition:
    """An application or a group, as Marathon's JSON defines it."""

    kind: str  #: "app" or "group"
    id: str  #: begins with a slash; the root group's is only a slash
    data: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Its path in Marathon's API."""
        return f"/v2/{self.kind}s{quote(self.id) if self.id != '/' else ''}"


@dataclass(frozen=True)
class Deployment:
    """A change that was requested from Marathon."""

    kind: str
    id: str  #: of the application or group
    deployment: str  #: Marathon's ID of the deployment; "" if nothing had to change


def read(text: str, values: Mapping[str, str], source: str) -> Definition:
    """Parses a definition and expands the ``${MINICLUSTER_…}`` variables in it.

    Args:
        values: the variables that ``minicluster env`` prints for the cluster.
        source: name of the text in errors.

    Raises:
        UsageError: a variable is unknown, or the text is not JSON of an application or group.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = [name for name in values if name.startswith("MINICLUSTER_")]
            line = text.count("\n", 0, match.start()) + 1
            raise UsageError(
                f"{source}:{line}: this cluster has no {match[1]}",
                "Only variables that `minicluster env` prints are expanded.",
                nearest(match[1], known),
            )
        return json.dumps(values[match[1]])[1:-1]

    try:
        data = json.loads(_VARIABLE.sub(value, text))
    except ValueError as error:
        at = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UsageError(f"{source}{at}: invalid JSON", f"{said}.") from None
    if not isinstance(data, dict):
        raise UsageError(
            f"{source}: not an application or a group",
            "Its JSON is not an object.",
            "Put several applications into a group.",
        )
    if "containers" in data:
        raise UsageError(f"{source}: pods are not supported", "Only applications and groups can be installed.")
    group = "apps" in data or "groups" in data
    name = data.get("id", "/" if group else None)
    if not isinstance(name, str) or (not name.strip("/") and not group):
        raise UsageError(f"{source}: the application has no id", "", 'Add one: "id": "/name".')
    return Definition("group" if group else "app", "/" + name.strip("/"), data)


@dataclass(frozen=True)
class Marathon:
    """The Marathon of a cluster. An instance that does not lead forwards requests to the leader."""

    client: Client

    def install(self, it: Definition) -> Deployment:
        """Starts the deployment of a new application or group.

        Raises:
            UsageError: it exists.
            HTTPError: Marathon rejects it.
        """
        try:
            answer = self.client.call("POST", f"/v2/{it.kind}s", it.data)
        except HTTPError as error:
            if error.status == 409 and "already exists" in error.why:
                raise UsageError(
                    f"{it.kind} {it.id} is already installed", error.why, "Update it: `minicluster mesos update`."
                ) from error
            raise
        return self._started(it, answer)

    def update(self, it: Definition, *, force: bool = False) -> Deployment:
        """Starts the deployment of a change; creates the application or group if it does not exist."""
        return self._started(it, self.client.call("PUT", it.path + _forced(force), it.data))

    def uninstall(self, it: Definition, *, force: bool = False) -> Deployment:
        """Starts its removal.

        Raises:
            UsageError: it does not exist, or it is the root group.
        """
        if it.id == "/":
            raise UsageError(
                "a group without an id is the root group",
                "Removing it would remove everything that Marathon runs.",
                'Add the id of the group to remove: "id": "/name".',
            )
        try:
            return self._started(it, self.client.call("DELETE", it.path + _forced(force)))
        except HTTPError as error:
            if error.status != 404:
                raise
            raise UsageError(f"Marathon has no {it.kind} {it.id}", error.why) from error

    def wait(
        self,
        change: Deployment,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until Marathon no longer lists a deployment: then it is finished.

        Raises:
            NotReady: after ``timeout`` seconds, with the state of each application.
        """
        deadline = clock() + timeout
        while change.deployment:
            found = [d for d in self.client.get("/v2/deployments") or () if d.get("id") == change.deployment]
            if not found:
                return
            if clock() >= deadline:
                raise NotReady(
                    f"the deployment of {change.kind} {change.id} did not finish in {timeout:g} s",
                    "\n".join(self._state(str(app)) for app in found[0].get("affectedApps") or [change.id]),
                    "It continues. Correct it with `minicluster mesos update --force`, or wait longer with --timeout.",
                )
            sleep(_PERIOD)

    def _state(self, app: str) -> str:
        """The state of an application, for an error."""
        try:
            about = self.client.get(f"/v2/apps{quote(app)}?embed=app.counts&embed=app.lastTaskFailure")["app"]
        except (MiniclusterError, KeyError, TypeError):
            return f"{app}: its state is unknown."
        last = (about.get("lastTaskFailure") or {}).get("message")
        text = f"{app}: {about.get('tasksRunning', 0)} of {about.get('instances', 0)} tasks running."
        return f"{text} The last failure: {last}" if last else text

    @staticmethod
    def _started(it: Definition, answer: Any) -> Deployment:
        said = answer if isinstance(answer, dict) else {}
        begun = said.get("deploymentId") or next((d.get("id") for d in said.get("deployments") or ()), "")
        return Deployment(it.kind, it.id, str(begun or ""))


def _forced(force: bool) -> str:
    return "?force=true" if force else ""
