"""KServe v2 over gRPC with Triton's own clients: every method, streams, ends of every kind."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.api.kserve.triton_clients import (
    CHAT,
    TOOLS,
    generated_tokens,
    greedy,
    greedy_chat,
    inputs_of,
    metric,
    running,
    texts_of,
    wait_until,
    wait_until_idle,
)
from tests.conftest import KEY, OTHER_KEY
from tests.servers import Server

PROMPT = "The sea"
GREEDY = {"text_input": PROMPT, "do_sample": False}
LONG = {**GREEDY, "max_new_tokens": 4000}
WAIT_S = 60
SERVICE = "inference.GRPCInferenceService"
Health = health_pb2_grpc.HealthStub
Answer = tuple[Any, InferenceServerException | None]


@pytest.fixture
def client(tiny_server: Server) -> Iterator[Any]:
    """The client as a user makes it."""
    with grpcclient.InferenceServerClient(tiny_server.grpc_address) as client:
        yield client


def infer(client: Any, values: dict[str, Any], **options: Any) -> Any:
    """The whole answer."""
    return client.infer("tiny", inputs_of(grpcclient, values), **options)


def code_of(error: InferenceServerException) -> str:
    """The name of its gRPC status."""
    return str(error.status()).removeprefix("StatusCode.")


# --- what there is


def test_probes(client: Any) -> None:
    """The server and its model are there; another model or version is not."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    for model, version in (("other", ""), ("tiny", "2")):
        with pytest.raises(InferenceServerException) as caught:
            client.is_model_ready(model, version)
        assert code_of(caught.value) == "NOT_FOUND"


def test_metadata_and_configuration(client: Any, tiny_server: Server) -> None:
    """Both say the same as over HTTP."""
    with tiny_server.client() as http:
        want = http.get("/v2/models/tiny").json()
        config = http.get("/v2/models/tiny/config").json()
        server = http.get("/v2").json()
    assert client.get_server_metadata(as_json=True) == server
    found = client.get_model_metadata("tiny", "1")
    assert (found.name, list(found.versions), found.platform) == ("tiny", ["1"], want["platform"])
    for ours, theirs in ((found.inputs, want["inputs"]), (found.outputs, want["outputs"])):
        shown = [(one.name, one.datatype, list(one.shape)) for one in ours]
        assert shown == [tuple(one.values()) for one in theirs]
    made = client.get_model_config("tiny").config
    assert (made.name, made.backend) == ("tiny", "python")
    assert [one.name for one in made.input] == [one["name"] for one in config["input"]]
    assert [one.optional for one in made.input] == [one["optional"] for one in config["input"]]
    assert made.parameters["enable_inference_trace"].string_value == "false"
    for method in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(InferenceServerException) as caught:
            method("tiny", "2")
        assert code_of(caught.value) == "NOT_FOUND"


def test_index_and_statistics(client: Any) -> None:
    """The index has the model; an inference is counted in its statistics."""
    (model,) = client.get_model_repository_index().models
    assert (model.name, model.version, model.state) == ("tiny", "1", "READY")

    def stats() -> Any:
        return client.get_inference_statistics("tiny").model_stats[0]

    before = stats()
    infer(client, {**GREEDY, "max_new_tokens": 2})
    after = stats()
    assert after.inference_count - before.inference_count == 1
    success = after.inference_stats.success
    assert success.count - before.inference_stats.success.count == 1
    assert success.ns > after.inference_stats.compute_infer.ns > 0
    assert after in client.get_inference_statistics().model_stats


def test_what_is_not_served(client: Any) -> None:
    """Loading, shared memory, tracing and logging are UNIMPLEMENTED, with the reason."""
    calls: list[Callable[[], Any]] = [
        partial(client.load_model, "tiny"),
        partial(client.unload_model, "tiny"),
        client.get_system_shared_memory_status,
        partial(client.register_system_shared_memory, "region", "/region", 64),
        client.unregister_system_shared_memory,
        client.get_cuda_shared_memory_status,
        partial(client.register_cuda_shared_memory, "region", b"aGFuZGxl", 0, 64),
        client.unregister_cuda_shared_memory,
        client.get_trace_settings,
        client.get_log_settings,
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match="is not served") as caught:
            call()
        assert code_of(caught.value) == "UNIMPLEMENTED"


