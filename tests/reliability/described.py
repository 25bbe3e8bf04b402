"""Class K: what schemathesis makes of the server's own OpenAPI document, allowed and not."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from tests.reliability.case import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, Case
from tests.reliability.sizes import CONTEXT_TOKENS

ANY_BUT_5XX = frozenset(range(200, 500))
# A request that names a time may come too late.
OR_LATE = ANY_BUT_5XX | {504}
# Of the cases that schemathesis lists, as many times as are asked for are looked at.
LISTED = 10
MODEL = "tiny"
LENGTHS = {CHAT: "max_tokens", COMPLETIONS: "max_tokens", MESSAGES: "max_tokens"}
LENGTHS |= {RESPONSES: "max_output_tokens"}
LENGTH_NAMES = frozenset({*LENGTHS.values(), "max_completion_tokens"})
SHORT_TOKENS, LONG_TOKENS = 2, 16
# What h11 writes; the rest is class A's, which writes to the socket itself.
HEADER_NAME, HEADER_VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\x20-\x7e]*")
NOT_SENT = frozenset({"host", "connection", "content-length", "accept-encoding"})
NOT_SENT |= {"transfer-encoding", "x-schemathesis-testcaseid"}  # which is never the same


def cases(document: dict[str, Any], total: int, seed: int) -> Iterator[Case]:
    """
    About `total` cases, the same for the same seed.

    A third of schemathesis' coverage phase, a third drawn as the schema allows, a third as it does
    not; strings with NUL among them. Operations have equal parts, but for those of which there are
    not so many cases: what they leave goes to those with a body.
    """
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    operations.sort(key=lambda operation: (bool(operation.body), bool(operation.path_parameters)))
    draw, left = random.Random(seed), total
    for number, operation in enumerate(operations):
        each = -(-left // (len(operations) - number))
        made = [
            *_covering(operation, each - each // 3 * 2, draw),
            *_drawn(operation, GenerationMode.POSITIVE, each // 3, draw.getrandbits(32)),
            *_drawn(operation, GenerationMode.NEGATIVE, each // 3, draw.getrandbits(32)),
        ]
        left -= len(made)
        yield from _wired(made, draw)


def _covering(operation: Any, count: int, draw: random.Random) -> list[Any]:
    """Some of the cases that schemathesis lists for an operation, one after the other."""
    listed = operation.schema.iter_coverage_cases(
        operation,
        generation_modes=list(GenerationMode),
        generation_config=operation.schema.config.generation,
    )
    pool = list(islice(listed, LISTED * count))
    return draw.sample(pool, min(count, len(pool)))


def _drawn(operation: Any, mode: GenerationMode, count: int, seed: int) -> list[Any]:
    """Random cases; fewer where there are not so many, none where nothing can be wrong."""
    found: list[Any] = []
    if not count:
        return found

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def draw_one(case: Any) -> None:
        found.append(case)

    try:
        draw_one()
    except Unsatisfiable:
        return found
    return found[:count]


def _wired(made: Iterable[Any], draw: random.Random) -> Iterator[Case]:
    for number, one in enumerate(made):
        # A name drawn at random is none that is served, and such a request ends there.
        if number % 2:
            _name_the_model(one)
        _shorten(one, draw)
        yield _wire(one, f"K {one.method} {one.path} {number}")


def _name_the_model(one: Any) -> None:
    for place in (one.path_parameters, one.body):
        if isinstance(place, dict) and isinstance(place.get("model"), str):
            place["model"] = MODEL


def _shorten(one: Any, draw: random.Random) -> None:
    """Answers as long as the context take seconds each, and show nothing that short ones don't."""
    if not isinstance(one.body, dict) or one.path not in LENGTHS:
        return
    lengths = {name: one.body[name] for name in LENGTH_NAMES if one.body.get(name) is not None}
    if not lengths:
        one.body[LENGTHS[one.path]] = SHORT_TOKENS
    for name, length in sorted(lengths.items()):
        if isinstance(length, int) and LONG_TOKENS < length <= CONTEXT_TOKENS:
            one.body[name] = draw.randint(1, LONG_TOKENS)


def _wire(one: Any, name: str) -> Case:
    request = requests.Request(**one.as_transport_kwargs(base_url="http://server")).prepare()
    body = request.body or b""
    headers = {
        header: value
        for header, value in ((_text(key), _text(of)) for key, of in request.headers.items())
        if header.lower() not in NOT_SENT
        and HEADER_NAME.fullmatch(header)
        and HEADER_VALUE.fullmatch(value)
        and value == value.strip()
    }

    def conforms(answer: Answer) -> list[str]:
        return _faults(one, request, answer)

    return Case(
        name,
        request.path_url,
        body if isinstance(body, bytes) else str(body).encode(),
        OR_LATE if isinstance(one.body, dict) and "timeout" in one.body else ANY_BUT_5XX,
        method=request.method or "GET",
        headers=headers,
        look=conforms,
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _faults(one: Any, request: requests.PreparedRequest, answer: Answer) -> list[str]:
    """Where an answer is not what the document says of it."""
    response = schemathesis.Response(
        answer.status,
        {name: [value] for name, value in answer.headers.items()},
        answer.body,
        request,
        elapsed=0.0,
        verify=False,
    )
    try:
        one.operation.validate_response(response, case=one)
    except Failure as failure:
        return [str(failure)[:300]]
    except FailureGroup as failures:
        return [str(failure)[:300] for failure in failures.exceptions]
    return []
