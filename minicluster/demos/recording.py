"""A recording of a terminal in the format asciicast, version 2: a header, then a line of JSON for each output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from minicluster.errors import UsageError


class Recording:
    """Records what is written to a terminal, in a file that is there at the end of the ``with`` block.

    Args:
        path: a new file, or one that is replaced once the recording is complete.
        width, height: of the terminal, in columns and lines.
        also: the terminal, which gets the same.
        limit: no pause is longer than this many seconds.
    """

    def __init__(
        self,
        path: Path,
        title: str,
        width: int,
        height: int,
        also: TextIO | None = None,
        *,
        limit: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._also, self._clock = path, also, clock
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        header = {
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": int(time.time()),
            "idle_time_limit": limit,
            "title": title,
            "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"},
        }
        try:
            self._file = self._unfinished.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}", error.strerror or "", "Name a file in another folder.") from None
        self._line(header)
        self._begun = clock()

    def _line(self, data: object) -> None:
        self._file.write(json.dumps(data, ensure_ascii=False) + "\n")

    def write(self, text: str) -> int:
        """Records an output."""
        if text:
            # A terminal's driver puts a carriage return in front of each line's end; a player has no driver.
            self._line([round(self._clock() - self._begun, 6), "o", text.replace("\r\n", "\n").replace("\n", "\r\n")])
        if self._also:
            self._also.write(text)
        return len(text)

    def flush(self) -> None:
        """Passes on what was written."""
        self._file.flush()
        if self._also:
            self._also.flush()

    def isatty(self) -> bool:
        """It is recorded as on a terminal."""
        return True

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Also a demo that was ended early is a recording."""
        self._file.close()
        self._unfinished.replace(self._path)
