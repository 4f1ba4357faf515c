"""Templates: Jinja in its sandbox, strict about undefined names."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from minicluster.errors import ProfileError, nearest

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment


@cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _template(text: str) -> Template:
    """Compiled once: every node of a role has the same."""
    return _environment().from_string(text)


def render(text: str, context: Mapping[str, Any], where: str, *, file: str = "") -> str:
    """Renders a template.

    Args:
        where: position for errors, of a string within a profile.
        file: name of a template file; errors then give a line in it.

    Raises:
        ProfileError: for a syntax error, an undefined name (with the nearest known one), or any other failure.
    """
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    from jinja2 import TemplateSyntaxError, UndefinedError

    try:
        return _template(text).render(context)
    except TemplateSyntaxError as error:
        raise ProfileError(f"{_at(file, where, error.lineno)}: not a valid template", error.message or "") from None
    except UndefinedError as error:
        message = error.message or "undefined name"
        found = re.search(r"'([^']+)' is undefined", message) or re.search(r"has no attribute '([^']+)'", message)
        names = {name for value in [context, *context.values()] for name in _names(value)}
        fix = nearest(found[1], names if "attribute" in message else context) if found else ""
        raise ProfileError(
            f"{_at(file, where, _line(error))}: {message}", f"In the template {_short(text)}.", fix
        ) from None
    except Exception as error:  # a template can fail in any way that Python can
        raise ProfileError(
            f"{_at(file, where, _line(error))}: the template fails", f"{type(error).__name__}: {error}"
        ) from None


def _at(file: str, where: str, line: int | None) -> str:
    return f"{file}:{line or 1}:1" if file else where


def _line(error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return lines[-1] if lines else None


def _short(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return repr(first if len(first) <= 80 else first[:77] + "...")


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(name) for name in value]
    if isinstance(value, (list, tuple)):
        return _names(value[0]) if value else []
    return [name for name in dir(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
