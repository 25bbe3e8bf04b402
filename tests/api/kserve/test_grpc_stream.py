"""ModelStreamInfer with Triton's own clients: many requests in one stream, and its ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio

from tests.api.kserve.grpc_clients import GREEDY, LONG, PROMPT, WAIT_S, Stream, code_of
from tests.api.kserve.triton_clients import (
    generated_tokens,
    greedy,
    inputs_of,
    running,
    wait_until,
    wait_until_idle,
)
from tests.servers import Server


@pytest.mark.parametrize("algorithm", [None, "gzip"])
@pytest.mark.parametrize("asks_for_empty_final", [False, True])
def test_stream(
    client: Any, tiny_server: Server, algorithm: str | None, *, asks_for_empty_final: bool
) -> None:
    """Several pieces, which joined are the whole answer; the last one says that it is."""
    stream = Stream(client, compression_algorithm=algorithm)
    stream.send(
        "7",
        {**GREEDY, "max_new_tokens": 24, "stream": True},
        enable_empty_final_response=asks_for_empty_final,
    )
    pieces = stream.until_final(1)["7"]
    client.stop_stream()
    assert "".join(pieces) == greedy(tiny_server, PROMPT, 24).strip()
    assert len(pieces) > 2


def test_many_requests_in_one_stream(client: Any) -> None:
    """Requests of one stream run at once; every response has its request's id."""
    stream = Stream(client)
    for at in range(12):
        values = {"text_input": f"Story {at}", "max_new_tokens": 40, "stream": True}
        stream.send(f"story {at}", values)
    order: list[str] = []
    finals: set[str] = set()
    while len(finals) < 12:
        response, _ = stream.next()
        order.append(response.id)
        if response.parameters["triton_final_response"].bool_param:
            finals.add(response.id)
    client.stop_stream()
    assert finals == {f"story {at}" for at in range(12)}
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes > 24, "answered one after another"


def test_whole_answers_in_a_stream(client: Any, tiny_server: Server) -> None:
    """Without `stream: true` a request of a stream has one response, which is the final one."""
    stream = Stream(client)
    stream.send("1", {**GREEDY, "max_new_tokens": 9})
    assert stream.until_final(1) == {"1": [greedy(tiny_server, PROMPT, 9).strip()]}
    client.stop_stream()


def test_an_error_leaves_the_stream_alive(client: Any, tiny_server: Server) -> None:
    """A refused request is an error with its reason; others, before and after it, are answered."""
    stream = Stream(client)
    stream.send("before", {**GREEDY, "max_new_tokens": 5, "stream": True})
    assert "".join(stream.until_final(1)["before"]) == greedy(tiny_server, PROMPT, 5).strip()
    for values, message in (
        ({**GREEDY, "max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 1}, "'text_input' is missing"),
        ({"text_input": ["a", "b"], "stream": True}, "at most 1 when streaming"),
    ):
        stream.send("wrong", values)
        result, error = stream.answers.get(timeout=WAIT_S)
        assert result is None
        assert message in error.message()
    stream.send("after", {**GREEDY, "max_new_tokens": 5, "stream": True})
    assert "".join(stream.until_final(1)["after"]) == greedy(tiny_server, PROMPT, 5).strip()
    client.stop_stream()


def test_timeout_of_one_request_of_a_stream(client: Any, tiny_server: Server) -> None:
    """`timeout` ends the request, in the middle of its answer, and not the stream."""
    stream = Stream(client)
    stream.send("long", {**LONG, "stream": True}, timeout=300_000)
    error = None
    while error is None:
        _, error = stream.answers.get(timeout=WAIT_S)
    assert "its timeout of 0.3 s" in error.message()
    wait_until_idle(tiny_server)
    stream.send("short", {**GREEDY, "max_new_tokens": 2})
    assert list(stream.until_final(1)) == ["short"]
    client.stop_stream()


def test_cancelled_stream(client: Any, tiny_server: Server) -> None:
    """A stream that the client cancels takes all its requests out of the engine."""
    before = generated_tokens(tiny_server)
    stream = Stream(client)
    for at in range(8):
        stream.send(str(at), {**LONG, "stream": True})
    wait_until(lambda: running(tiny_server) == 8, "all eight run")
    client.stop_stream(cancel_requests=True)
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < 8 * LONG["max_new_tokens"]


def test_deadline_of_a_stream(client: Any, tiny_server: Server) -> None:
    """A stream's own timeout ends it, and its requests."""
    before = generated_tokens(tiny_server)
    stream = Stream(client, stream_timeout=0.5)
    stream.send("long", {**LONG, "stream": True})
    # The request's own error may come first: the server knows the deadline too.
    error = None
    while error is None or code_of(error) != "DEADLINE_EXCEEDED":
        _, error = stream.answers.get(timeout=WAIT_S)
    client.stop_stream()
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < LONG["max_new_tokens"]


# --- asyncio


def test_async_client(tiny_server: Server) -> None:
    """The asyncio client: probes, calls at once, and a stream with eight requests."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for at in range(8):
            values = {"text_input": f"Story {at}", "max_new_tokens": 10, "stream": True}
            inputs = inputs_of(grpcclient, values)
            yield {"model_name": "tiny", "inputs": inputs, "request_id": str(at)}

    async def all_of_it() -> tuple[list[str], dict[str, int]]:
        address = tiny_server.grpc_address
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            assert (await client.get_model_metadata("tiny")).name == "tiny"
            inputs = inputs_of(grpcclient, {**GREEDY, "max_new_tokens": 3})
            calls = (client.infer("tiny", inputs, request_id=str(at)) for at in range(6))
            ids = [one.get_response().id for one in await asyncio.gather(*calls)]
            finals: dict[str, int] = {}
            async for result, error in client.stream_infer(requests()):
                assert error is None
                response = result.get_response()
                final = response.parameters["triton_final_response"].bool_param
                finals[response.id] = finals.get(response.id, 0) + final
            return ids, finals

    ids, finals = asyncio.run(all_of_it())
    assert ids == [str(at) for at in range(6)]
    assert finals == {str(at): 1 for at in range(8)}


def test_async_client_cancels_its_stream(tiny_server: Server) -> None:
    """`cancel` of the asyncio client's stream leaves nothing running."""
    before = generated_tokens(tiny_server)

    async def first_of_it() -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for at in range(4):
                inputs = inputs_of(grpcclient, {**LONG, "stream": True})
                yield {"model_name": "tiny", "inputs": inputs, "request_id": str(at)}
            await asyncio.Event().wait()

        address = tiny_server.grpc_address
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            responses = client.stream_infer(requests())
            async for _, error in responses:
                assert error is None
                break
            assert responses.cancel()

    asyncio.run(first_of_it())
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < 4 * LONG["max_new_tokens"]