def test_health(tiny_server: Server) -> None:
    """grpc.health.v1 knows the server and the service; Watch says it at once."""
    serving = health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(tiny_server.grpc_address) as channel:
        health = Health(channel)
        for service in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=WAIT_S).status == serving
            watching = health.Watch(request, timeout=WAIT_S)
            assert next(watching).status == serving
            watching.cancel()
        other = health_pb2.HealthCheckRequest(service="other")
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(other, timeout=WAIT_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert [one.status for one in health.Watch(other, timeout=WAIT_S)] == [unknown]


# --- ModelInfer


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_infer(client: Any, tiny_server: Server, algorithm: str | None) -> None:
    """The stripped greedy answer, with the request's id, compressed or not."""
    result = infer(
        client,
        {**GREEDY, "max_new_tokens": 12, "stream": True},
        model_version="1",
        outputs=[grpcclient.InferRequestedOutput("text_output")],
        request_id="42",
        compression_algorithm=algorithm,
    )
    assert texts_of(result) == [greedy(tiny_server, PROMPT, 12).strip()]
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "42")
    assert [output.name for output in response.outputs] == ["text_output"]


def test_several_texts_and_a_chat(client: Any, tiny_server: Server) -> None:
    """Texts and chats in one tensor are answered in their order."""
    texts = [PROMPT, json.dumps(CHAT)]
    result = infer(client, {"text_input": texts, "max_new_tokens": 5, "do_sample": False})
    chat = greedy_chat(tiny_server, CHAT, 5)["choices"][0]["message"]["content"]
    assert texts_of(result) == [greedy(tiny_server, PROMPT, 5).strip(), chat.strip()]


def test_tools_by_parameter(client: Any, tiny_server: Server) -> None:
    """Request parameters over gRPC are strings; the tools are in the prompt, and no call comes."""
    usage = greedy_chat(tiny_server, CHAT, 4, tools=TOOLS)["usage"]
    before = metric(tiny_server, "gemma_serve_prompt_tokens_total", model="tiny")
    values = {"text_input": json.dumps(CHAT), "do_sample": False, "max_new_tokens": 4}
    result = infer(client, values, parameters={"tools": json.dumps(TOOLS)})
    assert texts_of(result, "tool_calls") == ["[]"]
    after = metric(tiny_server, "gemma_serve_prompt_tokens_total", model="tiny")
    assert after - before == usage["prompt_tokens"]


def test_one_question_as_a_chat(client: Any, tiny_server: Server) -> None:
    """The parameter `chat` makes plain text one user message."""
    values = {"text_input": CHAT[0]["content"], "do_sample": False, "max_new_tokens": 9}
    chat = greedy_chat(tiny_server, CHAT[:1], 9)["choices"][0]["message"]["content"]
    assert texts_of(infer(client, values, parameters={"chat": True})) == [chat.strip()]


def test_priority(client: Any) -> None:
    """Triton's priorities are taken."""
    for priority in (0, 1, 7):
        assert texts_of(infer(client, {**GREEDY, "max_new_tokens": 2}, priority=priority))


def test_async_infer(client: Any) -> None:
    """Sixteen calls at once come back by callback, each with its id."""
    answers: queue.Queue[Answer] = queue.Queue()
    for at in range(16):
        inputs = inputs_of(grpcclient, {"text_input": f"Story {at}", "max_new_tokens": 8})
        client.async_infer(
            "tiny", inputs, lambda result, error: answers.put((result, error)), request_id=str(at)
        )
    results = [answers.get(timeout=WAIT_S) for _ in range(16)]
    assert all(error is None for _, error in results)
    assert {result.get_response().id for result, _ in results} == {str(at) for at in range(16)}


