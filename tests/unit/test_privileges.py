"""Which capabilities a privileged node asks the engine for."""

from __future__ import annotations

from typing import Any

import pytest

from minicluster.engine import privileges
from minicluster.engine.docker import capabilities
from minicluster.engine.http import APIError
from minicluster.engine.protocol import ContainerConfig
from minicluster.model import labels

CONFIG = ContainerConfig("n", "image", "n", "net", "172.28.0.2", {labels.CLUSTER: "c", labels.NODE: "n"})


class Api:
    """An engine that lacks capabilities: a container that asks for one of them is created and does not start."""

    def __init__(self, lacks: set[str], starts: bool = True) -> None:
        self.lacks, self.starts = lacks, starts
        self.made: dict[str, dict[str, Any]] = {}

    def request(self, method: str, path: str, *, data: Any = None, params: Any = None) -> Any:
        if path == "/containers/create":
            self.made[str(len(self.made))] = data
            return {"Id": str(len(self.made) - 1)}
        _, _, id_, *verb = path.split("/")
        if method == "DELETE":
            assert params["force"]
            self.made[id_]["removed"] = True
        elif verb == ["start"] and (not self.starts or self.lacks & {*self.made[id_]["HostConfig"]["CapAdd"]}):
            raise APIError(500, "unable to apply caps: operation not permitted")
        return None


def ask(api: Api, version: str = "1.47") -> set[str]:
    return {*capabilities.granted(api, "tcp://elsewhere:2376", version, CONFIG)}  # type: ignore[arg-type]


def test_an_engine_elsewhere_is_tried_and_gives_all_but_what_it_lacks() -> None:
    api = Api({"SYS_RESOURCE"})
    assert ask(api) == {*privileges.ALL} - {"SYS_RESOURCE"}
    assert all(made["removed"] for made in api.made.values())
    assert all(
        made["Labels"] == {labels.CLUSTER: "c"} for made in api.made.values()
    )  # "down" removes it where we are killed


def test_an_engine_that_has_all_is_tried_once() -> None:
    api = Api(set())
    assert ask(api) == {*privileges.ALL}
    assert len(api.made) == 1


def test_an_engine_that_starts_nothing_is_asked_for_all_so_that_its_own_error_is_seen() -> None:
    assert ask(Api(set(), starts=False)) == {*privileges.ALL}


@pytest.mark.parametrize(("version", "known"), [("1.41", False), ("1.42", True), ("?", False)])
def test_old_engines_do_not_know_new_capabilities(version: str, known: bool) -> None:
    assert ("BPF" in ask(Api(set()), version)) is known
