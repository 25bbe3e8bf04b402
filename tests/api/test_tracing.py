"""Traces over OTLP: from the client's span through ours to vLLM's, and no text in any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.bad_messages import contents_of, message, tensor
from tests.conftest import ServeProfile
from tests.otlp_sink import Span, collecting, collecting_over_http
from tests.servers import Server

SECRET = "xylophone-zeppelin"
CLIENTS_TRACE, CLIENTS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED_TRACE = "11112222333344445555666677778888"
KSERVE_TRACE, CALLS_TRACE, STREAMS_TRACE = ("a" * 32, "b" * 32, "c" * 32)
GENERATE = "/v2/models/tiny/generate"
SERVICE = "inference.GRPCInferenceService"
TOOLS = [{"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}]
CHAT = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, "ignore_eos": True}


def traceparent(trace_id: str, *, sampled: bool = True) -> dict[str, str]:
    """The W3C header of a client that traces."""
    return {"traceparent": f"00-{trace_id}-{CLIENTS_SPAN}-{'01' if sampled else '00'}"}


def test_a_request_is_one_trace(tiny_profile: Path, serve_profile: ServeProfile) -> None:
    """What clients, our server and vLLM's engine say of requests, once the server has ended."""
    with collecting() as sink:
        overrides = [
            f"observability.otlp_traces_endpoint={sink.endpoint}",
            "chat.tool_call_parser=pythonic",
            "server.grpc_port=0",
        ]
        with serve_profile(tiny_profile, overrides) as server:
            with server.client() as http:
                send_all(http)
                send_over_kserve(server, http)
            assert server.stop() == 0, server.output()
    spans = sink.spans()
    assert {span.service for span in spans} == {"gemma-serve"}
    check_chat_of_a_tracing_client(spans)
    check_roots(spans)
    check_kserve(spans)
    check_streamed(spans)
    # The client did not want this one; probes and scrapes nobody wants.
    assert UNSAMPLED_TRACE not in {span.trace_id for span in spans}
    assert not [span.name for span in spans if span.name.startswith("GET")]
    assert SECRET not in sink.text()
    assert SECRET not in server.output()


def send_all(http: httpx.Client) -> None:
    """A chat of a client that traces, and what stands beside it."""
    chats, traced = "/v1/chat/completions", traceparent(CLIENTS_TRACE)
    sent = {"x-request-id": "trip-7", **traced}
    assert http.post(chats, json=CHAT, headers=sent).status_code == 200
    unsampled = traceparent(UNSAMPLED_TRACE, sampled=False)
    assert http.post(chats, json=CHAT, headers=unsampled).status_code == 200
    assert http.post(chats, json=CHAT | {"stream": True}).status_code == 200
    assert http.post(chats, json=CHAT | {"max_tokens": -1}).status_code == 400
    generate = {"text_input": SECRET, "max_new_tokens": 4}
    for more in ({}, {"tools": TOOLS}):
        assert http.post(GENERATE, json=generate | more).status_code == 200
    for path in ("/readyz", "/metrics"):
        assert http.get(path).status_code == 200


def infer_message(id_: str, max_new_tokens: int = 4) -> Any:
    """A ModelInferRequest of so many tokens."""
    request = message(
        tensor(contents=contents_of("BYTES", [SECRET])),
        tensor("max_new_tokens", contents=contents_of("INT32", [max_new_tokens])),
    )
    request.id = id_
    return request


def send_over_kserve(server: Server, http: httpx.Client) -> None:
    """Inferences with two ids each, their carrier's and their own, from a client that traces."""
    headers = {"x-request-id": "trip-8", **traceparent(KSERVE_TRACE)}
    generate = {"text_input": SECRET, "max_new_tokens": 4, "id": "over-http"}
    assert http.post(GENERATE, json=generate, headers=headers).status_code == 200
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        sent = {"x-request-id": "trip-9", **traceparent(CALLS_TRACE)}
        stub.ModelInfer(infer_message("over-grpc"), metadata=tuple(sent.items()))
        unsampled = traceparent(UNSAMPLED_TRACE, sampled=False)
        stub.ModelInfer(infer_message("unsampled"), metadata=tuple(unsampled.items()))
        stub.ModelInfer(infer_message("rootless"))
        sent = {"x-request-id": "trip-10", **traceparent(STREAMS_TRACE)}
        streamed = [infer_message("first"), infer_message("second"), infer_message("wrong", 0)]
        said = list(stub.ModelStreamInfer(iter(streamed), metadata=tuple(sent.items())))
    assert [bool(one.error_message) for one in said].count(True) == 1


