"""What is kept of every request: route, status, duration, leavers, its request id, its span."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import INVALID_SPAN
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_serve import logs, metrics
from gemma_serve.api.error_body import FAILED_STATUS, error_response
from gemma_serve.api.request_id import request_id_of
from gemma_serve.api.state import ServerState
from gemma_serve.api.tracing import begin_span, end_span
from gemma_serve.chat.prompts import on_token_ids
from gemma_serve.flight import Flight

access = logging.getLogger("gemma_serve.access")


class Observe:
    """ASGI middleware, the outermost: counts, times and traces every request, gives each an id."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self.app, self.state = app, state
        self.traced = state.profile.otlp_traces_endpoint is not None
        self.logged = state.profile.observability.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("gemma_serve.warm_up"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(
            scope, receive, send, self.state, traced=self.traced, logged=self.logged
        )
        flight = begin_flight(self.state)
        try:
            with open_request(self.state):
                await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # At the end of a shutdown, of what still waits for its body or its turn.
            if exchange.status is not None or not self.state.draining:
                raise
            refused = error_response(self.state.unavailable(), scope["path"])
            await refused(scope, exchange.receive, exchange.send)
        finally:
            end_flight(flight, exchange.record(), exchange.facts)


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

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        state: ServerState,
        *,
        traced: bool,
        logged: bool,
    ) -> None:
        self.scope, self._receive, self._send, self.state = scope, receive, send, state
        self.began_s = time.perf_counter()
        self.status: int | None = None
        self.complete = self.left = False
        self.request_id = request_id_of(scope)
        self.span = begin_span(scope) if traced else INVALID_SPAN
        self.logged = logged
        # Of this request alone: each has its task.
        self.facts = {"request_id": self.request_id.decode()}
        logs.request_facts.set(self.facts)

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
            if self.state.draining or not self.state.alive:
                # Else the next request may be on its way when the connection is closed.
                message["headers"].append((b"connection", b"close"))
        elif not message.get("more_body"):
            self.complete = True
        await self._send(message)

    def record(self) -> dict[str, str]:
        """Count the request, once it is over; return how it ended."""
        # Starlette puts the matched route there; whatever matched none is one label, not many.
        route = getattr(self.scope.get("route"), "path", "unmatched")
        method = self.scope["method"] if self.scope["method"] in METHODS else "other"
        if self.left:
            metrics.CLIENT_DISCONNECTS.labels(route).inc()
            status = "499"  # nginx's word for a client that closed the connection
        else:
            status = str(self.scope.get(FAILED_STATUS) or self.status or 500)
        metrics.HTTP_REQUESTS.labels(route, method, status).inc()
        duration_s = time.perf_counter() - self.began_s
        metrics.HTTP_REQUEST_DURATION.labels(route).observe(duration_s)
        outcome = {"method": method, "route": route, "status": status}
        end_span(self.span, **outcome, request_id=self.request_id.decode())
        if self.logged:
            log_access(outcome, duration_s, self.facts)
        return outcome


def begin_flight(state: ServerState) -> Flight | None:
    """A request's entry in the flight recorder, where there is one."""
    if state.flight is None:
        return None
    flight = Flight(state.flight)
    on_token_ids.set(flight.tokenised)
    return flight


def end_flight(flight: Flight | None, outcome: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Write the entry, once the request is over."""
    if flight is not None:
        flight.recorder.keep(flight, facts.get("answer_tokens", 0), outcome)


def log_access(outcome: Mapping[str, str], duration_s: float, facts: Mapping[str, Any]) -> None:
    """One line of the access log: what it was, how it ended, how long it took; never its text."""
    fields = {**outcome, "duration_ms": round(duration_s * 1e3, 1), **facts}
    access.info("request", extra={"fields": fields})


METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
