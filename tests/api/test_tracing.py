"""Traces over OTLP: from the client's span through ours to vLLM's, and no text in any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.conftest import ServeProfile
from tests.otlp_sink import Span, collecting, collecting_over_http

SECRET = "xylophone-zeppelin"
CLIENTS_TRACE, CLIENTS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED_TRACE = "11112222333344445555666677778888"
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
        ]
        with serve_profile(tiny_profile, overrides) as server:
            with server.client() as http:
                send_all(http)
            assert server.stop() == 0, server.output()
    spans = sink.spans()
    assert {span.service for span in spans} == {"gemma-serve"}
    check_chat_of_a_tracing_client(spans)
    check_roots(spans)
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
        assert http.post("/v2/models/tiny/generate", json=generate | more).status_code == 200
    for path in ("/readyz", "/metrics"):
        assert http.get(path).status_code == 200


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
