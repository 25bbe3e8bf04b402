"""How an error is written, whatever it quotes."""

from __future__ import annotations

import json

import pytest

from gemma_serve.api.error_body import error_body, error_event
from gemma_serve.errors import RequestError

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v2/models/tiny/infer")
MAX_BYTES = 4096


@pytest.mark.parametrize(
    "text", ["x", "\u00e9", "\U0001f600", "\ud800", "\x00"], ids=["x", "e", "face", "half", "nul"]
)
@pytest.mark.parametrize("path", PATHS)
def test_an_error_is_short(path: str, text: str) -> None:
    """However long what it quotes, and whatever it is made of, an error has at most 4 KiB."""
    error = RequestError(text * 100_000, param=text * 100_000)
    assert len(json.dumps(error_body(error, path)).encode()) <= MAX_BYTES
    assert len(error_event(error, path, "").encode()) <= MAX_BYTES


def test_a_sentence_stays_whole() -> None:
    """1,024 characters of a message are written, and its parameter's name."""
    error = RequestError("a" * 2000, param="messages[3].content[0].text")
    body = error_body(error, "/v1/chat/completions")["error"]
    assert (len(body["message"]), body["param"]) == (1024, "messages[3].content[0].text")