def check_chat_of_a_tracing_client(spans: list[Span]) -> None:
    """Client, HTTP, engine: each span stands under the one before."""
    ours, engines = (span for span in spans if span.trace_id == CLIENTS_TRACE)
    if ours.name == "llm_request":
        ours, engines = engines, ours
    assert ours.name == "POST /v1/chat/completions"
    assert ours.parent_id == CLIENTS_SPAN
    assert ours.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "http.request.header.x-request-id": ["trip-7"],
    }
    assert engines.name == "llm_request"
    assert engines.parent_id == ours.span_id
    assert engines.attributes["gen_ai.usage.completion_tokens"] == 4
    assert "trip-7" in engines.attributes["gen_ai.request.id"]


def check_roots(spans: list[Span]) -> None:
    """Without a client's span, ours is the trace's first; a refusal never reaches the engine."""
    roots = [span for span in spans if span.name.startswith("POST") and not span.parent_id]
    assert [(span.name, span.attributes["http.response.status_code"]) for span in roots] == [
        ("POST /v1/chat/completions", 200),
        ("POST /v1/chat/completions", 400),
        ("POST /v2/models/{model:path}/generate", 200),
        ("POST /v2/models/{model:path}/generate", 200),
    ]
    below = {span.parent_id for span in spans if span.name == "llm_request"}
    assert [span.span_id in below for span in roots] == [True, False, True, True]


def split(spans: list[Span], trace_id: str) -> tuple[list[Span], list[Span]]:
    """The spans of a trace: ours, and the engine's."""
    mine = [span for span in spans if span.trace_id == trace_id]
    return (
        [span for span in mine if span.name != "llm_request"],
        [span for span in mine if span.name == "llm_request"],
    )


def check_kserve(spans: list[Span]) -> None:
    """An inference over HTTP, one over gRPC, and one whose client does not trace."""
    over_http = check_ids(spans, KSERVE_TRACE, "over-http")
    assert over_http.name == "POST /v2/models/{model:path}/generate"
    assert over_http.attributes["http.request.header.x-request-id"] == ["trip-8"]
    over_grpc = check_ids(spans, CALLS_TRACE, "over-grpc")
    assert over_grpc.name == f"{SERVICE}/ModelInfer"
    assert over_grpc.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": over_grpc.name,
        "rpc.response.status_code": "OK",
        "rpc.request.metadata.x-request-id": ["trip-9"],
    }
    (root,) = [span for span in spans if span.name == over_grpc.name and not span.parent_id]
    assert root.attributes["rpc.request.metadata.x-request-id"] == ["rootless"]


def check_ids(spans: list[Span], trace_id: str, own_id: str) -> Span:
    """Our span, under the client's; vLLM's is below it, and has the request's own id."""
    (ours,), (engines,) = split(spans, trace_id)
    assert ours.parent_id == CLIENTS_SPAN
    assert engines.parent_id == ours.span_id
    assert own_id in engines.attributes["gen_ai.request.id"]
    return ours


def check_streamed(spans: list[Span]) -> None:
    """Each request of a stream is a span of its own; a refused one never reaches the engine."""
    ours, engines = split(spans, STREAMS_TRACE)
    assert {(span.name, span.parent_id) for span in ours} == {
        (f"{SERVICE}/ModelStreamInfer", CLIENTS_SPAN)
    }
    assert not any(span.is_error for span in ours)
    by_id = {span.span_id: span.attributes["rpc.response.status_code"] for span in ours}
    assert sorted(by_id.values()) == ["INVALID_ARGUMENT", "OK", "OK"]
    answered = {id_ for id_, status in by_id.items() if status == "OK"}
    assert {span.parent_id for span in engines} == answered
    asked = sorted(span.attributes["gen_ai.request.id"] for span in engines)
    assert ["first" in asked[0], "second" in asked[1]] == [True, True]
    assert {span.attributes["rpc.request.metadata.x-request-id"][0] for span in ours} == {"trip-10"}


# In a process of its own, because a provider is set once in each: vLLM's, as its engine sets it.
ONE_SPAN = """
import sys
from vllm.tracing import init_tracer
from gemma_serve.api.tracing import begin_span, end_span, flush_spans
init_tracer("vllm.llm_engine", sys.argv[1])
span = begin_span({"type": "http", "method": "POST", "headers": []})
end_span(span, method="POST", route="/v1/chat/completions", status="503", request_id="trip-8")
flush_spans()
"""
BOUND_S = 120


def test_over_http() -> None:
    """OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf sends the same span over HTTP."""
    protocol = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    with collecting_over_http() as sink:
        command = [sys.executable, "-c", ONE_SPAN, sink.endpoint]
        subprocess.run(command, env=os.environ | protocol, check=True, timeout=BOUND_S)
    [span] = sink.spans()
    assert (span.name, span.is_error) == ("POST /v1/chat/completions", True)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 503,
        "http.request.header.x-request-id": ["trip-8"],
        "error.type": "503",
    }
