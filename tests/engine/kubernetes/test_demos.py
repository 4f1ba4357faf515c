"""The demos for Kubernetes do what they say."""

from __future__ import annotations

import pytest

from minicluster.demos import catalog
from tests.engine.conftest import Shell
from tests.engine.demos import check_demo


@pytest.mark.long
@pytest.mark.parametrize("name", [path.stem for path, _profile in catalog.files("kubernetes")])
def test_a_demo_does_what_it_says(outer: Shell, name: str) -> None:
    check_demo(outer, name, "kubernetes")
