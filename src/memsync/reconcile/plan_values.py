"""Checks the values in a plan file, because whoever edits one can compute its checksum.

Each function returns the value that was meant. It raises ValueError or TypeError for what no plan
may hold, and KeyError for what is missing.
"""

import re
from collections.abc import Mapping
from sys import intern
from typing import Any
from uuid import UUID

from memsync.model.ids import PointId

_DIGEST = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[a-z0-9-]{1,64}")
_CHARS_MAX = 2000
_COUNT_MAX = 2**53


def fields_of(value: object, *required: str) -> Mapping[str, Any]:
    """An object that has these fields."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where an object belongs")
    if missing := [name for name in required if name not in value]:
        raise KeyError(*missing)
    return value


def optional(read: Any, fields: Mapping[str, Any], name: str) -> Any:
    """What `read` returns of this field; None where there is none."""
    return None if fields.get(name) is None else read(fields[name])


def point_id_of(value: object) -> PointId:
    """The id of a point."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    return uuid_of(value)


def uuid_of(value: object) -> UUID:
    """A uuid in its usual spelling."""
    found = UUID(text_of(value))
    if str(found) != value:
        raise ValueError(f"{value!r:.80} is no uuid in its usual spelling")
    return found


def digest_of(value: object) -> str:
    """A digest in hex."""
    return _matching(_DIGEST, value)


def name_of(value: object) -> str:
    """The name of a finding."""
    return intern(_matching(_NAME, value))


def _matching(pattern: re.Pattern[str], value: object) -> str:
    text = text_of(value)
    if not pattern.fullmatch(text):
        raise ValueError(f"{text!r:.80} where {pattern.pattern} belongs")
    return text


def text_of(value: object) -> str:
    """A short text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= _CHARS_MAX:
        raise TypeError(f"{value!r:.80} where a short text belongs")
    return value


def counts_of(value: Mapping[object, object]) -> dict[str, int]:
    """Numbers by the names of findings."""
    return {name_of(name): _count(number) for name, number in value.items()}


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _COUNT_MAX:
        raise TypeError(f"{value!r:.80} where a number belongs")
    return value
