"""One budget of time on every protocol: what takes longer is stopped, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import grpc
import httpx
import openai
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.bad_messages import contents_of, message, tensor
from tests.api.kserve.triton_clients import (
    generated_tokens,
    metric,
    running,
    wait_until,
    wait_until_idle,
)
from tests.servers import Server

LONG = 4000
LATE = {"x-request-deadline-ms": "200"}
TURN = [{"role": "user", "content": "Tell me of the sea."}]
GREEDY = {"temperature": 0, "ignore_eos": True}
# Of each API: where it is, its long request, and where that says what must not come.
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURN, "max_tokens": LONG, **GREEDY},
    "/v1/completions": {"prompt": "The sea", "max_tokens": LONG, **GREEDY},
    "/v1/responses": {"input": "The sea", "max_output_tokens": LONG},
    "/v1/messages": {"messages": TURN, "max_tokens": LONG},
}
# How each calls the length of its answer, where it is not `max_tokens`.
LENGTHS = {"/v1/responses": "max_output_tokens", "/v2/models/tiny/generate": "max_new_tokens"}
ENDS = ("[DONE]", "response.completed", "message_stop")


@pytest.fixture
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client; afterwards the engine must have nothing left to do."""
    before = generated_tokens(tiny_server)
    with tiny_server.client() as client:
        yield client
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < LONG


@pytest.mark.parametrize("path", ROUTES)
def test_a_whole_answer_that_takes_too_long(
    http: httpx.Client, tiny_server: Server, path: str
) -> None:
    """504 in the API's own shape, by the header as by the body's `timeout` in seconds."""
    body = {"model": "tiny", **ROUTES[path]}
    stopped = metric(tiny_server, "gemma_serve_deadlines_exceeded_total")
    for answer in (
        http.post(path, json=body, headers=LATE),
        http.post(path, json={**body, "timeout": 0.2}),
        # The shorter one counts.
        http.post(path, json={**body, "timeout": 60}, headers=LATE),
    ):
        assert answer.status_code == 504, answer.text
        error = answer.json()["error"]
        assert error["type"] == "timeout_error"
        assert error["message"] == (
            "The request took more than its timeout of 0.2 s; send a longer one, or ask for fewer "
            "tokens."
        )
    assert metric(tiny_server, "gemma_serve_deadlines_exceeded_total") == stopped + 3


@pytest.mark.parametrize("path", ROUTES)
def test_a_stream_that_takes_too_long(http: httpx.Client, path: str) -> None:
    """The text so far, then an error event in the API's shape, and nothing that says `done`."""
    body = {"model": "tiny", "stream": True, **ROUTES[path]}
    # Long enough for some text on a busy machine, too.
    answer = http.post(path, json=body, headers={"x-request-deadline-ms": "500"})
    assert answer.status_code == 200
    assert not any(end in answer.text for end in ENDS)
    *texts, last = [event for event in answer.text.split("\n\n") if event]
    assert len(texts) > 5
    name, _, data = last.rpartition("data: ")
    said = json.loads(data)
    if path == "/v1/messages":
        assert name == "event: error\n"
        assert (said["type"], said["error"]["type"]) == ("error", "timeout_error")
    elif path == "/v1/responses":
        assert name == "event: error\n"
        assert (said["type"], said["code"]) == ("error", "deadline_exceeded")
    else:
        assert (name, said["error"]["code"]) == ("", "deadline_exceeded")


@pytest.mark.parametrize("path", [*ROUTES, "/v2/models/tiny/generate"])
def test_two_requests_of_one_id(http: httpx.Client, tiny_server: Server, path: str) -> None:
    """The end of one is not the other's, though both have the same x-request-id."""
    body = {"model": "tiny", **ROUTES.get(path, {"text_input": "The sea", "do_sample": False})}
    length = LENGTHS.get(path, "max_tokens")
    same = {"x-request-id": "same"}
    with ThreadPoolExecutor(1) as other:
        whole = other.submit(http.post, path, json={**body, length: 1000}, headers=same)
        wait_until(lambda: running(tiny_server) == 1, "the first one runs")
        late = http.post(path, json={**body, length: 1000}, headers={**same, **LATE})
        answer = whole.result()
    assert late.status_code == 504, late.text
    assert answer.status_code == 200, answer.text


def test_by_the_clients(http: httpx.Client, tiny_server: Server) -> None:
    """The official clients raise on both ends, and read the text that came."""
    asks = openai.OpenAI(base_url=f"{tiny_server.base_url}/v1", api_key="none", max_retries=0)
    ask: dict[str, Any] = {"model": "tiny", "max_tokens": LONG, "messages": TURN}
    with pytest.raises(openai.InternalServerError) as late:
        asks.chat.completions.create(**ask, extra_body={"timeout": 0.2, "ignore_eos": True})
    assert late.value.status_code == 504
    stream = asks.chat.completions.create(
        **ask, stream=True, extra_headers=LATE, extra_body={"ignore_eos": True}
    )
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match=r"its timeout of 0\.2 s"):
        chunks.extend(stream)
    assert any(chunk.choices[0].delta.content for chunk in chunks)
    claude = anthropic.Anthropic(base_url=tiny_server.base_url, api_key="none", max_retries=0)
    with pytest.raises(anthropic.APIStatusError) as told:
        claude.messages.create(**ask, extra_headers=LATE)
    assert told.value.status_code == 504


def test_over_kserve(http: httpx.Client, tiny_server: Server) -> None:
    """The header counts for KServe v2 as well, and as gRPC's metadata; 504, DEADLINE_EXCEEDED."""
    values = {"text_input": "The sea", "max_new_tokens": LONG, "do_sample": False}
    answer = http.post("/v2/models/tiny/generate", json=values, headers=LATE)
    assert answer.status_code == 504
    length = tensor("max_new_tokens", contents=contents_of("INT32", [LONG]))
    greedy = tensor("do_sample", contents=contents_of("BOOL", [False]))
    with grpc.insecure_channel(tiny_server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match=r"its timeout of 0\.2 s") as late:
            stub.ModelInfer(message(tensor(), length, greedy), metadata=list(LATE.items()))
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("headers", "fields", "sentence"),
    [
        (
            {"x-request-deadline-ms": "soon"},
            {},
            "The header x-request-deadline-ms is 'soon'; send a whole number of milliseconds from "
            "1 on.",
        ),
        ({"x-request-deadline-ms": "0"}, {}, "The header x-request-deadline-ms is '0'; send"),
        ({"x-request-deadline-ms": "9" * 5000}, {}, "The header x-request-deadline-ms is '999"),
        ({}, {"timeout": 0}, "'timeout': send a number of seconds above 0, or leave it out."),
        ({}, {"timeout": "1m"}, "'timeout': send a number of seconds above 0"),
        ({}, {"timeout": True}, "'timeout': send a number of seconds above 0"),
    ],
)
def test_what_is_no_budget(
    http: httpx.Client, headers: dict[str, str], fields: dict[str, Any], sentence: str
) -> None:
    """400 says what one is."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1, **fields}
    answer = http.post("/v1/completions", json=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(sentence)


def test_time_enough(http: httpx.Client) -> None:
    """A budget that is not used up changes nothing."""
    body = {"model": "tiny", "prompt": "a", "max_tokens": 4, "timeout": 60.5}
    assert http.post("/v1/completions", json=body).status_code == 200