@pytest.mark.parametrize(
    ("model", "version", "values", "code", "message"),
    [
        ("other", "", GREEDY, "NOT_FOUND", "The model 'other' is not served here; use tiny."),
        ("tiny", "9", GREEDY, "NOT_FOUND", "has no version '9' here"),
        ("tiny", "", {"max_new_tokens": 3}, "INVALID_ARGUMENT", "'text_input' is missing"),
        ("tiny", "", GREEDY | {"max_length": 1}, "INVALID_ARGUMENT", "counts prompt and answer"),
        ("tiny", "", GREEDY | {"top_k": 1.5}, "INVALID_ARGUMENT", "datatype FP32"),
    ],
)
def test_refusals(
    client: Any, model: str, version: str, values: dict[str, Any], code: str, message: str
) -> None:
    """A client's mistake is NOT_FOUND or INVALID_ARGUMENT, with one sentence."""
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(model, inputs_of(grpcclient, values), version)
    assert code_of(caught.value) == code


def test_message_over_the_limit(client: Any, tiny_server: Server) -> None:
    """A message over limits.max_body_bytes is RESOURCE_EXHAUSTED; the connection lives on."""
    with pytest.raises(InferenceServerException) as caught:
        infer(client, {"text_input": "a" * 1_000_001, "max_new_tokens": 1})
    assert code_of(caught.value) == "RESOURCE_EXHAUSTED"
    # Compressed it is small, and is as large when it is read.
    with pytest.raises(InferenceServerException) as caught:
        infer(
            client,
            {"text_input": "a" * 1_000_001, "max_new_tokens": 1},
            compression_algorithm="gzip",
        )
    assert code_of(caught.value) == "RESOURCE_EXHAUSTED"
    assert texts_of(infer(client, {**GREEDY, "max_new_tokens": 1}))


# --- ends before the answer's


def test_clients_deadline(client: Any, tiny_server: Server) -> None:
    """A call that takes longer than the client waits ends, and the engine's work with it."""
    before = generated_tokens(tiny_server)
    with pytest.raises(InferenceServerException) as caught:
        infer(client, LONG, client_timeout=0.3)
    assert code_of(caught.value) == "DEADLINE_EXCEEDED"
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < LONG["max_new_tokens"]


def test_timeout_parameter(client: Any, tiny_server: Server) -> None:
    """Triton's `timeout`, in microseconds, ends the request itself."""
    before = generated_tokens(tiny_server)
    with pytest.raises(InferenceServerException, match=r"its timeout of 0\.2 s") as caught:
        infer(client, LONG, timeout=200_000)
    assert code_of(caught.value) == "DEADLINE_EXCEEDED"
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < LONG["max_new_tokens"]
    assert texts_of(infer(client, {**GREEDY, "max_new_tokens": 2}, timeout=WAIT_S * 1_000_000))


def test_cancelled_call(client: Any, tiny_server: Server) -> None:
    """`cancel` of a call takes its request out of the engine."""
    answers: queue.Queue[Answer] = queue.Queue()
    before = generated_tokens(tiny_server)
    call = client.async_infer(
        "tiny", inputs_of(grpcclient, LONG), lambda result, error: answers.put((result, error))
    )
    wait_until(lambda: running(tiny_server) == 1, "the request runs")
    call.cancel()
    _, error = answers.get(timeout=WAIT_S)
    assert error is not None
    wait_until_idle(tiny_server)
    assert generated_tokens(tiny_server) - before < LONG["max_new_tokens"]


# --- ModelStreamInfer


class Stream:
    """A stream of the synchronous client, its responses by request id."""

    def __init__(self, client: Any, **options: Any) -> None:
        self.client = client
        self.answers: queue.Queue[Answer] = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def send(self, id_: str, values: dict[str, Any], **options: Any) -> None:
        """Send a request."""
        inputs = inputs_of(grpcclient, values)
        self.client.async_stream_infer("tiny", inputs, request_id=id_, **options)

    def next(self) -> Any:
        """The next response, which must be no error."""
        result, error = self.answers.get(timeout=WAIT_S)
        assert error is None, error
        return result.get_response(), result

    def until_final(self, count: int) -> dict[str, list[str]]:
        """The pieces of each request, until so many have had their last one."""
        pieces: dict[str, list[str]] = {}
        finals: list[str] = []
        while len(finals) < count:
            response, result = self.next()
            assert response.id not in finals, "a response after the final one"
            pieces.setdefault(response.id, []).extend(texts_of(result))
            if response.parameters["triton_final_response"].bool_param:
                finals.append(response.id)
        return pieces


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


