"""What `up` says of memory and disk before it takes any, on an engine whose machine is this one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster import doctor
from minicluster.doctor import Check
from minicluster.errors import InsufficientMemory
from minicluster.model.events import Event
from minicluster.operations import preflight, up
from minicluster.operations.up_options import UpOptions
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

GIB = 1 << 30

Told = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def told(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What is reported before an `up` of three etcds, as (kind, text).

    Its arguments: GiB of free disk and of memory in all, whether the engine has the images, and `--force`.
    """
    info = replace(engine.info, local=True, data_root="/images")
    monkeypatch.setattr(FakeEngine, "info", info)
    fits = doctor.check_memory

    def told(
        profile: str = "etcd", *, disk: float = 100, memory: float = 8, images: bool = True, force: bool = False
    ) -> list[tuple[str, str]]:
        facts = os.statvfs_result((4096, 4096, 0, 0, int(disk * GIB) // 4096, 2000, 1000, 1000, 0, 255))

        def check_memory(footprint: int, _total: int, _root: Path | None) -> Check:
            return fits(footprint, int(memory * GIB), None)

        engine.every_image = images
        up_plan = up.plan(engine, "c", UpOptions(profile=profile))
        events: list[Event] = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", {"/images": facts}.__getitem__)
            patch.setattr(doctor, "check_memory", check_memory)
            preflight.check_capacity(engine, up_plan.spec, up_plan.observed, up_plan.plan, force, events.append)
        return [(event.kind, event.text) for event in events]

    return told


def test_what_the_nodes_will_take_of_memory_is_told(told: Told) -> None:
    assert told() == [("preflight", "memory: 8.0 GiB in all, 96 MiB needed")]


def test_nodes_that_do_not_fit_into_memory_are_refused_unless_forced(told: Told) -> None:
    with pytest.raises(InsufficientMemory, match=r"cluster c does not fit into memory: 92 MiB in all, 96 MiB needed"):
        told(memory=0.09)
    assert [kind for kind, _ in told(memory=0.09, force=True)] == ["preflight"]


@pytest.mark.parametrize(
    ("disk", "images", "said"),
    [
        (6, False, ""),
        (3, True, ""),
        (3, False, "3.0 GiB free in /images: little for building images"),
        (0.5, True, "512 MiB free in /images"),
        (0.5, False, "512 MiB free in /images"),
    ],
)
def test_little_room_on_the_disk_is_told_where_it_may_not_do(told: Told, disk: float, images: bool, said: str) -> None:
    notes = [text for kind, text in told(disk=disk, images=images) if kind == "note"]
    assert [note.partition(". ")[0] for note in notes] == ([f"Low disk space: {said}"] if said else [])
    assert all(note.endswith("`docker builder prune` removes build caches.") for note in notes)


def test_nodes_of_unknown_size_may_have_an_image_that_is_to_be_built(told: Told) -> None:
    ((kind, text),) = told(str(TOY), disk=3, images=False)
    assert (kind, text.partition(":")[0]) == ("note", "Low disk space")


def test_an_image_that_is_pulled_is_not_built(told: Told, write_profile: Callable[..., Path]) -> None:
    assert told(str(write_profile()), disk=3, images=False) == []
