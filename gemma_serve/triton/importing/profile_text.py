"""A profile as YAML that people read and change: in the schema's order, with comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from gemma_serve.profile.schema import Profile
from gemma_serve.profile.source import read_text
from gemma_serve.profile.tree import KeyPath

_WIDTH = 100


def profile_text(title: str, values: Mapping[str, Any], comments: Mapping[KeyPath, str]) -> str:
    """
    The text of a profile.

    Args:
        title: The first line, a comment.
        comments: What to say above a key, at the top or in a section.
    """
    lines = _comment(title, "")
    for key in in_order(values):
        lines += _lines((key,), values[key], comments)
    return "\n".join(lines) + "\n"


def in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the order in which the schema explains their keys, in sections too."""
    return _sorted(values, Profile)


def _sorted(values: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    kept = {}
    for key, field in section.model_fields.items():
        if key in values:
            kind: Any = field.annotation
            is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
            kept[key] = _sorted(values[key], kind) if is_section else values[key]
    return kept


def _lines(path: KeyPath, value: Any, comments: Mapping[KeyPath, str]) -> Iterator[str]:
    indent = "  " * (len(path) - 1)
    yield from _comment(comments.get(path, ""), indent)
    key = str(path[-1])
    if isinstance(value, Mapping) and value and _has_comment_inside(path, comments):
        yield f"{indent}{_dump(key)}:"
        for inner, child in value.items():
            yield from _lines((*path, inner), child, comments)
    else:
        for line in _dump({key: value}).split("\n"):
            yield indent + line


def _has_comment_inside(path: KeyPath, comments: Mapping[KeyPath, str]) -> bool:
    return any(each[: len(path)] == path and len(each) > len(path) for each in comments)


def _comment(text: str, indent: str) -> list[str]:
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return textwrap.wrap(
        plain,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


class _Dumper(yaml.SafeDumper):
    """Puts in quotes whatever a profile's reader would not read as this text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    tree, mistakes = read_text(text, "file")
    is_plain = not mistakes and tree is not None and tree.value == text and "\n" not in text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)


def _dump(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text.removesuffix("\n...\n").rstrip("\n")
