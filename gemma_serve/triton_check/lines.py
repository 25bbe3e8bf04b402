"""The lines of a golden file, read with every mistake in them, and written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from gemma_serve.errors import Mistake
from gemma_serve.triton_check.golden import Asked, GoldenError, Pair
from gemma_serve.triton_check.json_values import MAX_DEPTH, is_deep

MAX_LINE_BYTES = 64 * 2**20
MAX_MISTAKES = 20
# What stands around a body: the line, its request or response, and a list of events.
OWN_DEPTH = 3
FORM = '{"request": {"path": "/v2/models/NAME/generate", "body": {...}}, "response": {...}}'

LineModel = TypeVar("LineModel", Pair, Asked)


@dataclass(frozen=True)
class Place:
    """Where a line stands, and what it is called."""

    file: str
    line: int
    name: str | None

    @property
    def label(self) -> str:
        """The name, or the line."""
        return self.name or f"line {self.line}"


def read_pairs(path: Path) -> list[tuple[Place, Pair]]:
    """
    The pairs of a golden file.

    Raises:
        GoldenError: the file can't be read or has no pairs; with every mistake in its lines.
    """
    return _read(path, Pair)


def read_requests(path: Path) -> list[tuple[Place, Asked]]:
    """
    The requests to record.

    Raises:
        GoldenError: as in `read_pairs`.
    """
    return _read(path, Asked)


def to_line(pair: Pair) -> bytes:
    """
    A pair as a line of a golden file.

    Raises:
        GoldenError: the line would be longer than can be read again.
    """
    said = pair.model_dump(exclude_defaults=True)
    line = json.dumps(said, ensure_ascii=False) + "\n"
    try:
        data = line.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write in ASCII alone
        data = json.dumps(said).encode() + b"\n"
    if len(data) > MAX_LINE_BYTES:
        raise GoldenError(
            f"The pair of {pair.request.path} would have {len(data)} bytes, and a line at most "
            f"{MAX_LINE_BYTES}; ask for less."
        )
    return data


def _read(path: Path, model: type[LineModel]) -> list[tuple[Place, LineModel]]:
    found: list[tuple[Place, LineModel]] = []
    mistakes: list[Mistake] = []
    for number, line in _lines(path):
        try:
            parsed = _parse_line(line, model)
            found.append((Place(path.name, number, parsed.name), parsed))
        except GoldenError as error:
            mistakes.append(Mistake(error.message, path.name, number))
        if len(mistakes) == MAX_MISTAKES:
            break
    if mistakes:
        raise GoldenError("\n".join(map(str, mistakes)))
    if not found:
        raise GoldenError(f"{path.name} has no lines; each is {FORM}.")
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise GoldenError(
                        f"{path.name}:{number}: The line has more than {MAX_LINE_BYTES} bytes; "
                        "leave out the pair, or send a smaller request."
                    )
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GoldenError(
            f"{str(path)!r} can't be read: {reason}; name a JSON Lines file."
        ) from None


def _parse_line(line: bytes, model: type[LineModel]) -> LineModel:
    try:
        parsed = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise GoldenError(f"The line is not JSON ({_reason(error)}); a line is {FORM}.") from None
    if not isinstance(parsed, dict) or is_deep(parsed, MAX_DEPTH + OWN_DEPTH):
        raise GoldenError(
            f"The line is no JSON object of at most {MAX_DEPTH} levels; a line is {FORM}."
        )
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        raise GoldenError(f"{'; '.join(_mistakes(error))}; a line is {FORM}.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    # Its own words would quote the line, which holds a user's prompt.
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start + 1}"
    return "it is nested too deep" if isinstance(error, RecursionError) else "a number is too long"


def _mistakes(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in mistake["loc"]) or "line"
        reason = mistake["msg"].removeprefix("Value error, ")
        yield f"{where} can't be used: {reason[0].lower()}{reason[1:]}"
