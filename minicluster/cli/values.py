"""Reading the words that options get, without pydantic.

Newer typers read every option through pydantic, whose import alone would double the CPU time of a command such as
``minicluster ls``. The few kinds of value that this command line has are read here instead. Older typers have no such
place to step in at, and no need: they read them by hand as well.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args, get_origin

import typer


class Words:
    """Reads what one parameter got."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """The value as the command's function takes it."""
        if param.multiple or param.nargs == -1:
            return list(value or ())
        if value is None or isinstance(value, self.kind):
            return value
        try:
            result = self.kind(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {self._expected()}.", ctx=ctx, param=param) from None
        if getattr(param, "min", None) is not None and result < param.min:
            raise typer.BadParameter(f"{value} is less than {param.min}.", ctx=ctx, param=param)
        return result

    def _expected(self) -> str:
        if issubclass(self.kind, Enum):
            return f"one of {', '.join(str(member.value) for member in self.kind)}"
        return {int: "a whole number", float: "a number"}.get(self.kind, "right")


def read_by_hand(params: list[Any]) -> list[Any]:
    """Makes parameters of the kinds known here be read by :class:`Words`, where this typer would take pydantic."""
    for param in params:
        if getattr(param, "_runtime_param", ...) is None:
            kind = param.type_descriptor.annotation
            item = get_args(kind)[0] if get_origin(kind) is list else kind
            if item in (str, int, float, bool) or (isinstance(item, type) and issubclass(item, Enum)):
                param._runtime_param = Words(item)
    return params
