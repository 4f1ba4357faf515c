"""``${VARIABLE:-default}`` and the other forms that compose files have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_FORMS = "The forms are $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?error}, ${NAME?error}, "
_FORMS += "${NAME:+replacement} and ${NAME+replacement}; $$ is a dollar sign."


class Invalid(ValueError):
    """A text is not a valid template, or lacks a variable that it demands; the message says what, ``fix`` the rest."""

    def __init__(self, what: str, fix: str = _FORMS) -> None:
        super().__init__(what)
        self.fix = fix


def interpolate(text: str, values: Mapping[str, str], missing: Callable[[str], None] = lambda _name: None) -> str:
    """Replaces variables by their values; ``$$`` is a dollar sign.

    >>> interpolate("${A}-${B:-none}-$A-$$A", {"A": "1"})
    '1-none-1-$A'

    Args:
        missing: is called with the name of a variable that has neither a value nor a default; its value is "".

    Raises:
        Invalid: the text has another form, or a variable has no value and ``?`` demands one.
    """
    parts, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        at = dollar + 1
        if text.startswith("$", at):
            parts.append("$")
            at += 1
        elif text.startswith("{", at):
            end = _end(text, at + 1)
            parts.append(_braced(text[at + 1 : end], values, missing))
            at = end + 1
        elif name := _NAME.match(text, at):
            parts.append(_value(name[0], values, missing))
            at = name.end()
        else:
            raise Invalid(f"not a variable: {text[dollar : dollar + 10]}")
    return "".join([*parts, text[at:]])


def _braced(text: str, values: Mapping[str, str], missing: Callable[[str], None]) -> str:
    """The value of what stands between ``${`` and ``}``."""
    name = _NAME.match(text)
    if name is None:
        raise Invalid(f"not a variable: ${{{text}}}")
    operator = _OPERATOR.match(text, name.end())
    if operator is None:
        if name.end() < len(text):
            raise Invalid(f"not a variable: ${{{text}}}")
        return _value(name[0], values, missing)
    value, word = values.get(name[0]), text[operator.end() :]
    has = bool(value) if operator[0].startswith(":") else value is not None
    if operator[0].endswith("+"):
        return interpolate(word, values, missing) if has else ""
    if has:
        return value or ""
    if operator[0].endswith("?"):
        said = interpolate(word, values, missing)
        raise Invalid(
            f"the variable {name[0]} has no value{said and f': {said}'}", f"Set {name[0]}, or put it into .env."
        )
    return interpolate(word, values, missing)


def _end(text: str, at: int) -> int:
    """The position of the ``}`` that belongs to the ``${`` before a position."""
    depth = 1
    for match in re.compile(r"\$\$|\$\{|\}").finditer(text, at):
        depth += {"${": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.start()
    raise Invalid(f"a ${{ without }}: {text[at - 2 :][:40]}")


def _value(name: str, values: Mapping[str, str], missing: Callable[[str], None]) -> str:
    if name not in values:
        missing(name)
    return values.get(name, "")


def variables(text: str) -> set[str]:
    """The names of the variables in a text, those within defaults included."""
    return set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", text.replace("$$", "")))
