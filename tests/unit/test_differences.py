"""What --dry-run says of a change: the field that changed and both values, but no secrets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minicluster.cli.planned import _step_data, rows, what
from minicluster.engine.protocol import ContainerConfig
from minicluster.model.deferred import marker
from minicluster.model.spec import EndpointSpec, FileSpec, NodeSpec, Spec
from minicluster.plan.differences import difference
from minicluster.plan.reconcile import reconcile
from minicluster.plan.steps import CreateContainer, RunHook, Step, WaitReady
from tests.unit.standing import spec_of, standing


def told(before: NodeSpec, after: NodeSpec) -> str:
    spec = spec_of("etcd", kv=1)
    image = {before.image: spec.images["node"]}
    was, now = (replace(spec, nodes=(node,), images=image) for node in (before, after))
    return difference(was, now, after)


NODE = NodeSpec("a-1", "a", 1, "172.28.0.2", "node", command=("serve", "--level=3"), memory=384 << 20)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"memory": 512 << 20}, "memory 384 MiB -> 512 MiB"),
        ({"memory": 0}, "memory 384 MiB -> no limit"),
        ({"command": ("serve", "--level=4")}, "command --level=3 -> --level=4"),
        ({"command": ("--level=3", "serve")}, "command in another order"),
        ({"env": {"LEVEL": "4"}}, "env LEVEL none -> 4"),
        ({"env": {"DB_PASSWORD": "hunter2"}}, "env DB_PASSWORD (not shown)"),
        ({"command": ("serve", "--password=hunter2")}, "command (not shown)"),
        ({"env": {"X": marker("secret.x.hex")}}, "env X (not shown)"),
        ({"tmpfs": {"/run": "size=1m"}}, "tmpfs none -> /run=size=1m"),
        ({"stop_timeout": 3}, "stop timeout 10 -> 3"),
        ({"nested": True}, "nested false -> true"),
        ({"privileged": True}, "privileged false -> true"),
        ({"cpus": 1.5}, "cpus no limit -> 1.5"),
        ({"command": ("serve", "--level=3", "--db=postgres://u:hunter2@h")},
         "command none -> --db=postgres://***@h"),
        ({"env": {"DB": "postgres://u:hunter2@h"}}, "env DB none -> postgres://***@h"),
        ({"command": ("serve", "--level=3", "--password", "hunter2")}, "command (not shown)"),
        ({"files": (FileSpec("/etc/x", "a\n"),)}, "file /etc/x added"),
        ({"endpoints": (EndpointSpec("api", 80, 8080, ""),)}, "published ports none -> 80/tcp on 8080"),
        ({"env": {"A": "x", "B": "y"}, "nested": True, "stop_timeout": 3},
         "env A none -> x, env B none -> y, nested false -> true, and 1 more"),
        ({"env": {"LONG": "y" * 800}}, f"env LONG none -> {'y' * 120}..."),
    ],
)  # fmt: skip
def test_the_field_and_both_values(changed: dict[str, object], said: str) -> None:
    assert told(NODE, replace(NODE, **changed)) == said  # type: ignore[arg-type]


def test_of_a_file_the_line_that_changed() -> None:
    def node(content: str, mode: int = 0o644) -> NodeSpec:
        return replace(NODE, files=(FileSpec("/etc/x", content, mode),))

    assert told(node("a=1\nb=2\n"), node("a=1\nb=3\n")) == "/etc/x b=2 -> b=3"
    assert told(node("a=1\n"), node("a=1\nb=3\n")) == "/etc/x none -> b=3"
    assert told(node("a=1\n"), node("a=1\nb=3\nc=4\n")) == "/etc/x"
    assert told(node("a=1\nb=2\nc=3\n"), node("a=2\nb=3\nc=4\n")) == "/etc/x a=1 -> a=2, 2 more lines of /etc/x"
    assert told(node("a=1\n", 0o600), node("a=2\n", 0o600)) == "/etc/x"  # only root may read it
    assert told(node("requirepass old\n"), node("requirepass new\n")) == "/etc/x"
    assert told(node("a=1\n"), node("a=1\n", 0o600)) == "owner or permissions of /etc/x"


def test_only_a_password_in_a_url_changed() -> None:
    was, now = (replace(NODE, env={"DB": f"postgres://u:{word}@h"}) for word in ("hunter1", "hunter2"))
    assert told(was, now) == "env DB (not shown)"


def test_a_plan_has_no_passwords() -> None:
    command = ("psql", "postgres://u:hunter2@h", "--password", "hunter2")
    steps = (
        Step("1", "a-1", RunHook("a-1", command), ""),
        Step("2", "a-1", WaitReady("a-1", command), ""),
        Step("3", "a-1", CreateContainer(ContainerConfig("a-1", "i", "a", "n", "", {}, command, command)), ""),
    )
    said = json.dumps([_step_data(step) for step in steps]) + " ".join(what(step.action) for step in steps)
    assert "psql postgres://***@h --password ***" in said
    assert "hunter2" not in said


def test_a_setting_that_changed_is_in_the_plan() -> None:
    before = spec_of("etcd", kv=3)
    after = spec_of("etcd", previous=before, kv=3, set={"heartbeat": "100"})
    causes = {step.cause for step in reconcile(after, standing(before)).steps}
    assert (
        "its spec has changed: /etc/etcd/etcd.env ETCD_HEARTBEAT_INTERVAL=50 -> ETCD_HEARTBEAT_INTERVAL=100" in causes
    )


def test_a_plan_of_a_hundred_nodes_has_short_cells() -> None:
    spec: Spec = spec_of("swarm", agent=100)
    table = rows(reconcile(spec, replace(standing(spec), containers={}, members=None)))
    assert max(len(cell) for row in table for cell in row) < 120
