"""Edits of a YAML (or JSON) document that keep every other byte: comments, order, quotes, anchors, line ends.

Loading and dumping does not: even ruamel.yaml's round trip rewrites ``null``, indentation, the layout of JSON, unused
anchors and line ends. So ruamel.yaml is only the parser here: it reports where each node is in the text, and an edit
replaces that part. Each edit is verified: the new text must parse to exactly the data that is wanted.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

Key = str | int
Path = tuple[Key, ...]

_NULLS = ("", "~", "null", "Null", "NULL")
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+(?:#.*\s+)*)*")  # an anchor and a tag: they stay when the node is replaced
_COLON = re.compile(r"\s*:")
_PLAIN = re.compile(r"[^\W\d_](?:[\w.@:/+=-]*[\w+/=])?")  # text in every version of YAML, unless it is one of:
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class InvalidDocument(ValueError):
    """The text is not a YAML document that can be edited."""


def load(text: str) -> Any:
    """A document as Python's types."""
    return YAML(typ="safe", pure=True).load(text)


@dataclass(frozen=True)
class _Node:
    """A node, and where it is in the text.

    Attributes:
        begin: where the node begins, or its key if it has one.
        start: where its value begins.
        end: where its value ends; for a block collection, where its last scalar ends.
        style: a scalar's quote, or "" if it has none; "{" of a flow collection, "" of a block collection.
        value: a scalar as text.
    """

    kind: Literal["scalar", "list", "map"]
    begin: int
    start: int
    end: int
    style: str
    value: str = ""
    children: dict[Key, _Node] = field(default_factory=dict)

    @property
    def data(self) -> Any:
        """Scalars are text, whatever their type; null is None."""
        if self.kind == "map":
            return {key: child.data for key, child in self.children.items()}
        if self.kind == "list":
            return [child.data for child in self.children.values()]
        return None if not self.style and self.value in _NULLS else self.value


@dataclass(frozen=True)
class Document:
    """A document whose root is a mapping. Edits return a new one."""

    text: str

    def __post_init__(self) -> None:
        if self._root.kind != "map" and self._root.data is not None:
            raise InvalidDocument("It is not a mapping.")

    @cached_property
    def _root(self) -> _Node:
        try:
            found = list(YAML(typ="safe", pure=True).parse(self.text))
            anchors = {event.anchor for event in found if isinstance(event, (ScalarEvent, CollectionStartEvent))}
            for event in found:
                if isinstance(event, AliasEvent) and event.anchor not in anchors:
                    raise ValueError(f"There is no anchor &{event.anchor}.")
            events = iter(found)
            nodes = [_compose(next(events), events, self.text) for e in events if isinstance(e, DocumentStartEvent)]
        except (YAMLError, ValueError, RecursionError) as error:
            raise InvalidDocument(" ".join(str(error).split())) from None
        if len(nodes) > 1:
            raise InvalidDocument("It has more than one document.")
        end = len(self.text)
        return nodes[0] if nodes else _Node("scalar", end, end, end, "")

    @property
    def data(self) -> dict[str, Any]:
        """The document as mappings, lists and text. Aliases are not followed: they are ``*NAME``."""
        return self._root.data or {}

    def put(self, path: Path, key: str, value: Any) -> Document:
        """Sets a key of the mapping at a path.

        Text that replaces a scalar gets the same quotes. Without quotes, one of null's words is null.
        """
        data, at = self._wanted(path)
        parent = self._at(path)
        old = parent.children.get(key)
        if old is None:
            at[key] = _data(value)
            return self._add(parent, _flow({key: value})[1:-1], _block({key: value}), data)
        style = old.style if old.kind == "scalar" else ""
        null = value in _NULLS and not style
        at[key] = None if null else _data(value)
        if at[key] == old.data:
            return self
        start = old.start
        if isinstance(value, str):
            new = value if null else _scalar(value, style)
        elif isinstance(value, list) and start == old.end and not parent.style:
            return self._insert_lines(start, self._column(parent.start), _block(value), data)
        elif parent.style or old.style or old.kind == "scalar":
            new = _flow(value)
        else:
            new = f"{self._newline}{' ' * self._column(start)}".join(_block(value))
        if start == old.end:
            new = f" {new}"
        elif not new and self.text[start - 1] == " ":
            start -= 1
        return self._replace(start, old.end, new, data)

    def append(self, path: Path, value: Any) -> Document:
        """Appends to the list at a path."""
        data, at = self._wanted(path)
        at.append(_data(value))
        return self._add(self._at(path), _flow(value), _block([value]), data)

    def remove(self, path: Path) -> Document:
        """Removes an item of a list, or a key of a mapping. A block list of which nothing is left becomes null."""
        above, key = path[:-1], path[-1]
        data, at = self._wanted(above)
        del at[key]
        parent, node = self._at(above), self._at(path)
        if parent.style:
            return self._replace(*_flow_span(parent, node), "", data)
        if not at and above:
            _walk(data, above[:-1])[above[-1]] = None
        begin = self._line_start(node.begin)
        if not re.fullmatch(r"[ \t]*(-[ \t]+)?", self.text[begin : node.begin]):
            raise InvalidDocument(f"{key} is not on a line of its own.")
        end = self._line_end(node.end)
        if begin:  # with the end of the line before, so that what follows keeps its place
            begin = self._line_end(begin)
        else:
            end = min(len(self.text), end + len(self._newline))
        return self._replace(begin, end, "", data)

    def word(self, key: str) -> str:
        """A scalar of the root as text, null too: "" or ``null`` or ``~``."""
        return self._root.children[key].value

    def _add(self, parent: _Node, flow: str, block: list[str], wanted: Any) -> Document:
        last = list(parent.children.values())[-1:]
        if parent.style:
            at = last[0].end if last else parent.start + 1
            return self._replace(at, at, f", {flow}" if last else flow, wanted)
        return self._insert_lines(parent.end, self._column(parent.start) if last else 0, block, wanted)

    def _insert_lines(self, after: int, column: int, lines: list[str], wanted: Any) -> Document:
        at = self._line_end(after)
        new = self._newline.join(" " * column + line for line in lines)
        return self._replace(at, at, self._newline + new if at else new + self._newline, wanted)

    def _replace(self, start: int, end: int, new: str, wanted: Any) -> Document:
        with contextlib.suppress(InvalidDocument):
            changed = Document(self.text[:start] + new + self.text[end:])
            if changed.data == wanted:
                return changed
        line = self.text.count("\n", 0, start) + 1
        raise InvalidDocument(f"It has an unusual style near line {line}, which cannot be edited.")

    def _wanted(self, path: Path) -> tuple[Any, Any]:
        """A copy of the data to change, and what is at a path in it."""
        data = copy.deepcopy(self.data)
        return data, _walk(data, path)

    def _at(self, path: Path) -> _Node:
        node = self._root
        for key in path:
            node = node.children[key]
        return node

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _column(self, at: int) -> int:
        start = self._line_start(at)
        return at - start - self.text.startswith("\ufeff", start, at)

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _line_end(self, at: int) -> int:
        """The end of a line, before its line break. A place at the start of a line belongs to the line before."""
        end = self.text.find("\n", at - 1 if self.text[:at].endswith("\n") else at)
        if end < 0:
            return len(self.text)
        return end - 1 if self.text[:end].endswith("\r") else end