@pytest.mark.parametrize("parameters", [{}, {"tools": json.dumps(TOOLS)}], ids=["text", "tools"])
def test_one_id_for_all(client: Any, tiny_server: Server, parameters: dict[str, str]) -> None:
    """Clients that give every request the same id have all of them answered, also at once."""
    before = generated_tokens(tiny_server)
    answers: queue.Queue[Answer] = queue.Queue()
    inputs = inputs_of(grpcclient, {**GREEDY, "max_new_tokens": 30})
    for _ in range(6):
        client.async_infer(
            "tiny",
            inputs,
            lambda result, error: answers.put((result, error)),
            request_id="same",
            parameters=parameters,
        )
    for _ in range(6):
        result, error = answers.get(timeout=WAIT_S)
        assert error is None, error
        assert result.get_response().id == "same"
    assert generated_tokens(tiny_server) - before == 6 * 30


def test_one_id_for_two_and_a_timeout_of_one(client: Any, tiny_server: Server) -> None:
    """A request whose time is over ends alone: not with all that have its id."""
    before = generated_tokens(tiny_server)
    ends: dict[int, queue.Queue[Answer]] = {timeout: queue.Queue() for timeout in (0, 200_000)}
    for timeout, answers in ends.items():
        client.async_infer(
            "tiny",
            inputs_of(grpcclient, {**GREEDY, "max_new_tokens": 1500}),
            lambda result, error, answers=answers: answers.put((result, error)),
            request_id="1",
            timeout=timeout or None,
        )
    _, late = ends[200_000].get(timeout=WAIT_S)
    assert late is not None
    assert code_of(late) == "DEADLINE_EXCEEDED"
    result, error = ends[0].get(timeout=WAIT_S)
    assert error is None, error
    assert result.get_response().id == "1"
    assert generated_tokens(tiny_server) - before >= 1500


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


# --- keys


def test_keys(keyed_server: Server) -> None:
    """With keys set, every method but the probes wants one, as a bearer token or x-api-key."""
    with (
        grpcclient.InferenceServerClient(keyed_server.grpc_address) as client,
        grpc.insecure_channel(keyed_server.grpc_address) as channel,
    ):
        assert client.is_server_live()
        assert client.is_server_ready()
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert Health(channel).Check(request, timeout=WAIT_S).status == serving
        watching = Health(channel).Watch(request, timeout=WAIT_S)
        assert next(watching).status == serving
        watching.cancel()

        known = (
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer {OTHER_KEY}"},
            {"x-api-key": OTHER_KEY},
        )
        unknown = ({}, {"authorization": "Bearer guess"}, {"x-api-key": ""}, {"x-api-key": "b"})
        inputs = inputs_of(grpcclient, {**GREEDY, "max_new_tokens": 2})
        methods: list[Callable[..., Any]] = [
            client.get_server_metadata,
            partial(client.is_model_ready, "tiny"),
            partial(client.get_model_metadata, "tiny"),
            partial(client.get_model_config, "tiny"),
            client.get_inference_statistics,
            client.get_model_repository_index,
            partial(client.infer, "tiny", inputs),
        ]
        for method in methods:
            for headers in known:
                assert method(headers=headers)
            for headers in unknown:
                with pytest.raises(InferenceServerException, match="No API key") as caught:
                    method(headers=headers)
                assert code_of(caught.value) == "UNAUTHENTICATED"

        refused = Stream(client)
        _, error = refused.answers.get(timeout=WAIT_S)
        assert error is not None
        assert code_of(error) == "UNAUTHENTICATED"
        client.stop_stream()
        allowed = Stream(client, headers=known[0])
        allowed.send("1", {**GREEDY, "max_new_tokens": 2})
        assert list(allowed.until_final(1)) == ["1"]
        client.stop_stream()

        with keyed_server.client() as http:
            for path in ("/v2/health/live", "/v2/health/ready"):
                assert http.get(path).status_code == 200
            answer = http.get("/v2/models/tiny")
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
            assert http.get("/v2", headers=known[2]).status_code == 200
        assert KEY not in keyed_server.output()
