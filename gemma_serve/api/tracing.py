"""
OpenTelemetry: one span a request, which vLLM's spans of the same request stand under.

vLLM sets up provider and exporter when it gets `otlp_traces_endpoint`, and takes the parent of its
spans from the W3C headers; so ours is made by the same provider, and written into the headers. It
says what the metrics say of a request: never a raw path, a key or text.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Thread

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from gemma_serve import __version__

# What a collector that is away may cost at the end; it gets no second chance.
FLUSH_S = 2.0
W3C = TraceContextTextMapPropagator()
W3C_HEADERS = frozenset(name.encode() for name in W3C.fields)
# Of gRPC's statuses, those that a server is to blame for.
# Source: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def begin_span(scope: Scope) -> Span:
    """
    Start the span of a request over HTTP, under the client's own where it sends one.

    Every inference is a POST; probes and scrapes, which come by the second, get no span.
    """
    if scope["method"] != "POST":
        return INVALID_SPAN
    span, parent = _begin("POST", Headers(scope=scope), {})
    if parent:  # while the engine starts there is no provider, and so no span
        kept = [(name, value) for name, value in scope["headers"] if name not in W3C_HEADERS]
        made = [(name.encode(), value.encode()) for name, value in parent.items()]
        scope["headers"] = [*kept, *made]
    return span


def begin_call_span(method: str, metadata: Mapping[str, str]) -> tuple[Span, dict[str, str]]:
    """
    Start the span of an inference over gRPC, each of a stream's, under the client's own.

    Args:
        method: With its service: `package.Service/Method`.
        metadata: The call's, with the client's W3C headers.

    Returns:
        The span, and the W3C headers that name it as a parent.
    """
    return _begin(method, metadata, {"rpc.system.name": "grpc", "rpc.method": method})


def _begin(
    name: str, sent: Mapping[str, str], attributes: Mapping[str, str]
) -> tuple[Span, dict[str, str]]:
    tracer = trace.get_tracer("gemma_serve", __version__)
    parent = W3C.extract(sent)
    # Not made the current one of this context: tasks that outlive the request would inherit it.
    span = tracer.start_span(name, context=parent, kind=SpanKind.SERVER, attributes=attributes)
    carrier: dict[str, str] = {}
    W3C.inject(carrier, trace.set_span_in_context(span))
    return span, carrier


def end_span(span: Span, *, method: str, route: str, status: str, request_id: str) -> None:
    """End the span of a request with what became of it."""
    span.update_name(f"{method} {route}")
    # The names are OpenTelemetry's semantic conventions for HTTP servers.
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": int(status),
            "http.request.header.x-request-id": [request_id],
        }
    )
    if status.startswith("5"):
        span.set_attribute("error.type", status)
        span.set_status(StatusCode.ERROR)
    span.end()


def end_call_span(span: Span, *, status: str, request_id: str) -> None:
    """End the span of an inference over gRPC with what became of it."""
    # The names are OpenTelemetry's semantic conventions for RPC.
    span.set_attribute("rpc.response.status_code", status)
    span.set_attribute("rpc.request.metadata.x-request-id", [request_id])
    if status in SERVER_FAULTS:
        span.set_attribute("error.type", status)
        span.set_status(StatusCode.ERROR)
    span.end()


def flush_spans() -> None:
    """Send the spans that are left, within FLUSH_S; does nothing where nothing is traced."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        # The exporter would try for 10 s and more, whatever it is told.
        thread = Thread(target=shutdown, name="flush-spans", daemon=True)
        thread.start()
        thread.join(FLUSH_S)
