"""``.env`` as compose reads it: lines of NAME=VALUE, quotes, comments, and variables in values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from minicluster.errors import UsageError
from minicluster.project.interpolate import Invalid, interpolate

_LINE = re.compile(r"(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?P<sign>[=:]|(?=[\n#])|$)")
_SINGLE = re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_COMMENT = re.compile(r"[ \t]+#.*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "$": "$$"}


def read(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a file; {} if there is none.

    Args:
        environment: variables that its values may use; they precede its own.

    Raises:
        UsageError: a line is not valid, with its number.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"), environment, str(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read", str(error), "Correct or remove the file.") from None


def parse(text: str, environment: Mapping[str, str], path: str) -> dict[str, str]:
    """The variables of a text; see :func:`read`."""
    text, found, at = text.replace("\r\n", "\n"), dict[str, str](), 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        if text[at] in " \t\n":
            at += 1
            continue
        if text[at] == "#":
            at = _line_end(text, at)
            continue
        match = _LINE.match(text, at)
        if match is None:
            shown = text[at : _line_end(text, at)]
            raise _invalid(path, line, f"not a variable: {shown.partition('=')[0]:.40}", "Write NAME=VALUE.")
        at = match.end()
        if not match["sign"]:  # only a name: it is the environment's
            if match["name"] in environment:
                found[match["name"]] = environment[match["name"]]
            at = _line_end(text, at)
            continue
        try:
            found[match["name"]], at = _value(text, at, {**found, **environment})
        except Invalid as error:
            raise _invalid(path, line, str(error), error.fix) from None
    return found


def _value(text: str, at: int, values: Mapping[str, str]) -> tuple[str, int]:
    """A value, and where the next line begins."""
    after = at + len(text[at : _line_end(text, at)]) - len(text[at : _line_end(text, at)].lstrip(" \t"))
    if text.startswith(("'", '"'), after):
        at = after
        quoted = (_SINGLE if text[at] == "'" else _DOUBLE).match(text, at)
        if quoted is None:
            raise Invalid("missing closing quote", "Add it.")
        end = _line_end(text, quoted.end())
        rest = text[quoted.end() : end].strip()
        if rest and not rest.startswith("#"):
            raise Invalid("a text after the closing quote", "Quote the whole value, and put # before a comment.")
        if text[at] == "'":
            return quoted[1].replace("\\'", "'"), end
        unescaped = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), quoted[1], flags=re.DOTALL)
        return interpolate(unescaped, values), end
    end = _line_end(text, at)
    return interpolate(_COMMENT.sub("", text[at:end]).strip(), values), end


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _invalid(path: str, line: int, what: str, fix: str) -> UsageError:
    return UsageError(f"{path}:{line}: {what}", "", fix)
