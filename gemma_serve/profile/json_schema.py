"""The JSON Schema of the profile: what editors read, what the loader checks, and it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gemma_serve.profile.schema import Profile

Schema = Mapping[str, Any]
SCHEMA_FILE = Path(__file__).with_name("profile.schema.json")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a profile's YAML file, with every description."""
    schema = Profile.model_json_schema()
    sections = {name: _section(section) for name, section in schema["$defs"].items()}
    top = _section(schema)
    del top["required"], top["$defs"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:gemma-serve:profile",
        **top,
        "title": "gemma-serve profile",
        # A file that extends another may leave the model to it.
        "anyOf": [{"required": ["model"]}, {"required": ["extends"]}],
        "$defs": sections,
    }


def _section(section: dict[str, Any]) -> dict[str, Any]:
    properties = section["properties"]
    return {
        **{key: value for key, value in section.items() if key != "title"},
        "properties": {key: _or_null(value) for key, value in properties.items()},
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Null resets a key to its default, so every key may hold it."""
    noted = ("description",) if "$ref" in schema else ("description", "default")
    notes = {key: schema[key] for key in noted if schema.get(key) is not None}
    allowed = schema.get("anyOf") or [
        {
            key: value
            for key, value in schema.items()
            if key not in ("title", "description", "default")
        }
    ]
    if {"type": "null"} not in allowed:
        allowed = [*allowed, {"type": "null"}]
    return {**notes, "anyOf": allowed}


@cache
def profile_schema() -> Schema:
    """The schema that the loader walks: one call, kept."""
    return json_schema()


def branches(schema: Schema) -> list[Schema]:
    """The alternatives of a schema without null; `[{}]` allows anything."""
    return [branch for branch in _flat(schema) if branch.get("type") != "null"]


def _flat(schema: Schema) -> Iterator[Schema]:
    if "$ref" in schema:
        yield from _flat(profile_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    elif "properties" not in schema and "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from _flat(branch)
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield {**schema, "type": kind}
    else:
        yield schema


def describe(schema: Schema) -> str:
    """What a schema allows, in words: 'an integer from 0 to 65535'."""
    words = [word for branch in branches(schema) for word in _words(branch)]
    *first, last = dict.fromkeys(words) or ["null"]
    return f"{', '.join(first)} or {last}" if first else last


def _words(branch: Schema) -> list[str]:
    if "enum" in branch or "const" in branch:
        return [str(value) for value in branch.get("enum", [branch.get("const")])]
    kind = branch.get("type")
    if kind in ("integer", "number"):
        return [("an integer" if kind == "integer" else "a number") + _bounds(branch)]
    if kind == "string":
        return ["a string that is not empty" if branch.get("minLength") else "a string"]
    if kind == "array":
        return [f"a list{_of(branch.get('items'))}"]
    if kind == "object":
        return [f"a map{_of(branch.get('additionalProperties'))}"]
    return ["true or false" if kind == "boolean" else "any value"]


def _bounds(branch: Schema) -> str:
    low, high, above = (branch.get(k) for k in ("minimum", "maximum", "exclusiveMinimum"))
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of at least {low:g}"
    if high is not None:
        return f" of at most {high:g}"
    return f" above {above:g}" if above is not None else ""


def _of(items: object) -> str:
    kinds = {"string": "strings", "integer": "integers", "number": "numbers"}
    kind = items.get("type") if isinstance(items, Mapping) else None
    return f" of {kinds[kind]}" if kind in kinds else ""
