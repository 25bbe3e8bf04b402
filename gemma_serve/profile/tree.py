"""A profile as a tree whose every value knows where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gemma_serve.errors import Mistake

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: a default, a file and its line, or a --set option."""

    kind: Literal["default", "extends", "file", "--set"]
    file: str | None = None
    line: int | None = None
    option: str | None = None

    def __str__(self) -> str:
        if self.kind == "--set":
            return f"--set {self.option}"
        if self.kind == "default":
            return "default"
        where = f"{self.file}:{self.line}"
        return f"{where} (extends)" if self.kind == "extends" else where

    def mistake(self, message: str) -> Mistake:
        """A mistake in this place."""
        return Mistake(message, str(self) if self.kind == "--set" else self.file, self.line)


@dataclass(frozen=True)
class Node:
    """A value of a profile: a scalar, a list of nodes or a map of nodes."""

    value: Any
    origin: Origin
    text: str = ""  # a scalar as it is written, without its quotes
    quoted: bool = False

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Keys or indices, with what stands there; nothing for a scalar."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def child(self, key: str | int) -> Node | None:
        """What stands at a key or an index, if anything."""
        return dict(self.children()).get(key)

    def plain(self) -> Any:
        """The value in Python's own types."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def leaves(self, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
        """Every value that is not a map of others, with its path."""
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.leaves((*path, key))
        else:
            yield path, self


def merge(base: Node, over: Node) -> Node:
    """
    Maps merge deeply; anything else in `over` replaces what `base` holds.

    A merged map stands where the last file wrote it, also when --set changes it.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, base.origin if over.origin.kind == "--set" else over.origin)


def dotted(path: KeyPath) -> str:
    """A path as people write it: server.port, meta.tested_on[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
