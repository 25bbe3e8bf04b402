"""What is kept of every request: route, status, duration, leavers, its request id, its span."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import INVALID_SPAN
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma_serve import logs, metrics
from gemma_serve.api.error_body import FAILED_STATUS, error_response
from gemma_serve.api.request_id import request_id_of
from gemma_serve.api.state import ServerState
from gemma_serve.api.tracing import begin_span, end_span
from gemma_serve.chat.prompts import on_token_ids
from gemma_serve.flight import BLOCK_TOKENS, Flight

access = logging.getLogger("gemma_serve.access")


class Observe:
    """
    ASGI middleware, the outermost: counts, times and traces every request, gives each an id.

    Args:
        routes: Those of the app, by which a request counts that is refused before it is routed.
    """

    def __init__(self, app: ASGIApp, state: ServerState, routes: Sequence[BaseRoute] = ()) -> None:
        self.app, self.state, self.routes = app, state, routes
        self.traced = state.profile.otlp_traces_endpoint is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("gemma_serve.warm_up"):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self.state, traced=self.traced)
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
            if flight is not None:
                flight.num_bytes = exchange.asked_bytes
            end_flight(flight, exchange.record(self.routes), exchange.facts)


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
    ) -> None:
        self.scope, self._receive, self._send, self.state = scope, receive, send, state
        self.began_s = time.perf_counter()
        self.status: int | None = None
        self.complete = self.left = False
        self.body_bytes, self.has_body = 0, False  # as it came, and whether all of it has
        self.request_id = request_id_of(scope)
        self.span = begin_span(scope) if traced else INVALID_SPAN
        # Of this request alone: each has its task.
        self.facts = {"request_id": self.request_id.decode()}
        logs.request_facts.set(self.facts)

    async def receive(self) -> Message:
        """Pass a message on, and notice a client that leaves."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.body_bytes += len(message.get("body", b""))
            self.has_body = not message.get("more_body")
        elif message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    @property
    def asked_bytes(self) -> int:
        """The size of what a POST asks; 0 where its client left before it had said all."""
        if self.scope["method"] != "POST" or (self.left and not self.has_body):
            return 0
        announced = dict(self.scope["headers"]).get(b"content-length", b"")
        # A body that is announced too large is not read.
        return self.body_bytes or (int(announced) if announced.isdigit() else 0)

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

    def record(self, routes: Sequence[BaseRoute]) -> dict[str, str]:
        """Count the request, once it is over; return how it ended."""
        route = self._route(routes)
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
        say_it_is_over(self.state, outcome, duration_s, self.facts)
        return outcome

    def _route(self, routes: Sequence[BaseRoute]) -> str:
        """The route's template; whatever matches none is one label, not many."""
        # FastAPI puts the matched one there, unless the request was refused before.
        route = self.scope.get("route") or next(
            (route for route in routes if route.matches(self.scope)[0] is Match.FULL), None
        )
        return getattr(route, "path", "unmatched")


def begin_flight(state: ServerState) -> Flight | None:
    """A request's entry in the flight recorder, where there is one."""
    if state.flight is None:
        return None
    engine, tokens_of = state.engine, state.admission.estimates.tokens_of
    # An image has more bytes than tokens: no prompt is longer than the context.
    most = engine.max_model_len if engine else state.profile.max_model_len or BLOCK_TOKENS
    flight = Flight(state.flight, lambda num_bytes: min(tokens_of(num_bytes), most))
    on_token_ids.set(flight.tokenised)
    return flight


def end_flight(flight: Flight | None, outcome: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Write the entry, once the request is over."""
    if flight is not None:
        flight.recorder.keep(flight, outcome, facts)


def say_it_is_over(
    state: ServerState, outcome: Mapping[str, str], duration_s: float, facts: Mapping[str, Any]
) -> None:
    """
    What a request was, how it ended and how long it took, never its text: a line of the access
    log, where the profile wants that, and what is remembered for an incident.
    """
    fields = {**outcome, "duration_ms": round(duration_s * 1e3, 1), **facts}
    if outcome["method"] in ("POST", "gRPC"):  # no probe and no scrape
        state.last_requests.append({"ended_s": round(time.time(), 3), **fields})
    if state.profile.observability.access_log:
        access.info("request", extra={"fields": fields})


METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
