"""The Docker Swarm that an engine is part of: it carries the networks of clusters that have several engines."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, APIError
from minicluster.engine.protocol import Engine, Swarm, SwarmNode
from minicluster.errors import EngineError
from minicluster.model.labels import ENCRYPTED, HOSTS

_JOINING = 60.0  # seconds: a manager that joins waits until it has the whole log
_LISTEN = "0.0.0.0:2377"
_PASSING = ("out of sequence", "does not have a leader", "deadline exceeded")  # errors after which to ask again


def look(api: Api) -> Swarm:
    with translated("ask for the swarm"):
        found = api.request("GET", "/info").get("Swarm") or {}
        if found.get("LocalNodeState", "inactive") == "inactive":
            return Swarm()
        node, manager = str(found.get("NodeID", "")), bool(found.get("ControlAvailable"))
        address, error = str(found.get("NodeAddr", "")), str(found.get("Error", ""))
        known = tuple(str(peer.get("NodeID", "")) for peer in found.get("RemoteManagers") or ())
        if not manager:
            return Swarm(node, address, error=error, managers=known)
        try:
            about = api.request("GET", "/swarm")
            nodes = tuple(map(_node, api.request("GET", "/nodes")))
        except APIError as refused:  # too few managers work
            return Swarm(node, address, error=refused.message, managers=known)
        return Swarm(node, address, about["ID"], about["Spec"].get("Labels") or {}, True, nodes, error, known)


def _node(data: Mapping[str, Any]) -> SwarmNode:
    about = data.get("ManagerStatus") or {}
    status = data.get("Status") or {}
    address = str(about.get("Addr", "")).rpartition(":")[0] or str(status.get("Addr", ""))
    return SwarmNode(
        data["ID"],
        str((data.get("Description") or {}).get("Hostname", "")),
        address,
        data["Spec"].get("Role") == "manager",
        status.get("State") == "ready" and about.get("Reachability", "reachable") == "reachable",
        bool(about.get("Leader")),
    )


def join(api: Api, address: str, manager: Engine | None, labels: Mapping[str, str], *, as_manager: bool) -> None:
    body: dict[str, Any] = {"ListenAddr": _LISTEN, "AdvertiseAddr": address}
    if manager is None:
        with translated("make a swarm"):
            api.request("POST", "/swarm/init", data={**body, "Spec": {"Labels": dict(labels)}}, timeout=_JOINING)
        return
    remote = manager.swarm().address
    body |= {"RemoteAddrs": [f"{remote}:2377"], "JoinToken": manager.join_token(manager=as_manager)}
    with translated(f"join the swarm at {remote}:2377"):
        api.request("POST", "/swarm/join", data=body, timeout=_JOINING)


def token(api: Api, *, manager: bool) -> str:
    with translated("ask for the swarm"):
        return str(api.request("GET", "/swarm")["JoinTokens"]["Manager" if manager else "Worker"])


def leave(api: Api) -> None:
    end = time.monotonic() + _JOINING
    with translated("leave the swarm"):
        while True:
            try:
                api.request("POST", "/swarm/leave", params={"force": 1}, timeout=_JOINING)
                return
            except APIError as error:
                if "not part of a swarm" in error.message:
                    return
                # A busy engine gives up on its own node: it is half a member until it is asked again.
                if "deadline exceeded" not in error.message or time.monotonic() > end:
                    raise
            time.sleep(0.2)


def set_role(api: Api, node: str, role: str) -> None:
    """Makes a manager or a worker of a node, and waits until it is one."""
    end = time.monotonic() + _JOINING
    with translated(f"make {node} a {role} of the swarm"):
        while True:
            try:
                found = api.request("GET", f"/nodes/{node}")
                manages = (found.get("ManagerStatus") or {}).get("Reachability") == "reachable"
                if found["Spec"].get("Role") != role:
                    _ask_for_role(api, found, role)
                elif manages == (role == "manager"):
                    return
                elif time.monotonic() > end:
                    raise EngineError(
                        f"{node} is no {role} of the swarm yet",
                        f"That was asked for {_JOINING:.0f} s ago.",
                        "Managers reach each other at port 2377/tcp: open it in the firewalls.",
                    )
            except APIError as error:
                # Another process may be changing it, or the managers elect a leader, as they do with each new one.
                if not any(said in error.message for said in _PASSING) or time.monotonic() > end:
                    raise
            time.sleep(0.2)


def _ask_for_role(api: Api, node: Mapping[str, Any], role: str) -> None:
    """Asks for another role of a node, by the engine's description of it; it has it a moment later."""
    spec, version = {**node["Spec"], "Role": role}, {"version": node["Version"]["Index"]}
    api.request("POST", f"/nodes/{node['ID']}/update", params=version, data=spec)


def forget(api: Api, node: str) -> None:
    end = time.monotonic() + _JOINING
    with translated(f"remove {node} from the swarm"):
        while True:
            try:
                found = api.request("GET", f"/nodes/{node}")
                if found["Spec"].get("Role") == "manager":  # which it has to be no longer
                    _ask_for_role(api, found, "worker")
                api.request("DELETE", f"/nodes/{node}", params={"force": 1})
                return
            except APIError as error:
                if error.status == 404:
                    return
                # It takes a moment until it is no manager, and another process may be changing it.
                if not any(said in error.message for said in ("demoted", "out of sequence")) or time.monotonic() > end:
                    raise
            time.sleep(0.2)


def free(api: Api, refusal: str) -> bool:
    """Frees a network that is in use by a task of an engine that does not answer any more: that leaves the swarm.

    Only from a swarm that we made. ``refusal``: what the engine says. False where nothing was done.
    """
    found = re.search(r"in use by task (\w+)", refusal)
    swarm = look(api)
    if not found or HOSTS not in swarm.labels:
        return False
    holder = str(api.request("GET", f"/tasks/{found[1]}").get("NodeID", ""))
    if all(node.ready for node in swarm.nodes if node.id == holder):
        return False
    forget(api, holder)
    return True


def network(name: str, ipam: Mapping[str, Any], about: Mapping[str, str]) -> dict[str, Any]:
    """What an overlay network is created with that containers of every engine can join."""
    options = {"encrypted": ""} if ENCRYPTED in about else {}
    body = {"Name": name, "Driver": "overlay", "IPAM": dict(ipam), "Labels": dict(about), "CheckDuplicate": True}
    return {**body, "Attachable": True, "Scope": "swarm", "Options": options}
