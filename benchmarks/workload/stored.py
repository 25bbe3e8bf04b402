"""workload.jsonl: a workload as bytes that any tool can replay, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmarks.records import Item
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.spec import Stored, WorkloadSpec

_KEYS = {field.name for field in fields(Item)}
_ITEM = TypeAdapter(Item)
PROMPTS = ("messages", "prompt", "prompt_token_ids")


@dataclass
class Workload:
    """Requests in their order, those of the warm-up apart; `sha256` is that of workload.jsonl."""

    items: list[Item]
    warm_up: list[Item]
    spec: WorkloadSpec
    seed: int | None  # None where it was read, not made
    sha256: str
    description: str


def encode(items: Sequence[Item], warm_up: Sequence[Item]) -> bytes:
    """
    The file's bytes: an item a line, measured ones first, warm-up marked.

    Canonical: keys sorted, no spaces, ASCII, fields without a value left out; so equal items are
    equal bytes.
    """
    lines = [_line(item, {}) for item in items]
    lines += [_line(item, {"warm_up": True}) for item in warm_up]
    return "".join(lines).encode()


def _line(item: Item, mark: dict[str, Any]) -> str:
    values = ((name, getattr(item, name)) for name in _KEYS)
    told = {name: value for name, value in values if value is not None} | mark
    try:
        return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
    except ValueError as error:
        raise WorkloadError(f"request {item.index} cannot be written as JSON: {error}") from error


def sha256(items: Sequence[Item], warm_up: Sequence[Item]) -> str:
    """Of the bytes that write_workload writes."""
    return hashlib.sha256(encode(items, warm_up)).hexdigest()


def write_workload(workload: Workload, path: Path) -> str:
    """Write workload.jsonl and return the SHA-256 of its bytes."""
    written = encode(workload.items, workload.warm_up)
    path.write_bytes(written)
    return hashlib.sha256(written).hexdigest()


def is_stored(path: Path) -> bool:
    """Whether a file is a workload of ours, whatever its name: by its first line."""
    try:
        with path.open("rb") as file:
            first = json.loads(next((line for line in file if line.strip()), b"null"))
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong with it
    return isinstance(first, dict) and "index" in first and "max_tokens" in first


def replay_stored(
    path: Path, num_requests: int | None = None, num_warm_up: int | None = None
) -> Workload:
    """
    A stored workload, or its beginning; all of it has the file's own SHA-256 again.

    Raises:
        WorkloadError: it has fewer requests than were asked for.
    """
    stored = read_workload(path)
    for asked, has, what in (
        (num_requests, stored.items, "measured"),
        (num_warm_up, stored.warm_up, "warm-up"),
    ):
        if asked is not None and asked > len(has):
            raise WorkloadError(
                f"{asked} {what} requests were asked for, and {path.name} has {len(has)}; "
                "ask for at most that many"
            )
    items, warm_up = stored.items[:num_requests], stored.warm_up[:num_warm_up]
    if (len(items), len(warm_up)) == (len(stored.items), len(stored.warm_up)):
        return stored
    return replace(
        stored,
        items=items,
        warm_up=warm_up,
        sha256=sha256(items, warm_up),
        description=f"{stored.spec.describe()}; {summary(items)}",
    )


def read_workload(path: Path) -> Workload:
    """
    A workload from its file; its SHA-256 is that of the bytes found.

    Raises:
        WorkloadError: there is no file, or a line is no item.
    """
    found = read_bytes(path)
    items: list[Item] = []
    warm_up: list[Item] = []
    # Not splitlines: JSON written elsewhere may hold U+2028 as it is.
    for number, line in enumerate(found.split(b"\n"), start=1):
        if line.strip():
            item, is_warm_up = _parse(line, f"{path.name} line {number}")
            (warm_up if is_warm_up else items).append(item)
    if not items:
        raise WorkloadError(f"{path.name} has no measured requests; give a workload.jsonl")
    spec = Stored(path=path, kind=_kind(items))
    return Workload(
        items=items,
        warm_up=warm_up,
        spec=spec,
        seed=None,
        sha256=hashlib.sha256(found).hexdigest(),
        description=f"{spec.describe()}; {summary(items)}",
    )


def _kind(items: Sequence[Item]) -> str:
    """
    Of what requests these are: it decides which of them may find one another's prompts cached.

    It is told by what they have and others have not; a line of its own would change the SHA-256 of
    all workloads, by which older results are found again.
    """
    if any(item.prefix_group is not None for item in items):
        return "prefix"
    if any(item.conversation is not None for item in items):
        return "multi_turn"
    return "trace" if any(item.at_s is not None for item in items) else "file"


def read_bytes(path: Path) -> bytes:
    """The file's bytes; WorkloadError where there are none to be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise WorkloadError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _parse(line: bytes, where: str) -> tuple[Item, bool]:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise WorkloadError(f"{where} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise WorkloadError(f"{where} is no JSON object")
    is_warm_up = told.pop("warm_up", False)
    if unknown := sorted(set(told) - _KEYS):
        raise WorkloadError(f"{where} has {unknown[0]!r}, which no request has")
    try:
        item = _ITEM.validate_python(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise WorkloadError(f"{where}: {name}: {first['msg'].lower()}") from error
    return _checked(item, where), bool(is_warm_up)


def _checked(item: Item, where: str) -> Item:
    given = [name for name in PROMPTS if getattr(item, name) is not None]
    if len(given) != 1:
        raise WorkloadError(
            f"{where} has {' and '.join(given) or 'no prompt'}; "
            "give exactly one of messages, prompt and prompt_token_ids"
        )
    if item.max_tokens < 1:
        raise WorkloadError(f"{where}: max_tokens={item.max_tokens} is below 1")
    return item


def summary(items: Sequence[Item]) -> str:
    """How many there are and how long, for a description."""
    known = [item.input_len_tokens for item in items if item.input_len_tokens is not None]
    inputs = f"input mean {sum(known) / len(known):.0f} tokens, " if known else ""
    output = sum(item.max_tokens for item in items) / len(items)
    return f"{len(items)} requests, {inputs}output mean {output:.0f} tokens"
