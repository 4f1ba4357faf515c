"""A client of Marathon: installs, updates and removes applications and groups, and waits for the deployments."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from minicluster.contrib.mesos.http import Client, HTTPError
from minicluster.errors import MiniclusterError, NotReady, UsageError, nearest

_VARIABLE = re.compile(r"\$\{(MINICLUSTER_\w+)\}")
_PERIOD = 0.5  # seconds between two requests for the state of a deployment
_BETWEEN_LEADERS = (0, 502, 503, 504)  # no answer, or that of an instance that finds no leader to pass a request on to
#: In how many lists in a row a deployment must be missing to be finished. A list is empty for a moment when one
#: is about to begin and when another instance begins to lead, so more are needed where none had it before.
_MISSING, _MISSING_FROM_THE_START = 3, 10


@dataclass(frozen=True)
class Definition:
    """An application or a group, as Marathon's JSON defines it."""

    kind: str  #: "app" or "group"
    id: str  #: begins with a slash
    data: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Its path in Marathon's API."""
        return f"/v2/{self.kind}s{quote(self.id)}"


@dataclass(frozen=True)
class Deployment:
    """A change that was requested from Marathon."""

    kind: str
    id: str  #: of the application or group
    deployment: str  #: Marathon's ID of the deployment; "" if nothing had to change
    version: str = ""  #: of the change: the time of it, which can be compared as a text
    apps: tuple[str, ...] = ()  #: the IDs of the applications that are to run afterwards
    removes: bool = False  #: what has the ID is removed


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
    kind, name = "group" if group else "application", data.get("id", "")
    if not isinstance(name, str) or not name.strip("/"):
        why = "It would be the root group, which always exists and contains everything." if group else ""
        raise UsageError(f"{source}: the {kind} has no id", why, 'Add one: "id": "/name".')
    id = "/" + name.strip("/")
    # Marathon takes an ID without a slash for a relative one: below the one in the path of a request.
    return Definition("group" if group else "app", id, {**data, "id": id})


def applications(data: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The absolute IDs of the applications in the definition of an application or a group."""
    name = str(data.get("id", "")).rstrip("/")
    id = name if name.startswith("/") else f"{above}/{name}"
    if "apps" not in data and "groups" not in data:
        yield id
    for inner in (*(data.get("apps") or ()), *(data.get("groups") or ())):
        yield from applications(inner, id)


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
            if error.status == 409 and re.search(r"already (exists|created)", error.why):
                fix = f"Update it: `minicluster mesos update -c {self.client.cluster}`."
                raise UsageError(f"{it.kind} {it.id} is already installed", error.why, fix) from error
            raise _locked(error) from error
        return self._started(it, answer)

    def update(self, it: Definition, *, force: bool = False) -> Deployment:
        """Starts the deployment of a change; creates the application or group if it does not exist.

        Afterwards it is as the definition says: what that leaves out has Marathon's default again.
        """
        whole = "&partialUpdate=false" if it.kind == "app" else ""
        try:
            answer = self.client.call("PUT", it.path + _forced(force) + whole, it.data)
        except HTTPError as error:
            raise _locked(error) from error
        return self._started(it, answer)

    def uninstall(self, it: Definition, *, force: bool = False) -> Deployment:
        """Starts its removal.

        Raises:
            UsageError: it does not exist.
        """
        try:
            begun = self._started(it, self.client.call("DELETE", it.path + _forced(force)))
            return replace(begun, apps=(), removes=True)
        except HTTPError as error:
            if error.status != 404:
                raise _locked(error) from error
            raise UsageError(f"Marathon has no {it.kind} {it.id}", error.why) from error

    def wait(
        self,
        change: Deployment,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until a deployment is finished: Marathon does not list it any more, and has done what it was for.

        Instances that elect a leader are waited for.

        Raises:
            NotReady: after ``timeout`` seconds, with the state of each application.
            MiniclusterError: another change has replaced this one.
        """
        deadline = clock() + timeout
        listed, missing, affected = False, 0, change.apps
        while change.deployment:
            trouble = ""
            try:
                found = next(
                    (d for d in self.client.get("/v2/deployments") or () if d.get("id") == change.deployment), None
                )
                if found:
                    listed, missing = True, 0
                    affected = tuple(map(str, found.get("affectedApps") or affected))
                else:
                    missing += 1
                    enough = missing >= (_MISSING if listed else _MISSING_FROM_THE_START)
                    if self._is_done(change, enough) and (listed or missing >= _MISSING):
                        return
            except HTTPError as error:
                if error.status not in _BETWEEN_LEADERS:
                    raise
                listed, missing, trouble = False, 0, f"{error.what}."
            if clock() >= deadline:
                raise NotReady(
                    f"the deployment of {change.kind} {change.id} did not finish in {timeout:g} s",
                    trouble or "\n".join(self._state(app) for app in affected or (change.id,)),
                    f"It continues. Correct it with `minicluster mesos update --force -c {self.client.cluster}`, "
                    "or wait longer with --timeout.",
                )
            sleep(_PERIOD)

    def _is_done(self, change: Deployment, enough: bool) -> bool:
        """Whether a deployment that is in no list is finished; ``enough``: it has been in none for long enough.

        Raises:
            MiniclusterError: another change has replaced it.
        """
        replaced = MiniclusterError(
            f"the deployment of {change.kind} {change.id} was replaced by another change",
            "Marathon has canceled it.",
            f"`minicluster mesos ps -c {self.client.cluster}` lists what runs.",
        )
        if change.removes:
            there = self._find(f"/v2/{change.kind}s{quote(change.id)}")
            if there and enough:
                raise replaced
            return not there
        apps = [self._find(f"/v2/apps{quote(id)}?embed=app.counts&embed=app.deployments") for id in change.apps]
        about = [app.get("app") or {} for app in apps if app]
        newer = any(change.version and str(app.get("version", "")) > change.version for app in about)
        if newer or (enough and len(about) < len(apps)):
            raise replaced
        if any(app.get("deployments") for app in about):
            return False
        running = len(about) == len(apps) and all(
            app.get("tasksRunning", 0) == app.get("instances", 0) for app in about
        )
        return running or enough

    def _find(self, path: str) -> dict[str, Any]:
        """The object at a path; empty where there is none."""
        try:
            found = self.client.get(path)
        except HTTPError as error:
            if error.status != 404:
                raise
            return {}
        return found if isinstance(found, dict) else {}

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
        return Deployment(
            it.kind, it.id, str(begun or ""), str(said.get("version") or ""), tuple(applications(it.data))
        )


def _forced(force: bool) -> str:
    """Always said: Marathon's own default differs between its calls."""
    return f"?force={str(force).lower()}"


def _locked(error: HTTPError) -> HTTPError:
    """The error of a refused change, with what to do where a deployment is in its way."""
    if error.status == 409 and "locked" in error.why:
        error.fix = (
            "Wait until that deployment ends, or cancel it with --force (`minicluster mesos update`, `uninstall`)."
        )
    return error
