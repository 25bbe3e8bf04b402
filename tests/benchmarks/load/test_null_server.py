"""The null server answers what clients of OpenAI's routes send, by either name of the length."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.load.calibrate import null_server
from benchmarks.load.null_server import Pace


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A null server without pauses."""
    with null_server(Pace(0.0, 0.0)) as address:
        yield address


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length(url: str, name: str) -> None:
    """As many tokens as were asked for, with the usage of as many."""
    answer = httpx.post(f"{url}/v1/chat/completions", json={name: 3})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:7] == "data: {"]
    text = "".join(choice["delta"]["content"] for event in events for choice in event["choices"])
    assert (text, events[-1]["usage"]["completion_tokens"]) == (" x x x", 3)


@pytest.mark.parametrize("body", ["{}", "[]", "x", '{"max_tokens": "many"}'])
def test_without_a_length(url: str, body: str) -> None:
    """A request that names none is refused in words."""
    answer = httpx.post(f"{url}/v1/completions", content=body)
    assert (answer.status_code, answer.reason_phrase) == (400, "Bad Request")
    assert "max_tokens" in answer.json()["error"]["message"]
