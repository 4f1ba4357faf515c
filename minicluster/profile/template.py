"""Templates: Jinja in its sandbox, strict about undefined names."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

from minicluster.errors import ProfileError, nearest
from minicluster.profile.deferred import HasNul, NotYet, environment, marked
from minicluster.profile.variables import elsewhere

if TYPE_CHECKING:
    from jinja2 import Template


class FunctionFailed(Exception):
    """A function that templates call, such as ``endpoint`` or ``secret``, refuses its arguments; the text says why."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


@cache
def _template(text: str) -> Template:
    """Compiled once: every node of a role has the same."""
    return environment().from_string(text)


def render(text: str, context: Mapping[str, Any], where: str, *, file: str = "", place: str = "") -> str:
    """Renders a template; where a value is deferred, the result has its marker.

    Args:
        where: position for errors, of a string within a profile.
        file: name of a template file; errors then give a line in it.
        place: one of :data:`minicluster.profile.variables.PLACES`.

    Raises:
        ProfileError: for a syntax error, an undefined name (with the nearest known one), a deferred value that is
            not just joined into text, or any other failure.
    """
    if "\0" in text:
        raise ProfileError(f"{file or where}: a NUL in the text", "", "Remove it.")
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    from jinja2 import TemplateSyntaxError, UndefinedError

    line = 1

    def at(number: int | None) -> str:
        nonlocal line
        line = number or 1
        return f"{file}:{line}:1" if file else where

    try:
        return marked(_template(text).render(context))
    except TemplateSyntaxError as error:
        what, why, fix = f"{at(error.lineno)}: not a valid template: {error.message or ''}", "", ""
    except UndefinedError as error:
        message = error.message or "undefined name"
        found = re.search(r"'([^']+)' is undefined", message) or re.search(r"has no attribute '([^']+)'", message)
        what, why, fix = f"{at(_line(error))}: {message}", "", ""
        if found and "attribute" in message:
            fix = nearest(found[1], _names(getattr(error, "of", None)))
        elif found:
            why = elsewhere(found[1])
            fix = f"Available in {place}: {', '.join(sorted(context))}." if why else nearest(found[1], context)
    except NotYet as error:
        what = f"{at(_line(error))}: {error} is a deferred value"
        why = "It exists only when the cluster runs, after the template is rendered."
        fix = "Use it only inside a text (`{{ }}`, `~`, `+`); conditions, sums, loops and filters cannot use it."
    except HasNul as error:
        what, why, fix = f"{at(_line(error))}: a NUL in the text", "", "Remove it."
    except FunctionFailed as error:
        what, why, fix = f"{at(_line(error))}: the template fails", str(error), error.fix
    except Exception as error:  # an expression can fail in any way that Python can
        if _raised_by_function(error, context):
            raise
        what, why, fix = f"{at(_line(error))}: the template fails", f"{type(error).__name__}: {error}", ""
    raise ProfileError(what, "\n".join(filter(None, [why, f"In the template: {_shown(text, line)}"])), fix)


def _raised_by_function(error: BaseException, context: Mapping[str, Any]) -> bool:
    """Whether an error was raised within one of our functions that templates call: then it is a bug of ours."""
    files = {value.__code__.co_filename for value in context.values() if isinstance(value, FunctionType)}
    return any(frame.filename in files for frame in traceback.extract_tb(error.__traceback__))


def _line(error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return lines[-1] if lines else None


def _shown(text: str, line: int) -> str:
    """A line of a template, shortened."""
    lines = text.splitlines()
    found = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return found if len(found) <= 80 else found[:77] + "..."


def _names(value: Any) -> list[str]:
    """The attributes that templates can use of a value."""
    if isinstance(value, Mapping):
        return [str(name) for name in value]
    return [name for name in dir(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