def _walk(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _compose(event: NodeEvent, events: Iterator[Any], text: str, begin: int | None = None) -> _Node:
    """The node that an event begins, with all that is in it."""
    properties = _PROPERTIES.match(text, event.start_mark.index)
    start = properties.end() if properties else event.start_mark.index
    end = event.end_mark.index
    begin = event.start_mark.index if begin is None else begin
    if isinstance(event, AliasEvent):
        return _Node("scalar", begin, event.start_mark.index, end, "*", f"*{event.anchor}")
    if isinstance(event, ScalarEvent):
        if event.style in ("|", ">") and "+" not in text[start:end].split("\n", 1)[0]:
            end = len(text[:end].rstrip())  # empty lines that follow do not belong to it
        elif start > end:  # properties of an empty scalar
            start = end
        return _Node("scalar", begin, start, end, event.style or "", event.value)
    assert isinstance(event, CollectionStartEvent)
    mapping = isinstance(event, MappingStartEvent)
    children: dict[Key, _Node] = {}
    for item in events:
        if isinstance(item, CollectionEndEvent):
            if event.flow_style:
                end = item.end_mark.index
            break
        child = _compose(item, events, text)
        key: Key = len(children)
        if mapping:
            if child.kind != "scalar" or child.value in children:
                raise ValueError(f"A key {'occurs twice' if child.kind == 'scalar' else 'is not text'}: {child.data}")
            key, colon, item = child.value, _COLON.match(text, child.end), next(events)
            child = _compose(item, events, text, child.begin)
            if colon and item.start_mark.index == item.end_mark.index and isinstance(item, ScalarEvent):
                # Nothing is there: the parser reports the position of what comes next.
                child = replace(child, start=colon.end(), end=colon.end())
        children[key] = child
        end = child.end
    return _Node("map" if mapping else "list", begin, start, end, "{" if event.flow_style else "", children=children)


def _flow_span(parent: _Node, node: _Node) -> tuple[int, int]:
    """A node in a flow collection, with the comma that goes with it."""
    siblings = list(parent.children.values())
    at = siblings.index(node)
    if at:
        return siblings[at - 1].end, node.end
    return node.begin, siblings[1].begin if len(siblings) > 1 else node.end


def _data(value: Any) -> Any:
    """A value as `Document.data` shows it."""
    if isinstance(value, str):
        return value
    return Document(_flow({"value": value})).data["value"]


def _flow(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _block(value: Any) -> list[str]:
    """The lines of a value in the style of kubectl."""
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            inner = _block(item)
            if isinstance(item, dict) and item:
                lines += [f"{_scalar(key)}:", *(f"  {line}" for line in inner)]
            elif isinstance(item, list) and item:
                lines += [f"{_scalar(key)}:", *inner]
            else:
                lines.append(f"{_scalar(key)}: {inner[0]}")
        return lines
    if isinstance(value, list) and value:
        blocks = [_block(item) for item in value]
        return [f"{'  ' if at else '- '}{line}" for block in blocks for at, line in enumerate(block)]
    return [_scalar(value) if isinstance(value, str) else _flow(value)]


def _scalar(value: str, style: str = "") -> str:
    if style == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if not style and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _flow(value)
