"""JSON from strangers: parsed, if it is any and not nested beyond what recursion can follow."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 100
NOT_JSON = object()


def parse_json(data: bytes) -> Any:
    """The value, or NOT_JSON."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return NOT_JSON
    return NOT_JSON if is_deep(value) else value


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested more than so many levels."""
    level = [value]
    for _ in range(most + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), (int | float, "a number"), (str, "a string"), (list, "a list"))
    return next((name for of, name in names if isinstance(value, of)), "an object")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
