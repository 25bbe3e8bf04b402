"""The fields of AsyncEngineArgs; `engine/fields.py` asks for them in a process of its own."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from typing import Any

from vllm import AsyncEngineArgs
from vllm import __version__ as vllm_version


def engine_fields() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each field of AsyncEngineArgs, to check a profile's `engine:` against."""
    return {
        field.name: _field_schema(field)
        for field in dataclasses.fields(AsyncEngineArgs)
        if not field.name.startswith("_")
    }


def _field_schema(field: dataclasses.Field[Any]) -> dict[str, Any]:
    schema = _type_schema(field.type)
    # Some fields say `int` and default to None.
    return {"anyOf": [schema, {"type": "null"}]} if schema and field.default is None else schema


_SIMPLE = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
}


def _type_schema(type_: Any) -> dict[str, Any]:
    """JSON Schema of a type annotation; {} where YAML could not say or vLLM checks it better."""
    if type_ in _SIMPLE:
        return dict(_SIMPLE[type_])
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        options = [_type_schema(argument) for argument in arguments]
        return {"anyOf": options} if all(options) else {}
    if origin in (list, set, tuple):
        return {"type": "array", "items": _type_schema(arguments[0])}
    if origin is dict or type_ is dict:
        return {"type": "object"}
    if dataclasses.is_dataclass(type_):
        names: dict[str, Any] = {field.name: {} for field in dataclasses.fields(type_)}
        return {"type": "object", "properties": names, "additionalProperties": False}
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return {"type": ["string", "integer"]}
    return {}


if __name__ == "__main__":
    print(json.dumps({"version": vllm_version, "fields": engine_fields()}))
