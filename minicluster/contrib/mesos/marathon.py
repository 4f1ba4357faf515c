"""Marathon: applications and groups of them, installed, changed and removed, and the deployments that this takes."""

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

_TOKEN = re.compile(r"\$\{(MINICLUSTER_\w+)\}")
_PERIOD = 0.5  # seconds between two looks at a deployment


@dataclass(frozen=True)
class Definition:
    """An application or a group, as Marathon's JSON defines it."""

    kind: str  #: "app" or "group"
    id: str  #: with a slash in front; of the root group nothing else
    data: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where Marathon has it."""
        return f"/v2/{self.kind}s{quote(self.id) if self.id != '/' else ''}"


@dataclass(frozen=True)
class Deployment:
    """A change that Marathon was asked for."""

    kind: str
    id: str  #: of the application or group
    deployment: str  #: Marathon's ID of the change; "" where there was nothing to change


def read(text: str, values: Mapping[str, str], source: str) -> Definition:
    """Reads a definition, its ``${MINICLUSTER_…}`` tokens filled in.

    Args:
        values: what ``minicluster env`` tells of the cluster.
        source: what to call the text in errors.

    Raises:
        UsageError: a token is unknown, or it is no JSON of an application or group.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = [name for name in values if name.startswith("MINICLUSTER_")]
            line = text.count("\n", 0, match.start()) + 1
            raise UsageError(
                f"{source}:{line}: this cluster has no {match[1]}",
                "Tokens are the variables that `minicluster env` prints.",
                nearest(match[1], known),
            )
        return json.dumps(values[match[1]])[1:-1]

    try:
        data = json.loads(_TOKEN.sub(value, text))
    except ValueError as error:
        at = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UsageError(f"{source}{at}: no valid JSON", f"{said}.", "Correct it.") from None
    if not isinstance(data, dict):
        raise UsageError(
            f"{source}: no application and no group", "Its JSON is no object.", "Put several applications into a group."
        )
    if "containers" in data:
        raise UsageError(f"{source}: this is a pod", "Only applications and groups of them can be installed.")
    group = "apps" in data or "groups" in data
    name = data.get("id", "/" if group else None)
    if not isinstance(name, str) or (not name.strip("/") and not group):
        raise UsageError(f"{source}: the application has no id", "", 'Give it one: "id": "/name".')
    return Definition("group" if group else "app", "/" + name.strip("/"), data)


@dataclass(frozen=True)
class Marathon:
    """The Marathon of a cluster. Whoever does not lead passes requests on to the one that does."""

    client: Client

    def install(self, it: Definition) -> Deployment:
        """Begins to run something new.

        Raises:
            UsageError: it is there already.
            HTTPError: Marathon refuses it.
        """
        try:
            answer = self.client.call("POST", f"/v2/{it.kind}s", it.data)
        except HTTPError as error:
            if error.status == 409 and "already exists" in error.why:
                raise UsageError(
                    f"{it.kind} {it.id} is installed already", error.why, "Change it: `minicluster mesos update`."
                ) from error
            raise
        return self._began(it, answer)

    def update(self, it: Definition, *, force: bool = False) -> Deployment:
        """Changes what runs into what the definition says; makes it where it is not there."""
        return self._began(it, self.client.call("PUT", it.path + _forced(force), it.data))

    def uninstall(self, it: Definition, *, force: bool = False) -> Deployment:
        """Begins to end and remove it.

        Raises:
            UsageError: it is not there, or it is the root of all groups.
        """
        if it.id == "/":
            raise UsageError(
                "a group without an id is the root of all groups",
                "To remove it would be to remove everything that Marathon runs.",
                'Say which group: "id": "/name".',
            )
        try:
            return self._began(it, self.client.call("DELETE", it.path + _forced(force)))
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
        """Waits until Marathon is through with a deployment, which it then no longer lists.

        Raises:
            NotReady: after ``timeout`` seconds, with what it is waiting for.
        """
        deadline = clock() + timeout
        while change.deployment:
            found = [d for d in self.client.get("/v2/deployments") or () if d.get("id") == change.deployment]
            if not found:
                return
            if clock() >= deadline:
                raise NotReady(
                    f"the deployment of {change.kind} {change.id} is not finished in time",
                    "\n".join(self._standing(str(app)) for app in found[0].get("affectedApps") or [change.id]),
                    "It goes on. Correct it with `minicluster mesos update --force`, or give it longer with --timeout.",
                )
            sleep(_PERIOD)

    def _standing(self, app: str) -> str:
        """How an application is doing, for an error."""
        try:
            about = self.client.get(f"/v2/apps{quote(app)}?embed=app.counts&embed=app.lastTaskFailure")["app"]
        except (MiniclusterError, KeyError, TypeError):
            return f"{app}: Marathon does not say how it is doing."
        last = (about.get("lastTaskFailure") or {}).get("message")
        text = f"{app}: {about.get('tasksRunning', 0)} of {about.get('instances', 0)} tasks run."
        return f"{text} The last one that failed: {last}" if last else text

    @staticmethod
    def _began(it: Definition, answer: Any) -> Deployment:
        said = answer if isinstance(answer, dict) else {}
        begun = said.get("deploymentId") or next((d.get("id") for d in said.get("deployments") or ()), "")
        return Deployment(it.kind, it.id, str(begun or ""))


def _forced(force: bool) -> str:
    return "?force=true" if force else ""
