"""KServe v2 over gRPC with Triton's own clients: every method, calls, ends of every kind."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
import tritonclient.grpc as grpcclient
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.api.kserve.grpc_clients import (
    GREEDY,
    LONG,
    PROMPT,
    SERVICE,
    WAIT_S,
    Answer,
    code_of,
    infer,
)
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
from tests.servers import Server

Health = health_pb2_grpc.HealthStub

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
        (one,) = client.get_inference_statistics("tiny", "1").model_stats
        return one

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
