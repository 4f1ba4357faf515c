"""Runs a demo as CI does."""

from __future__ import annotations

from tests.engine.conftest import VERSION, Shell, remains


def check_demo(outer: Shell, name: str, profile: str) -> None:
    """Each command of a demo does what the demo says, and nothing stays."""
    outer.minicluster("image", "build", profile, *VERSION.get(profile, ()), timeout=1500)
    words = ("demo", name, "--profile", profile, "--check", "-o", "json", *VERSION.get(profile, ()))
    done = outer.minicluster(*words, ok=False, timeout=1200)
    (answer,) = done.json
    failed = "".join(f"\n{one['command']}\n{one['output']}" for one in answer["failed"])
    assert answer["verdict"] == "ok", f"{answer['reason']}{failed}"
    assert answer["commands"] > 5
    assert remains(outer, f"demo-{name}-") == {}
