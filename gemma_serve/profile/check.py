"""Everything that is wrong with a merged profile, found in one walk beside its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from gemma_serve.errors import Mistake
from gemma_serve.profile.json_schema import Schema, branches, describe, profile_schema
from gemma_serve.profile.keys import names_secret, unknown_key
from gemma_serve.profile.schema import Profile
from gemma_serve.profile.tree import KeyPath, Node, dotted
from gemma_serve.profile.values import wrong_value

EngineFields = Mapping[str, Schema]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(tree: Node, engine_fields: EngineFields | None) -> Iterator[Mistake]:
    """
    Every mistake in the keys and values of a merged profile, a missing `model` apart.

    Args:
        engine_fields: Fields of vLLM's AsyncEngineArgs with the JSON Schema of their values;
            None leaves the keys under `engine:` unchecked.
    """
    yield from _secrets((), tree)
    yield from _check_map((), tree, _with_engine(engine_fields), engine_fields or {})


def _secrets(path: KeyPath, node: Node) -> Iterator[Mistake]:
    for key, child in node.children():
        here = (*path, key)
        if message := names_secret(here):
            yield child.origin.mistake(message)
        yield from _secrets(here, child)


def _with_engine(engine_fields: EngineFields | None) -> Schema:
    if engine_fields is None:
        return profile_schema()
    engine = {"type": "object", "properties": engine_fields, "additionalProperties": False}
    properties = {**profile_schema()["properties"], "engine": engine}
    return {**profile_schema(), "properties": properties}


def _check(path: KeyPath, node: Node, schema: Schema, fields: EngineFields) -> Iterator[Mistake]:
    kinds = {branch.get("type"): branch for branch in branches(schema)}
    if isinstance(node.value, dict) and "object" in kinds:
        yield from _check_map(path, node, kinds["object"], fields)
    elif isinstance(node.value, list) and "array" in kinds:
        for index, child in node.children():
            yield from _check((*path, index), child, kinds["array"].get("items", {}), fields)
    elif message := wrong_value(path, node, schema):
        yield node.origin.mistake(message)


def _check_map(
    path: KeyPath, node: Node, schema: Schema, fields: EngineFields
) -> Iterator[Mistake]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, child in node.children():
        here = (*path, key)
        if names_secret(here):
            continue
        if path == ("env",) and not _VARIABLE.fullmatch(str(key)):
            message = f"{key!r} can't name an environment variable; use letters, digits and '_'."
            yield child.origin.mistake(message)
        elif key not in properties and others is False:
            yield child.origin.mistake(unknown_key(here, properties, fields))
        elif child.value is not None:
            rule = properties.get(key, others if isinstance(others, Mapping) else {})
            yield from _check(here, child, rule, fields)
    for key in schema.get("required", ()):
        written = node.child(key)
        if written is None or written.value is None:
            allowed = describe(properties[key])
            message = f"{dotted((*path, key))} is missing; it must be {allowed}."
            yield (written or node).origin.mistake(message)


def settle(node: Node, path: KeyPath = ()) -> Node:
    """
    The tree without the keys that null resets to their default.

    Deeper than the fields of `engine` and `speculative`, null is a value of vLLM's own and stays.
    """
    if not isinstance(node.value, dict) or (
        path[:1] in (("engine",), ("speculative",)) and path[1:]
    ):
        return node
    kept = {
        key: settle(child, (*path, key))
        for key, child in node.value.items()
        if child.value is not None
    }
    return Node(kept, node.origin)


def build(tree: Node) -> Profile:
    """
    The profile of a settled tree that `check` found nothing wrong with.

    Raises:
        ValidationError: A rule of the schema that is written in Python, not in types.
    """
    return Profile.model_validate(tree.plain())


def rule_mistakes(error: ValidationError, tree: Node) -> Iterator[Mistake]:
    """What the rules of the schema that are written in Python say, at the lines they speak of."""
    for detail in error.errors(include_url=False):
        node, path = tree, list[str | int]()
        for part in detail["loc"]:
            child = node.child(part)
            if child is not None:
                node, path = child, [*path, part]
        cause: Any = detail.get("ctx", {}).get("error")
        sentence = str(cause) if cause else "does not fit the schema; see: gemma-serve schema."
        yield node.origin.mistake(f"{dotted(tuple(path)) or 'The profile'}: {sentence}")
