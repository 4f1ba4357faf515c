"""A demo's Markdown file as data: what is shown, what is run, what is expected. Errors name the file and the line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from minicluster.errors import UsageError, nearest
from minicluster.model import durations

#: Seconds that a command may take, unless its block says otherwise.
DEFAULT_TIMEOUT = 120.0
#: In a line that is expected: any text.
ANY = "..."

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Heading:
    """A heading; one of level 2 begins a step."""

    line: int
    level: int
    text: str


@dataclass(frozen=True)
class Prose:
    """Markdown that is shown."""

    line: int
    text: str


@dataclass(frozen=True)
class File:
    """A file that is shown, and written into the folder that commands run in."""

    line: int
    name: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of the shell, and what is expected of it."""

    line: int
    text: str
    expected: tuple[str, ...] = ()  #: lines that its output has, in this order; ``...`` in them is any text
    fails: bool = False  #: its exit status is not 0
    within: float = 0.0  #: seconds in which it is repeated until all is as expected; 0: it runs once
    timeout: float = DEFAULT_TIMEOUT  #: seconds that it may take, each time


Part: TypeAlias = "Heading | Prose | File | Command"


@dataclass(frozen=True)
class Demo:
    """A demo."""

    name: str
    path: Path
    title: str
    parts: tuple[Part, ...]
    profile: str = ""  #: name or folder; "" where the file does not say
    size: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  #: as ``up --set`` takes them
    note: str = ""  #: what is shown first, such as where it was never run
    order: int = 50  #: of several profiles that have a demo of this name, the lowest goes first

    @property
    def commands(self) -> list[Command]:
        return [part for part in self.parts if isinstance(part, Command)]


def read(path: Path) -> Demo:
    """Reads and checks a demo's file.

    Raises:
        UsageError: it cannot be read, or is malformed; ``what`` starts with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "It is not UTF-8."
        raise UsageError(f"cannot read {path}", why or "", "Name a Markdown file.") from None
    return parse(path, text)


def parse(path: Path, text: str) -> Demo:
    """Checks the text of a demo's file. Raises as :func:`read` does."""
    lines = text.splitlines()
    about, start = _front_matter(path, lines)
    parts = tuple(_parts(path, lines, start))
    first = parts[0] if parts else None
    if not isinstance(first, Heading) or first.level != 1:
        line = first.line if first else len(lines)
        raise _error(path, line, "a demo begins with its title", "Write '# TITLE' in front of everything else.")
    demo = Demo(path.stem, path, first.text, parts[1:], **about)
    if not demo.commands:
        raise _error(
            path,
            first.line,
            "no command in this demo",
            "Commands are lines that begin with '$ ' in a ```console block.",
        )
    return demo


def _error(path: Path, line: int, what: str, fix: str = "", why: str = "") -> UsageError:
    return UsageError(f"{path}:{line}: {what}", why, fix or "docs/demos.md has the format.")


# What stands in front


