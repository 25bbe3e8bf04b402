"""The JSON of a body: read as it stands, refused where it could be read two ways. No engine."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from gemma_serve.api.json_body import read_json
from gemma_serve.errors import GemmaServeError
from gemma_serve.profile.schema import Limits

LIMITS = Limits()


def refusal(text: str | bytes, limits: Limits = LIMITS) -> GemmaServeError:
    """What this body is refused with."""
    with pytest.raises(GemmaServeError) as caught:
        read_json(text if isinstance(text, bytes) else text.encode(), limits)
    return caught.value


def nested(levels: int) -> str:
    """Lists in lists."""
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": 'Ä \U0001f48e \\ " \u2028 [[ {{ ,'}], "n": 1},
        {"seed": -(2**63), "x": 2**64 - 1, "temperature": 0.1, "y": -0.0, "z": 1e308},
        {"prompt": list(range(262_144))},
        {"content": '{"a": [1, 2, "' + ",[{" * 40_000},
        ["", None, True, [[]], {}],
        "text",
        [[]] * 40_000,
        {str(n): n for n in range(49_000)},
    ],
    ids=["chat", "numbers", "token ids", "code", "a list", "a string", "lists", "keys"],
)
def test_what_it_takes(value: Any) -> None:
    """What is within the bounds is what Python's own reader makes of it."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
        assert read_json(text.encode(), LIMITS) == value


@pytest.mark.parametrize("levels", [1, 63, 64])
def test_depth_within_the_bound(levels: int) -> None:
    """As deep as limits.max_json_depth is taken; brackets in strings do not count."""
    assert json.dumps(read_json(nested(levels).encode(), LIMITS)) == nested(levels)
    text = json.dumps({"a": nested(1000), "b": '"' + nested(1000)})
    assert read_json(text.encode(), LIMITS) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        nested(65),
        nested(500_000),
        '{"a":' * 65 + "1" + "}" * 65,
        '[{"a":' * 32 + "[[[]], {}, []]" + "}]" * 32,
        "[" * 100_000,
    ],
    ids=["65", "500,000", "objects", "both", "not closed"],
)
def test_too_deep(text: str) -> None:
    """One level more, or a million, is a refusal in words."""
    limits = Limits(max_json_nodes=10_000_000)
    error = refusal(text, limits)
    assert (error.status, error.message) == (
        400,
        "The body is nested deeper than 64 levels (limits.max_json_depth), or not closed; "
        "send flatter JSON.",
    )


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([[]] * 50_000),
        json.dumps([""] * 50_001),
        json.dumps({str(n): n for n in range(50_001)}),
        "[" + "[]," * 5_000_000 + "[]]",
    ],
    ids=["lists", "strings", "keys", "millions"],
)
def test_too_many_values(text: str) -> None:
    """More than limits.max_json_nodes is 413, before objects are made of it."""
    error = refusal(text)
    assert (error.status, error.code) == (413, "request_too_large")
    assert error.message == (
        "The body has more than 50000 values (limits.max_json_nodes); send fewer."
    )


def test_too_many_numbers() -> None:
    """Token ids are not counted as values; yet there is a bound for them too."""
    error = refusal("[" + "1," * 1_000_000 + "1]")
    assert (error.status, error.message) == (
        413,
        "The body has 1000001 numbers in lists; at most 1000000 are allowed, so send fewer.",
    )


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, str(2**64), str(-(2**63) - 1), "1e400", "-1e400", "NaN", "Infinity", "-Infinity"],
    ids=lambda text: text[:12],
)
def test_number_that_no_field_holds(number: str) -> None:
    """It is refused with the field's name, and its digits are not repeated."""
    error = refusal(f'{{"good": [1, 2.5], "bad": {{"x": [0, {number}]}}}}')
    assert (error.status, error.param, error.message) == (
        400,
        "bad",
        "'bad' has a number that is not finite, or an integer beyond 64 bits; send a smaller one.",
    )
    assert refusal(f"[{number}]").param is None


def test_key_twice() -> None:
    """Of two values of one key, a gateway could read the other one."""
    for text in ('{"model": 1, "model": 2}', r'[{"a": {"model": 1, "\u006dodel": 1}}]'):
        assert refusal(text).message == "A key stands twice in one object: 'model'; send it once."


def test_not_utf8() -> None:
    """Python would guess UTF-16 and UTF-32; the RFC knows UTF-8 alone."""
    for encoding in ("utf-16", "utf-32", "latin-1"):
        body = '{"a": "é"}'.encode(encoding)
        assert refusal(body).message == "The body is not JSON: it is not UTF-8; send JSON in UTF-8."
    with pytest.raises(json.JSONDecodeError):
        read_json('{"a": 1}'.encode("utf-16-le"), LIMITS)


@pytest.mark.parametrize("start", [b"", b"[" * 65], ids=["as it is", "counted"])
@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 2_000_000,
        b'"' + b"\\" * 4_000_000,
        b'"' + b'\\"' * 2_000_000 + b"\\",
        b'"a' * 2_000_001,
        b"[1" * 900_000,
        b"[1" * 900_000 + nested(64).encode(),
        b"[]" * 2_000_000,
        b"]" * 4_000_000,
        b"[" + b" " * 4_000_000,
        b"," + b" " * 4_000_000,
    ],
    ids=[
        *("quotes", "backslashes", "a backslash at the end", "strings", "lists", "lists and more"),
        *("empty lists", "closed", "blanks", "blanks after a comma"),
    ],
)
def test_nothing_is_looked_at_again(start: bytes, body: bytes) -> None:
    """What is no JSON is refused in one pass; with one from each quote, 4 MB would take hours."""
    with pytest.raises((GemmaServeError, json.JSONDecodeError)):
        read_json(start + body, LIMITS)


@pytest.mark.parametrize(
    "string",
    [b'"' + b'\\"' * 9, b'"\\\\' * 9, b'"' + b"," * 99_999, b'"\\'],
    ids=["quotes", "backslashes", "commas", "a backslash"],
)
def test_string_that_is_not_closed(string: bytes) -> None:
    """It is no JSON, however many values seem to be in it; what it is in may be too deep."""
    with pytest.raises(json.JSONDecodeError):
        read_json(string, LIMITS)
    assert refusal(b"[" * 65 + string).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b"x" * 60_000_000 + b'"}',
        b'{"a": "' + b'\\"' * 10_000_000 + b'"}',
        b'["' * 2_000_000,
        b"{" * 4_000_000,
        b"," * 4_000_000,
        b'"' + b"," * 4_000_000,
        b"\\" * 4_000_000,
        b'{"' + b'a":1,"' * 600_000,
    ],
    ids=["image", "escapes", "quotes", "braces", "commas", "open string", "backslashes", "keys"],
)
def test_nothing_takes_long(body: bytes) -> None:
    """Whatever comes is read or refused while others hardly notice."""
    began_s = time.monotonic()
    with contextlib.suppress(GemmaServeError, json.JSONDecodeError):
        read_json(body, LIMITS)
    assert time.monotonic() - began_s < 5  # some tens of milliseconds, on a machine of its own
