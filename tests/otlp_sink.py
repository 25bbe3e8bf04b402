"""An OTLP collector that keeps what it gets: the protocol's own service, over gRPC and HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass
class Span:
    """A span as it arrived, ids in hex as in the traceparent header."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    service: str
    attributes: dict[str, Any]
    is_error: bool


@dataclass
class Sink(TraceServiceServicer):  # type: ignore[misc]
    """What arrived so far."""

    endpoint: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take spans, as the protocol has it."""
        self.requests.append(request)
        return ExportTraceServiceResponse()

    def text(self) -> str:
        """Everything that arrived, as text."""
        return "\n".join(map(str, self.requests))

    def spans(self) -> list[Span]:
        """Every span that arrived."""
        return [
            read_span(span, resource.resource.attributes)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def read_span(span: Any, resource: Any) -> Span:
    """A protobuf span in Python's values."""
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        values(resource).get("service.name", ""),
        values(span.attributes),
        span.status.code == 2,
    )


def values(attributes: Any) -> dict[str, Any]:
    """Attributes by name."""
    return {one.key: value(one.value) for one in attributes}


def value(any_value: Any) -> Any:
    """One value, of whatever kind."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    return getattr(any_value, kind)


@contextmanager
def collecting() -> Iterator[Sink]:
    """A sink on a free port of the loopback for the length of a with block."""
    server, sink = grpc.server(ThreadPoolExecutor(2)), Sink()
    add_TraceServiceServicer_to_server(sink, server)
    sink.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None)


class OverHttp(BaseHTTPRequestHandler):
    """One POST of spans. Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request"""

    def __init__(self, sink: Sink, *args: Any) -> None:
        self.sink = sink
        super().__init__(*args)

    def do_POST(self) -> None:
        """Take spans where and as the protocol has them; anything else is refused."""
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = (self.path, self.headers["content-type"])
        if asked != ("/v1/traces", "application/x-protobuf"):
            self.send_error(400, f"no OTLP: {asked}")
            return
        self.sink.requests.append(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def collecting_over_http() -> Iterator[Sink]:
    """The same over HTTP; the endpoint is the whole URL, as a profile has it."""
    sink = Sink()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(OverHttp, sink)) as server:
        sink.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield sink
        finally:
            server.shutdown()
