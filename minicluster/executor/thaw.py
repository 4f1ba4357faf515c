"""Containers whose engine waits for itself.

The process of Docker's runtime that holds a container (containerd-shim) can wait for itself when the container is
paused while a command in it starts and another one ends: the command is frozen, and until it is not, the process takes
no request, not even to resume or to kill, and Docker waits for it without a limit. Thawing the control group
ends that; where it does not, killing the process does, which ends the container.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minicluster.errors import EngineError, MiniclusterError
from minicluster.executor import helper
from minicluster.model import labels

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

PATIENCE = 10.0  #: seconds that the engine has for what takes it a fraction of one
STOP_PATIENCE = 30.0  #: seconds that it has to stop a container, beside those that the container has to end

#: Puts a state (a word of version 1, a number of version 2) into the control group of the container with this ID, and
#: kills the process that holds it where that is asked for. For the shell of any image.
_PROGRAM = r"""
for at in $(find /sys/fs/cgroup -type d -name "*$1*"); do
  [ ! -e "$at/freezer.state" ] || echo "$2" >"$at/freezer.state"
  [ ! -e "$at/cgroup.freeze" ] || echo "$3" >"$at/cgroup.freeze"
done
for at in $([ -z "$4" ] || grep -lF -e "$1" /proc/[0-9]*/cmdline); do
  process=${at#/proc/} process=${process%/cmdline}
  [ "$(cat "/proc/$process/comm")" != containerd-shim ] || kill -KILL "$process"
done
echo "in force"
sleep 5
"""
_THAWED, _FROZEN, _ENDED = ("THAWED", "0", ""), ("FROZEN", "1", ""), ("THAWED", "0", "end")


def start(engine: Engine, name: str) -> None:
    """Starts a container, or resumes it where it is paused."""
    with thawing(engine, name):
        try:
            engine.start_container(name)
        except EngineError as error:
            if "not paused" not in error.why:
                raise
            # It was thawed behind the engine's back, which takes it for a paused one: it is paused again.
            _put(engine, name, _FROZEN)
            engine.start_container(name)


@contextmanager
def thawing(engine: Engine, name: str, *, stops: float | None = None, ends: bool = False) -> Iterator[None]:
    """Helps the engine where what the block does with a container has not ended after a while.

    Args:
        stops: the container is asked to end, and has so many seconds for it.
        ends: the container is to end: where it does not help to thaw it, it is killed.
    """
    done = threading.Event()
    patience = PATIENCE if stops is None else STOP_PATIENCE + stops

    def watch() -> None:
        if not done.wait(patience):
            _put(engine, name, _THAWED)
            if ends and not done.wait(PATIENCE + (stops or 0.0)):  # what was frozen may have all of its time
                _put(engine, name, _ENDED)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(PATIENCE)  # a helper that it has just created is not left, and thaws nothing that is paused next


def _put(engine: Engine, name: str, state: tuple[str, str, str]) -> None:
    with suppress(MiniclusterError):  # then the call ends as it would have without this
        found = engine.container(name)
        if found is None:
            return
        image = helper.image().ref
        there = engine.hosts.get(found.host, engine).has_image(image)
        about = {
            key: found.labels[key] for key in (labels.CLUSTER, labels.PROFILE, labels.HOSTS) if key in found.labels
        }
        about |= {labels.HOST: found.host} if found.host else {}
        command = ["sh", "-c", _PROGRAM, "sh", found.id, *state]
        if labels.CLUSTER in about:
            helper.work(engine, about, command, ref=image if there else found.image)
