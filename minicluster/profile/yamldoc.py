"""YAML with positions: every key and value knows its line and column, so that an error can name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from minicluster.errors import ProfileError

Where = tuple[str | int, ...]  #: path of keys and indexes from the document's root


@dataclass
class Document:
    """A parsed file: plain data, and where each part of it stands."""

    path: Path
    data: Any
    keys: dict[Where, str] = field(default_factory=dict)  #: path -> "line:column" of the key
    values: dict[Where, str] = field(default_factory=dict)  #: path -> "line:column" of the value
    overridden: dict[Where, str] = field(default_factory=dict)  #: path -> the option that set it
    defaults: dict[str, Any] = field(default_factory=dict)  #: setting that was overridden -> its value in the file
    written: dict[Where, str] = field(default_factory=dict)  #: path -> a single value as it is written

    def where(self, at: Sequence[str | int], *, key: bool = False) -> str:
        """``FILE:LINE:COLUMN`` of a part, or of the nearest part around it; or the option that set it."""
        path = tuple(at)
        for length in range(len(path), 0, -1):  # an option replaces everything below its path
            if path[:length] in self.overridden:
                return self.overridden[path[:length]]
        while True:
            place = (self.keys if key else self.values).get(path) or self.values.get(path)
            if place:
                return f"{self.path}:{place}"
            if not path:
                return str(self.path)
            path = path[:-1]


@dataclass(frozen=True)
class Kind:
    """What a file is, for errors."""

    name: str  #: with its article
    place: str  #: what to do about one that cannot be read
    example: str  #: what to do about one that is no mapping


PROFILE = Kind(
    "a profile", "Name a folder that holds a profile.yaml.", "`minicluster profile new NAME` writes an example."
)


def parse(path: Path, kind: Kind = PROFILE) -> Document:
    """Reads a file. Raises :class:`ProfileError` with line and column for invalid YAML and for keys given twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read", str(error), kind.place) from None
    document = Document(path, None)
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        document.data = None if root is None else _build(root, (), document, depth=0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        context = f"{error.context}: " if error.context else ""
        raise ProfileError(f"{place}: not valid YAML", f"{context}{error.problem}", "Correct the line.") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not valid YAML", str(error), "Correct the file.") from None
    if not isinstance(document.data, dict):
        raise ProfileError(
            f"{path}:1:1: {kind.name} is a mapping",
            "The file holds something else, or nothing.",
            kind.example,
        )
    return document


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _build(node: yaml.Node, at: Where, document: Document, depth: int) -> Any:
    document.values[at] = _place(node)
    if depth > 50:  # an alias may name its own parent
        raise ProfileError(
            f"{document.path}:{_place(node)}: nested too deeply", "", "Remove the anchor or the lists within lists."
        )
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, value in _pairs(node, document):
            if key.value in result:
                raise ProfileError(
                    f"{document.path}:{_place(key)}: key {key.value!r} is given twice", "", "Remove one."
                )
            inner = (*at, key.value)
            document.keys[inner] = _place(key)
            result[key.value] = _build(value, inner, document, depth + 1)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), document, depth + 1) for i, item in enumerate(node.value)]
    document.written[at] = node.value
    return _scalar(node)


def _pairs(node: yaml.MappingNode, document: Document) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ProfileError(
                f"{document.path}:{_place(key)}: a key must be a scalar",
                "This one is a list or a mapping.",
                "Write it as KEY: VALUE.",
            )
        yield key, value


def _scalar(node: yaml.Node) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    return constructor.construct_object(node)
