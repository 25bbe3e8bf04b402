"""One request that a careless or hostile client sends, and what may come back."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.kserve.refusals import ADDRESS, MARKER

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, TOKENIZE, GENERATE = "/v1/messages", "/tokenize", "/v2/models/tiny/generate"
JSON = {"content-type": "application/json"}
OK = frozenset({200})
REFUSED = frozenset({400, 404, 405, 413, 414, 415, 431})
EITHER = OK | REFUSED
UNAUTHORISED = frozenset({401})

MAX_ERROR_BYTES = 4096
MAX_MESSAGE_CHARS = 1024
LEAKS = ("Traceback", "site-packages", ".py", sys.prefix, tempfile.gettempdir())
# What each API says when an answer is whole; a stream that ends otherwise has lost something.
STREAM_ENDS = {CHAT: "data: [DONE]", COMPLETIONS: "data: [DONE]", MESSAGES: "message_stop"}


@dataclass(frozen=True)
class Case:
    """One request; its class is the first word of its name."""

    name: str
    path: str
    body: bytes = b""
    allowed: frozenset[int] = REFUSED
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    look: Callable[[Answer], list[str]] | None = None  # for what else may be wrong

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Answer:
    """What came back for it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def post(
    name: str, path: str, fields: Any, allowed: Iterable[int] = REFUSED, **headers: str
) -> Case:
    """A JSON request; NaN and lone surrogates are written as Python writes them."""
    body = json.dumps(fields).encode()
    return Case(name, path, body, frozenset(allowed), headers=JSON | headers)


def chat(name: str, allowed: Iterable[int] = REFUSED, **fields: Any) -> Case:
    """A chat of one short turn and one token, but for these fields."""
    turn = {"role": "user", "content": f"{MARKER} Rome is"}
    return post(name, CHAT, {"messages": [turn], "max_tokens": 1} | fields, allowed)


def faults(case: Case, answer: Answer) -> list[str]:
    """What is wrong with an answer; nothing, as a rule."""
    found = []
    if answer.status not in case.allowed:
        found.append(f"status {answer.status}")
    if not answer.headers.get("x-request-id"):
        found.append("no x-request-id")
    if answer.status >= 400 and case.method != "HEAD":
        found += _refusal_faults(case.path, answer)
    elif answer.headers.get("content-type", "").startswith("text/event-stream"):
        found += _stream_faults(case.path, answer.body.decode(errors="replace"))
    if case.look is not None:
        found += case.look(answer)
    return [f"{case.name}: {fault}: {answer.body[:200]!r}" for fault in found]


def _stream_faults(path: str, text: str) -> list[str]:
    ended = STREAM_ENDS.get(path)
    errors = [line for line in text.splitlines() if '"error"' in line]
    found = [leak for line in errors for leak in _leaks(line)]
    if ended is None or ended in text or errors:
        return found
    return [*found, "a stream without an end"]


def _leaks(text: str) -> list[str]:
    """What an error says of the server's inside: traces, paths, addresses."""
    found = [f"holds {leak!r}" for leak in LEAKS if leak in text]
    return [*found, "holds an address"] if ADDRESS.search(text) else found


def _refusal_faults(path: str, answer: Answer) -> list[str]:
    if len(answer.body) > MAX_ERROR_BYTES:
        return [f"an error of {len(answer.body)} bytes"]
    try:
        message = message_of(path, json.loads(answer.body))
    except (ValueError, LookupError, TypeError) as error:
        return [f"not the API's shape ({error!r})"]
    found = _leaks(answer.body.decode(errors="replace"))
    if not 0 < len(message) <= MAX_MESSAGE_CHARS:
        found.append(f"a message of {len(message)} characters")
    return found


def message_of(path: str, body: Any) -> str:
    """
    The sentence of an error in the shape of the API that the path belongs to.

    Raises:
        LookupError, TypeError: It has another shape.
    """
    error = body["error"]
    if path.startswith("/v2"):
        if not isinstance(error, str):
            raise TypeError("the error is no text")
        return error
    if path.startswith(MESSAGES):
        if body["type"] != "error" or not error["type"]:
            raise LookupError("no type")
    elif set(error) != {"message", "type", "param", "code"}:
        raise LookupError(f"keys {sorted(error)}")
    return str(error["message"])
