"""The CNI plugin network-policy, against a local kube-policies."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ARGS = {"K8S_POD_NAMESPACE": "team", "K8S_POD_NAME": "web", "K8S_POD_UID": "7d0f"}
#: As the plugin portmap passes it on.
RESULT: dict[str, Any] = {
    "cniVersion": "0.3.1",
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [{"version": "4", "interface": 1, "address": "10.244.1.5/24", "gateway": "10.244.1.1"}],
    "dns": {},
}
CONFIG = {"cniVersion": "0.3.1", "name": "pods", "type": "network-policy", "prevResult": RESULT}


@pytest.fixture
def plugin(program: Callable[[str, str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = program("kubernetes", "network-policy")
    monkeypatch.setattr(module, "SOCKET", str(tmp_path / "s"))
    monkeypatch.setattr(module.told, "__defaults__", (str(tmp_path / "s"), 2.0))
    return module


def answering(plugin: ModuleType, *answers: bytes) -> tuple[threading.Thread, list[str]]:
    """A kube-policies that gives these answers, one for each connection."""
    listener, asked = socket.socket(socket.AF_UNIX), []
    listener.bind(plugin.SOCKET)
    listener.listen()

    def serve() -> None:
        with listener:
            for answer in answers:
                client, _ = listener.accept()
                with client, client.makefile("rb") as file:
                    asked.append(file.readline().decode())
                    client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, asked


def run(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, command: str, config: Any = CONFIG) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(config)))
    monkeypatch.setattr(
        os, "environ", {"CNI_COMMAND": command, "CNI_ARGS": ";".join(f"{k}={v}" for k, v in ARGS.items())}
    )
    plugin.main()


def test_a_new_pod_is_told_and_the_result_is_passed_on(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    thread, asked = answering(plugin, b"ok\n")
    run(plugin, monkeypatch, "ADD")
    thread.join()
    assert asked == ["team web 7d0f 10.244.1.5\n"]
    assert json.loads(capsys.readouterr().out) == RESULT


def test_a_pod_without_rules_does_not_start(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    thread, _ = answering(plugin, b"no rules for the pod team/web\n")
    with pytest.raises(SystemExit) as ended:
        run(plugin, monkeypatch, "ADD")
    thread.join()
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["msg"] == "no rules for the pod team/web"


def test_it_waits_for_kube_policies_to_start(plugin: ModuleType) -> None:
    made: list[Any] = []
    timer = threading.Timer(0.3, lambda: made.append(answering(plugin, b"", b"ok\n")))  # and it ends once meanwhile
    timer.start()
    assert plugin.add(CONFIG, ARGS) == ""
    timer.join()
    assert len(made[0][1]) == 2
    made[0][0].join()


def test_without_kube_policies_it_fails(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.told, "__defaults__", (plugin.SOCKET, 0.1))
    assert plugin.add(CONFIG, ARGS).startswith("kube-policies does not answer: ")


@pytest.mark.parametrize(
    ("config", "args"),
    [
        (CONFIG, ARGS | {"K8S_POD_NAMESPACE": "kube-system"}),
        (CONFIG, {}),
        ({**CONFIG, "prevResult": {}}, ARGS),
        ({**CONFIG, "prevResult": {"ips": [{"address": "fd00::5/64"}]}}, ARGS),
    ],
)
def test_what_is_not_told(plugin: ModuleType, config: Any, args: dict[str, str]) -> None:
    assert plugin.add(config, args) == ""


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_other_commands_do_nothing(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run(plugin, monkeypatch, command)
    assert capsys.readouterr().out == ""


def test_its_versions(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(plugin, monkeypatch, "VERSION", {"cniVersion": "1.0.0"})
    assert json.loads(capsys.readouterr().out) == {"cniVersion": "1.0.0", "supportedVersions": plugin.VERSIONS}
