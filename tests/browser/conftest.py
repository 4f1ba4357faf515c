"""A headless Chromium, and a dashboard of clusters on an engine in memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from tests.browser.page import Page
from tests.fakes import FakeEngine
from tests.unit.conftest import _own_folders, _own_signals, engine, write_profile
from tests.unit.samples import TOY

__all__ = ["_own_folders", "_own_signals", "engine", "write_profile"]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser without a window, as large as a projector."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("there is no chromium with chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's own refuses to run as root
    for argument in (
        "--headless=new",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        *sandbox,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_window_size(1920, 1080)
    yield Page(made)
    made.quit()


@pytest.fixture(autouse=True)
def _forgets(page: Page) -> Iterator[None]:
    """No test leaves cookies, a theme or messages to the next."""
    yield
    page.forget()


@pytest.fixture
def rows(engine: FakeEngine) -> Callable[..., None]:
    """Says what runs in clusters of the profile below: pairs of a name and a node, and whole rows."""

    def say(*found: tuple[str, str] | dict[str, object]) -> None:
        made = [
            row if isinstance(row, dict) else {"name": row[0], "node": row[1], "group": "web", "state": "running"}
            for row in found
        ]
        engine.answers["toy-workload"] = ExecResult(0, "\n".join(map(json.dumps, made)), "")

    return say


@pytest.fixture
def start(engine: FakeEngine, write_profile: Callable[..., Path]) -> Callable[..., Cluster]:
    """Starts a cluster whose masters tell what runs."""
    text = (TOY / "profile.yaml").read_text() + "workload: {on: master, run: [toy-workload]}\n"
    files = {str(path.relative_to(TOY)): path.read_text() for path in TOY.rglob("*") if path.is_file()}
    folder = write_profile(text, {name: content for name, content in files.items() if name != "profile.yaml"})

    def up(name: str = "toy", **size: int) -> Cluster:
        return Cluster.up(str(folder), name=name, size={"master": 3, **size}, engine=engine)

    return up
