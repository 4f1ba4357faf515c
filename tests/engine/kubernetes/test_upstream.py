"""Some of upstream's own tests, where they are compiled already. All of them: ./run-tests --conformance."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from minicluster.profile import parts
from tests.engine.conftest import Shell

ROOT = Path(__file__).parents[3]
PART = "kubernetes-e2e"
NAME = "t-upstream"

#: Names, services, volumes, policies, autoscaling.
FOCUS = "|".join(
    (
        r"DNS should provide DNS for services ",
        r"DNS should provide DNS for ExternalName services ",
        r"DNS should provide DNS for pods for Hostname ",
        r"Services should serve multiport endpoints from pods ",
        r"Services should be able to change the type from ExternalName to NodePort ",
        r"Services should have session affinity work for NodePort service ",
        r"EmptyDir volumes should support \(non-root,0777,default\) ",
        r"Projected configMap updates should be reflected in volume ",
        r"PersistentVolumes CSI Conformance should run through the lifecycle ",
        r"NetworkPolicy between server and client should support a 'default-deny-all' policy ",
        r"ReplicaSet light .*Should scale from 1 pod to 2 pods",
    )
)


@pytest.mark.long
def test_names_services_volumes_policies_and_autoscaling(outer: Shell) -> None:
    (part,) = parts.resolve({}, [PART], PART, {}).values()
    if part.ref not in outer.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split():
        pytest.skip("upstream's tests are not compiled: ./run-tests --conformance compiles them")
    command = [sys.executable, "-m", "tests.conformance", "--name", NAME, "--no-registry", "--focus", FOCUS]
    try:
        done = outer.run(*command, cwd=ROOT, timeout=1200)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert "ReplicaSet light" not in done.out  # failures are listed below the table
    assert re.search(r"(?m)^all +11 +0 +0 ", done.out), done.out
