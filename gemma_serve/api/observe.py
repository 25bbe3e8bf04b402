"""What is kept of every request: route, status, duration, leavers, its request id, its span."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import INVALID_SPAN
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_serve import metrics
from gemma_serve.api.state import ServerState
from gemma_serve.api.tracing import begin_span, end_span

# A client's own id is kept when it can do no harm in a header or a log line.
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Observe:
    """ASGI middleware, the outermost: counts, times and traces every request, gives each an id."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self.app, self.state = app, state
        self.traced = state.profile.otlp_traces_endpoint is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("gemma_serve.warm_up"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, traced=self.traced)
        try:
            with open_request(self.state):
                await self.app(scope, exchange.receive, exchange.send)
        finally:
            exchange.record()


@contextmanager
def open_request(state: ServerState) -> Iterator[None]:
    """Count a request as open, of whatever protocol: the drain waits for it."""
    state.open_requests += 1
    metrics.OPEN_REQUESTS.set(state.open_requests)
    try:
        yield
    finally:
        state.open_requests -= 1
        metrics.OPEN_REQUESTS.set(state.open_requests)


class Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, traced: bool) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.began_s = time.perf_counter()
        self.status: int | None = None
        self.complete = self.left = False
        self.request_id = request_id_of(scope)
        self.span = begin_span(scope) if traced else INVALID_SPAN

    async def receive(self) -> Message:
        """Pass a message on, and notice a client that leaves."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, with the request id in its head."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.request_id)]
        elif not message.get("more_body"):
            self.complete = True
        await self._send(message)

    def record(self) -> None:
        """Count the request, once it is over."""
        # Starlette puts the matched route there; whatever matched none is one label, not many.
        route = getattr(self.scope.get("route"), "path", "unmatched")
        method = self.scope["method"] if self.scope["method"] in METHODS else "other"
        if self.left:
            metrics.CLIENT_DISCONNECTS.labels(route).inc()
            status = "499"  # nginx's word for a client that closed the connection
        else:
            status = str(self.status or 500)
        metrics.HTTP_REQUESTS.labels(route, method, status).inc()
        duration_s = time.perf_counter() - self.began_s
        metrics.HTTP_REQUEST_DURATION.labels(route).observe(duration_s)
        outcome = {"method": method, "route": route, "status": status}
        end_span(self.span, **outcome, request_id=self.request_id.decode())


METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


def request_id_of(scope: Scope) -> bytes:
    """The client's x-request-id, or a new one put among the headers, where vLLM looks for it."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return bytes(value)
    made = uuid.uuid4().hex.encode()
    kept = [(name, value) for name, value in scope["headers"] if name != b"x-request-id"]
    scope["headers"] = [*kept, (b"x-request-id", made)]
    return made
