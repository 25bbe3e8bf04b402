"""Refusals over HTTP: the status, the caller's shape, the sentence; and never a 5xx."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.servers import Server

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture
def http(tiny_server: Server) -> httpx.Client:
    """A plain HTTP client."""
    return tiny_server.client()


def _error(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (
            "{bad",
            "The body is not JSON: Expecting property name enclosed in double quotes; "
            "send one JSON object.",
            None,
        ),
        ("", "The body: Field required.", None),
        (
            "[]",
            "The body: Input should be a valid dictionary or object to extract fields from.",
            None,
        ),
        ("{}", "'messages': Field required.", "messages"),
        ('{"messages": "x"}', "'messages': Input should be a valid list.", "messages"),
    ],
)
def test_malformed_body(http: httpx.Client, body: str, message: str, param: str | None) -> None:
    """A body that can't be a chat is a 400 that says what is wrong with it."""
    answer = http.post(CHAT, content=body, headers=JSON)
    assert answer.status_code == 400
    error = _error(answer)
    assert (error["message"], error["param"]) == (message, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ["\ud800"]}, "stop"),
        ({"bad_words": ["\udfff"]}, "bad_words"),
        ({"top_k": 2**70}, "top_k"),
        ({"structured_outputs": 5}, "structured_outputs"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_sampling_that_vllm_fails_on(
    http: httpx.Client, path: str, fields: dict[str, Any], param: str
) -> None:
    """What vLLM's models take and its engine fails on is a 400 that names the field."""
    prompt = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hi"}
    answer = http.post(path, content=json.dumps({**prompt, **fields}), headers=JSON)
    assert (answer.status_code, _error(answer)["param"]) == (400, param)


def test_sampling_of_the_other_apis(http: httpx.Client) -> None:
    """The Anthropic and Responses APIs, whose models are vLLM's, are held to the same."""
    turn = {"role": "user", "content": "Hi"}
    message = {"model": "tiny", "max_tokens": 4, "messages": [turn]}
    body = {**message, "stop_sequences": ["\ud800"]}
    anthropic = http.post("/v1/messages", content=json.dumps(body), headers=JSON)
    assert anthropic.status_code == 400
    assert "stop_sequences" in anthropic.json()["error"]["message"]
    responses = http.post("/v1/responses", json={"input": "Hi", "top_k": 2**70})
    assert (responses.status_code, _error(responses)["param"]) == (400, "top_k")


def test_wrong_content_type(http: httpx.Client) -> None:
    """A form is a 415."""
    answer = http.post(CHAT, data={"a": "b"})
    assert answer.status_code == 415
    assert _error(answer)["message"] == (
        "The content type is 'application/x-www-form-urlencoded'; send JSON as application/json."
    )


def test_unknown_route(http: httpx.Client) -> None:
    """An unknown route is a 404 in OpenAI's shape; under /v1/messages in Anthropic's."""
    answer = http.get("/v1/nope")
    assert answer.status_code == 404
    assert _error(answer)["code"] == "unknown_route"
    assert _error(answer)["message"] == (
        "There is no route GET '/v1/nope'; /docs lists those there are."
    )

    anthropic = http.get("/v1/messages/nope")
    assert anthropic.status_code == 404
    assert anthropic.json()["type"] == "error"
    assert anthropic.json()["error"]["type"] == "not_found_error"


def test_wrong_method(http: httpx.Client) -> None:
    """A wrong method is a 405 that names the right one."""
    answer = http.get(CHAT)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert _error(answer)["message"] == "'/v1/chat/completions' does not take GET; use POST."


def test_too_large_a_body(http: httpx.Client) -> None:
    """A body over limits.max_body_bytes is a 413, whether its length is announced or not."""
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * 1_000_001
    announced = http.post(CHAT, content=body, headers=JSON)
    chunked = http.post(CHAT, content=iter([body]), headers=JSON)
    for answer in (announced, chunked):
        assert answer.status_code == 413
        assert _error(answer)["code"] == "request_too_large"


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 0},
        {"max_tokens": 100_000},
        {"max_tokens": "many"},
        {"temperature": -1},
        {"top_p": 2},
        {"n": 0},
        {"logit_bias": {"999999": 1}},
        {"stop": 5},
        {"seed": "x"},
        {"top_logprobs": 1000, "logprobs": True},
        {"messages": []},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "wizard", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"response_format": {"type": "json_schema"}},
        {"structured_outputs": {"regex": "("}},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"structured_outputs": {"disable_any_whitespace": True}},
        {"chat_template": "{{ 1 }}"},
        {"stream_options": "x"},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_bad_field(http: httpx.Client, change: dict[str, Any], stream: bool) -> None:
    """A bad field is a 400 before anything is streamed, in one short message without a path."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": stream}
    answer = http.post(CHAT, json=body | change)
    assert answer.status_code == 400, answer.text
    message = _error(answer)["message"]
    assert 0 < len(message) <= 1024
    assert "/site-packages/" not in message
    assert "Traceback" not in message


def test_request_id_is_kept(http: httpx.Client) -> None:
    """A client's request id comes back, and is the answer's id; a dangerous one is replaced."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    answer = http.post(CHAT, json=body, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["id"] == "chatcmpl-mine-1"

    odd = http.get("/livez", headers={"x-request-id": "a b\tc"})
    assert odd.headers["x-request-id"] != "a b\tc"
