"""
Reads the JSON of a body, strictly and within bounds.

RFC 8259 leaves open what is done with a key that stands twice, a number without end, or nesting
without end; two servers on the way of one request must not read it two ways, so none is taken.
Bounds are checked on the bytes, before an object is made of them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from gemma_serve.errors import MediaTypeError, PayloadTooLargeError, RequestError
from gemma_serve.profile.schema import Limits

# Token ids are not counted as nodes; the longest prompts of Gemma have 262,144.
MAX_NUMBERS = 1_000_000
# The types of the protocols: OpenAI's seed is an int64, KServe has UINT64.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
MAX_INTEGER_DIGITS = 20
# Each byte is looked at once, whatever comes: a string that is not closed ends where the body does,
# else every quote in it would be tried as another one's beginning.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
EMPTY = re.compile(rb"\[\s*+\]|\{\s*+\}")
NUMBER_IN_LIST = re.compile(rb"[\[,]\s*+[-0-9]")
OPENING = frozenset(b"[{")
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class JsonRoute(APIRoute):
    """A route whose body is read by `read_json`; a compressed one is refused."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler, on a request of our own (FastAPI's way to read bodies otherwise)."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            _check_encoding(request)
            response: Response = await handle(_JsonRequest(request.scope, request.receive))
            return response

        return strictly


class _JsonRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):  # kept where Starlette keeps its own
            self._json = read_json(await self.body(), self.app.state.server.profile.limits)
        return self._json


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise MediaTypeError(
            f"The content encoding is {encoding[:40]!r}; send the body uncompressed."
        )


def read_json(body: bytes, limits: Limits) -> Any:
    """
    The value of a JSON text.

    Raises:
        RequestError: it is not UTF-8, nested too deep, has a key twice or a number out of range.
        PayloadTooLargeError: it has too many values.
        json.JSONDecodeError: it is no JSON.
    """
    _check_size(body, limits)
    try:
        return _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        raise RequestError("The body is not JSON: it is not UTF-8; send JSON in UTF-8.") from None
    except RecursionError:
        raise _too_deep(limits) from None
    except _OutOfRangeError:
        param = _where_out_of_range(body)
        where = f"'{param}' has" if param else "The body has"
        raise RequestError(
            f"{where} a number that is not finite, or an integer beyond 64 bits; send a smaller "
            "one.",
            param=param,
        ) from None


def _check_size(body: bytes, limits: Limits) -> None:
    """Count from above, in microseconds; only where that is too much, count what is there."""
    openers = body.count(b"{") + body.count(b"[")
    marks = openers + body.count(b",")
    if openers <= limits.max_json_depth and marks < limits.max_json_nodes:
        return
    if marks > limits.max_text_chars + limits.max_json_nodes + MAX_NUMBERS:
        raise _too_many(limits)  # whatever part of them is text
    bare = STRING.sub(b"s", body)
    num_filled = bare.count(b"{") + bare.count(b"[") - len(EMPTY.findall(bare))
    values = 1 + bare.count(b",") + num_filled
    numbers = len(NUMBER_IN_LIST.findall(bare))
    if values - numbers > limits.max_json_nodes:
        raise _too_many(limits)
    if numbers > MAX_NUMBERS:
        raise PayloadTooLargeError(
            f"The body has {numbers} numbers in lists; at most {MAX_NUMBERS} are allowed, so send "
            "fewer."
        )
    if _is_deeper(bare.translate(None, NO_BRACKETS), limits.max_json_depth):
        raise _too_deep(limits)


def _is_deeper(brackets: bytes, max_depth: int) -> bool:
    """In one pass; whether each bracket is closed by its like, the decoder will see."""
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in OPENING else -1
        if not 0 <= depth <= max_depth:
            return depth > 0
    return False


def _too_many(limits: Limits) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The body has more than {limits.max_json_nodes} values (limits.max_json_nodes); "
        "send fewer."
    )


def _too_deep(limits: Limits) -> RequestError:
    return RequestError(
        f"The body is nested deeper than {limits.max_json_depth} levels (limits.max_json_depth), "
        "or not closed; send flatter JSON."
    )


# --- what the decoder makes of objects and numbers


class _OutOfRangeError(Exception):
    """A number that no field can hold."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise RequestError(f"A key stands twice in one object: {twice[:100]!r}; send it once.")
    return made


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS or not MIN_INTEGER <= (value := int(digits)) <= MAX_INTEGER:
        raise _OutOfRangeError
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _OutOfRangeError
    return value


def _constant(_name: str) -> float:
    raise _OutOfRangeError  # NaN, Infinity, -Infinity: Python's own, no JSON


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _where_out_of_range(body: bytes) -> str | None:
    """The field of the body's object that holds such a number."""
    mark = object()

    def or_mark(read: Callable[[str], Any]) -> Callable[[str], Any]:
        def reading(digits: str) -> Any:
            try:
                return read(digits)
            except _OutOfRangeError:
                return mark

        return reading

    def holds_mark(value: Any) -> bool:
        values = value.values() if isinstance(value, dict) else value
        return value is mark or (
            isinstance(value, dict | list) and any(holds_mark(item) for item in values)
        )

    sent = json.loads(
        body.decode(),
        parse_int=or_mark(_integer),
        parse_float=or_mark(_float),
        parse_constant=or_mark(_constant),
    )
    if not isinstance(sent, dict):
        return None
    return next((key[:100] for key, value in sent.items() if holds_mark(value)), None)
