"""What is said of a value that a schema refuses: phrases for people in place of pydantic's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minicluster.model.naming import value_text
from minicluster.profile.schema import PATTERNS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST = 60  # characters of a wrong value that are shown


def given(value: Any) -> str:
    """The value that is there instead, as a phrase in the words of YAML; "" for lists and mappings."""
    if not isinstance(value, (str, int, float, type(None))):
        return ""
    text = repr(value) if isinstance(value, str) else "null" if value is None else value_text(value)
    return f", not {text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}"


#: Kind of pydantic's error -> what is said of the value; its context is filled in.
_MUST = {
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "must be an integer",
    "finite_number": "must be an integer",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "extra_forbidden": "is not a key of this",
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "byte_size": "must be a size, such as 512MiB",
    "byte_size_unit": "must be a size, such as 512MiB",
    "value_error": "{error}",
}


def must(item: ErrorDetails) -> str:
    """What is said of a value that the schema refuses: a phrase such as "must be an integer"."""
    about = item.get("ctx") or {}
    if item["type"] == "string_pattern_mismatch" and about["pattern"] in PATTERNS:
        return PATTERNS[about["pattern"]]
    if item["type"] in _MUST:
        return _MUST[item["type"]].format(**about)
    return "has a value of the wrong kind"