def _front_matter(path: Path, lines: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The keys between the two lines ``---``, and the index of the first line after them."""
    if not lines or lines[0].rstrip() != "---":
        return {}, 0
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if not end:
        raise _error(path, 1, "the front matter has no end", "End it with a line '---'.")
    import yaml

    try:
        data = yaml.load("\n".join(lines[1:end]), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _error(
            path, (mark.line if mark else 0) + 2, "the front matter is not YAML", "", str(getattr(error, "problem", ""))
        ) from None
    if data is None:
        data = {}

    def line_of(key: object) -> int:
        return next((i for i, line in enumerate(lines[:end], 1) if line.lstrip("'\"").startswith(str(key))), 2)

    if not isinstance(data, dict):
        raise _error(path, 2, "the front matter is not a mapping", "Write KEY: VALUE lines.")
    found: dict[str, Any] = {}
    for key, value in data.items():
        rule = _KEYS.get(key)
        if rule is None:
            raise _error(path, line_of(key), f"no key {key!r} in a demo", nearest(str(key), _KEYS))
        name, check, what = rule
        if not check(value):
            raise _error(path, line_of(key), f"{key} must be {what}")
        found[name] = {str(k): _setting(v) for k, v in value.items()} if key == "set" else value
    return found, end + 1


def _setting(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and _is_number(n) for k, n in value.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, (str, int, float)) for v in value.values())


#: Key of the front matter -> field of a demo, what its value may be, and that in words.
_KEYS = {
    "profile": ("profile", _is_text, "a profile's name"),
    "size": ("size", _is_size, "numbers of nodes by role, such as {agent: 3}"),
    "set": ("settings", _is_settings, "settings by name, such as {failover: quick}"),
    "note": ("note", _is_text, "a text"),
    "order": ("order", _is_number, "a number"),
}


# What follows


def _parts(path: Path, lines: Sequence[str], start: int) -> Iterator[Part]:
    prose: list[str] = []
    began = start

    def pending() -> Iterator[Prose]:
        text = "\n".join(prose).strip("\n")
        if text:
            yield Prose(began + 1 + next(i for i, line in enumerate(prose) if line.strip()), text)
        prose.clear()

    at = start
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.fullmatch(line):
            end = _end(path, lines, at, fence[1])
            words = fence[2].split()
            body = lines[at + 1 : end]
            if words[:1] == ["console"]:
                yield from pending()
                yield from _console(path, at + 1, words[1:], body)
                began = end + 1
            elif any(word.startswith("file=") for word in words):
                yield from pending()
                yield _file(path, at + 1, words, body)
                began = end + 1
            else:  # code that is shown only
                prose += lines[at : end + 1]
            at = end + 1
            continue
        if heading := _HEADING.fullmatch(line):
            yield from pending()
            yield Heading(at + 1, len(heading[1]), heading[2])
            began = at + 1
        else:
            prose.append(line)
        at += 1
    yield from pending()


def _end(path: Path, lines: Sequence[str], at: int, fence: str) -> int:
    for i in range(at + 1, len(lines)):
        closing = lines[i].strip()
        if closing.startswith(fence) and not closing.strip(fence[0]):
            return i
    raise _error(path, at + 1, "this block has no end", f"End it with a line {fence}")


def _file(path: Path, line: int, words: Sequence[str], body: Sequence[str]) -> File:
    language, *options = words
    if "=" in language or len(options) != 1:
        raise _error(path, line, f"{' '.join(words)}: not a file", "Write ```LANGUAGE file=NAME.")
    name = options[0].partition("=")[2]
    if not _FILE_NAME.fullmatch(name):
        raise _error(path, line, f"{name or 'file='}: not a file's name", "Use letters, digits, '_', '-' and '.'.")
    return File(line, name, language, "".join(f"{one}\n" for one in body))


def _console(path: Path, line: int, words: Sequence[str], body: Sequence[str]) -> Iterator[Command]:
    options = _options(path, line, words)
    command: list[str] = []
    expected: list[str] = []
    began = line
    last = ""  #: what the line before was

    def complete() -> Iterator[Command]:
        if command:
            lines = tuple(one for one in expected if one.strip() not in ("", ANY))
            yield Command(began, "\n".join(command), lines, **options)
        command.clear()
        expected.clear()

    for number, text in enumerate(body, line + 1):
        if text == "$" or text.startswith("$ "):
            yield from complete()
            if not text[2:].strip():
                raise _error(path, number, "no command after '$'")
            command, began, last = [text[2:]], number, "command"
        elif last == "command" and (text == ">" or text.startswith("> ")):
            command.append(text[2:])
        elif command:
            expected.append(text)
            last = "output"
        elif text.strip():
            raise _error(
                path, number, "output in front of the first command", "A line with a command begins with '$ '."
            )
    if not command:
        raise _error(path, line, "no command in this block", "A line with a command begins with '$ '.")
    yield from complete()


def _options(path: Path, line: int, words: Sequence[str]) -> dict[str, Any]:
    """What the words after ``console`` mean."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name in found:
            raise _error(path, line, f"{name} is given twice")
        if word == "fails":
            found["fails"] = True
        elif name in ("within", "timeout") and equals:
            try:
                found[name] = durations.seconds(value)
            except UsageError as error:
                raise _error(path, line, f"{word}: not a duration", error.fix) from None
        else:
            raise _error(path, line, f"{word}: no such option", "The options are within=TIME, timeout=TIME and fails.")
    return found


# What is expected


def missing(expected: Sequence[str], output: str) -> str:
    """The first expected line that an output does not have, after the lines before it; "" if it has all.

    Runs of white space are equal, and ``...`` is any text.

    >>> missing(["web  10/10", "agent-... Ready"], "NAME TASKS\\nweb    10/10\\nagent-1   Ready\\n")
    ''
    >>> missing(["b", "a"], "a\\nb\\n")
    'a'
    """
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for wanted in expected:
        pattern = _pattern(wanted)
        if not any(pattern.fullmatch(line) for line in lines):
            return wanted
    return ""


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in " ".join(line.split()).split(ANY)))
