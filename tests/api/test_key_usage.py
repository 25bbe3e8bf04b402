"""What a key has used is counted to the last token, whatever ends its requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.kserve.triton_clients import wait_until
from tests.api.test_deadlines import LATE, ROUTES
from tests.conftest import KEY
from tests.servers import Server

GENERATE = "/v2/models/tiny/generate"
LONG: dict[str, dict[str, Any]] = {
    **{path: {"model": "tiny", **body} for path, body in ROUTES.items()},
    GENERATE: {"text_input": "The sea", "max_new_tokens": 4000, "do_sample": False},
}
MADE, CHARGED = "vllm:generation_tokens_total", "gemma_serve_key_generation_tokens_total"


@pytest.fixture
def http(keyed_server: Server) -> Iterator[httpx.Client]:
    """A client with a key; what it makes the engine generate is charged, and no more."""
    with keyed_server.client(headers={"x-api-key": KEY}) as client:
        made, charged = (total(client, name) for name in (MADE, CHARGED))
        yield client
        wait_until(
            lambda: (
                made < total(client, MADE)
                and total(client, CHARGED) - charged == total(client, MADE) - made
            ),
            "all is charged that was made",
        )


def total(client: httpx.Client, name: str) -> float:
    """The sum of a series."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name)


def streaming(path: str) -> str:
    """Where this API streams."""
    return f"{path}_stream" if path == GENERATE else path


@pytest.mark.parametrize("path", LONG)
def test_who_leaves_a_stream(http: httpx.Client, path: str) -> None:
    """The tokens of a stream that its client closes are charged."""
    body = {**LONG[path], "stream": True}
    with http.stream("POST", streaming(path), json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(40):
            next(lines)


@pytest.mark.parametrize("path", LONG)
@pytest.mark.parametrize("stream", [False, True])
def test_whose_time_is_over(http: httpx.Client, path: str, *, stream: bool) -> None:
    """So are those of an answer that its deadline ends, also where nothing of it was sent."""
    body, where = {**LONG[path], "stream": stream}, streaming(path) if stream else path
    answer = http.post(where, json=body, headers=LATE)
    assert answer.status_code == (200 if stream else 504)


def test_who_leaves_before_the_answer(http: httpx.Client) -> None:
    """So are those of a whole answer that nobody has waited for."""
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=LONG["/v1/completions"], timeout=0.5)


def test_answers_that_are_whole(http: httpx.Client) -> None:
    """Each answer of several is charged, and once."""
    charged = total(http, CHARGED)
    asked = {"model": "tiny", "prompt": ["a", "b"], "n": 2, "max_tokens": 7, "ignore_eos": True}
    usage = http.post("/v1/completions", json=asked).json()["usage"]
    assert usage["completion_tokens"] == 28
    wait_until(lambda: total(http, CHARGED) - charged == 28, "they are charged")
