"""ModelStreamInfer over real gRPC, as a scripted server acts it out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from benchmarks.load.connection import Endpoint
from benchmarks.load.grpc_messages import FINAL_BYTES, ends_answer
from benchmarks.load.probe import Abilities, abilities
from benchmarks.load.runner import Offered, Sending, offer
from benchmarks.records import Item, Load, RequestRecord
from tests.benchmarks.load.test_runner import items
from tests.benchmarks.scripted_grpc import (
    Hangup,
    Script,
    honest,
    inputs,
    refusal,
    response,
    scripted_grpc,
)

ONE = Load(mode="closed", concurrency=1)
# Nobody listens on its HTTP port, which is not used.
NO_HTTP = "http://127.0.0.1:9"


def run(script: Script, load: Load, todo: list[Item], **how: Any) -> Offered:
    """Offer the items to a server with this script."""
    options = {"contract": "vllm-backend", "token_source": "event_counts"} | how

    async def offered() -> Offered:
        async with scripted_grpc(script) as address:
            endpoint = Endpoint(NO_HTTP, api_key="k", grpc=address)
            sending = Sending(endpoint, "triton-grpc", "scripted", **options)
            return await offer(sending, load, todo)

    return asyncio.run(offered())


def only(script: Script, **how: Any) -> RequestRecord:
    """The record of one request."""
    (record,) = run(script, ONE, items(1), **how).records
    return record


# --- answers that are complete


def test_tokens_are_the_servers_count_of_each_response() -> None:
    """Counts, reason, prompt and text come out of the tensors; the times are in order."""
    record = only(honest, keep_text=True)

    assert (record.error, record.num_output_tokens, record.token_source) == (
        None,
        3,
        "event_counts",
    )
    assert [chunk.num_tokens for chunk in record.chunks] == [1, 2]
    assert (record.finish_reason, record.prompt_tokens, record.text) == ("length", 3, " a b c")
    assert 0 < record.chunks[0].at_s <= record.chunks[1].at_s <= record.end_s - record.send_s


def test_python_backend_is_counted_by_events() -> None:
    """Without counts and reasons the final response is the end, and each with text is a chunk."""

    async def plain(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        for text, final in (("a", False), ("", False), ("b", True)):
            yield response(text, tokens=None, reason=None, prompt=None, final=final)

    record = only(plain, contract="python-backend", token_source="usage")

    assert (record.error, record.num_output_tokens, record.token_source) == (None, 2, "events")


def test_empty_final_response_ends_the_answer() -> None:
    """Triton may say that there is nothing more in a response without outputs."""

    async def apart(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        yield response(reason="stop")
        empty = response(final=True)
        del empty.infer_response.outputs[:], empty.infer_response.raw_output_contents[:]
        yield empty

    record = only(apart)

    assert (record.error, record.num_output_tokens) == (None, 1)


def test_request_has_the_contracts_tensors() -> None:
    """Names, datatypes and shapes are those that the backends declare."""
    seen: list[Any] = []

    async def looks(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        seen.append((request, dict(context.invocation_metadata())))
        async for one in honest(request, context):
            yield one

    for contract in ("vllm-backend", "python-backend", "tensorrtllm"):
        only(looks, contract=contract)
    (vllm, metadata), (python, _), (trt, _) = seen

    assert metadata["authorization"] == "Bearer k"
    assert (vllm.model_name, {tuple(one.shape) for one in vllm.inputs}) == ("scripted", {(1,)})
    assert json.loads(inputs(vllm)["sampling_parameters"]) == {
        "temperature": 0,
        "max_tokens": 3,
        "ignore_eos": True,
    }
    assert inputs(vllm)["return_num_output_tokens"] is True
    assert inputs(python) == {
        "text_input": "prompt 0",
        "max_new_tokens": 3,
        "do_sample": False,
        "stream": True,
    }
    assert {tuple(one.shape) for one in trt.inputs} == {(1, 1)}
    assert inputs(trt)["temperature"] == 0.0


def test_client_has_one_stream_for_all_its_requests() -> None:
    """Two clients make two connections, one stream on each, and no more requests are open."""
    now, most, streams, peers = 0, 0, set(), set()

    async def gauge(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        streams.add(id(context))
        peers.add(context.peer())
        await asyncio.sleep(0.02)
        now -= 1
        async for one in honest(request, context):
            yield one

    offered = run(gauge, Load(mode="closed", concurrency=2), items(8))

    assert {record.error for record in offered.records} == {None}
    assert (most, len(streams), len(peers)) == (2, 2, 2)


# --- and those that are not


async def refuses(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield refusal("too many")


async def error_after_a_token(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield response()
    yield refusal("the engine died")


async def ends_early(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield response()
    raise Hangup


async def hangs_up(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    raise Hangup
    yield


async def breaks(_request: Any, context: Any) -> AsyncGenerator[Any, None]:
    yield response()
    await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")


async def unavailable(_request: Any, context: Any) -> AsyncGenerator[Any, None]:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    yield


async def wants_a_key(_request: Any, context: Any) -> AsyncGenerator[Any, None]:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
    yield


async def never_final(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield response(reason="length")
    await asyncio.sleep(3)


async def drips_for_ever(_request: Any, context: Any) -> AsyncGenerator[Any, None]:
    while not context.cancelled():
        yield response()
        await asyncio.sleep(0.05)


async def final_without_a_reason(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield response(final=True)


async def says_nothing(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield response("", tokens=0, reason="stop", final=True)


async def counts_are_torn(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    torn = response(final=True)
    torn.infer_response.raw_output_contents[-1] = b"\x01\x00"
    yield torn


async def outputs_are_missing(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    torn = response(final=True)
    del torn.infer_response.raw_output_contents[-1]
    yield torn


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (refuses, "http_status", "too many"),
        (error_after_a_token, "sse_error", "the engine died"),
        (ends_early, "early_close", "in the middle of an answer: the server ended the stream"),
        (hangs_up, "connect", "no answer: the server ended the stream"),
        (breaks, "early_close", "in the middle of an answer: UNAVAILABLE: going down"),
        (unavailable, "connect", "no answer: UNAVAILABLE: not yet"),
        (wants_a_key, "http_status", "UNAUTHENTICATED: no such key"),
        (never_final, "stall", "no byte for 0.3 s"),
        (drips_for_ever, "timeout", "not finished after 0.5 s"),
        (final_without_a_reason, "early_close", "without a finish reason"),
        (says_nothing, "no_tokens", "not one token"),
        (counts_are_torn, "bad_answer", "a message that is no response"),
        (outputs_are_missing, "bad_answer", "a message that is no response"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_failures_by_their_names(script: Script, error: str, message: str) -> None:
    """A failure has the name that it has over HTTP."""
    limits = {"stall": {"stall_s": 0.3}, "timeout": {"timeout_s": 0.5}}
    record = only(script, **limits.get(error, {}))

    assert record.error == error
    assert record.error_message is not None
    assert re.search(message, record.error_message)


def test_stream_is_opened_anew_after_a_failure() -> None:
    """A client whose stream broke, or was given up, goes on with another one."""
    seen: list[str] = []

    async def sometimes(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        seen.append(context.peer())
        script = {2: refuses, 4: hangs_up}.get(len(seen), honest)
        async for one in script(request, context):
            yield one

    errors = [record.error for record in run(sometimes, ONE, items(6)).records]

    assert errors == [None, "http_status", None, "connect", None, None]
    assert len(set(seen)) == 3


def test_nobody_speaks_grpc() -> None:
    """Where nobody listens, one sentence says so before anything is sent."""

    async def nobody() -> None:
        endpoint = Endpoint(NO_HTTP, grpc="127.0.0.1:9")
        await offer(Sending(endpoint, "triton-grpc", "m"), ONE, items(1))

    with pytest.raises(ConnectionError, match=r"no gRPC connection to 127\.0\.0\.1:9"):
        asyncio.run(nobody())


# --- what a server can do


def probed(script: Script, contract: str) -> Abilities:
    """What the probe finds."""

    async def probe() -> Abilities:
        async with scripted_grpc(script) as address:
            endpoint = Endpoint(NO_HTTP, grpc=address)
            return await abilities(endpoint, "triton-grpc", "m", items(1)[0], contract)  # type: ignore[arg-type]

    return asyncio.run(probe())


async def python_backend(request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    if "sampling_parameters" in inputs(request):
        yield refusal("unexpected inference input 'sampling_parameters'")
        return
    yield response("a", tokens=None, reason=None, prompt=None, final=True)


def test_probe_finds_how_tokens_are_counted() -> None:
    """The vLLM backend counts, and ends at max_tokens; the python backend does neither."""
    assert probed(honest, "vllm-backend") == Abilities("event_counts", True, True)
    assert probed(python_backend, "python-backend") == Abilities("events", False, True)


def test_probe_of_another_contract_says_what_to_check() -> None:
    """The server's own word, and the option that is to blame."""
    with pytest.raises(ValueError, match=r"unexpected inference input .*--triton-contract"):
        probed(python_backend, "vllm-backend")


# --- the end of an answer, by its bytes


def test_end_is_not_seen_in_a_text() -> None:
    """A model that generates the very bytes of the flag ends nothing."""
    text = FINAL_BYTES.decode()

    assert not ends_answer(response(text).SerializeToString())
    assert ends_answer(response(text, final=True).SerializeToString())
    assert ends_answer(refusal("no").SerializeToString())
    assert ends_answer(FINAL_BYTES)  # no response at all: nothing more is to be waited for
