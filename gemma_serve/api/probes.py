"""What the probes say of the server; and an application that says it before vLLM is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve.api.error_body import error_response
from gemma_serve.api.request_id import with_request_id
from gemma_serve.api.state import Phase, ServerState


def livez(state: ServerState) -> JSONResponse:
    """200 while this process is or will be useful, whatever its load."""
    engine = {"progress": state.progress, "silent_s": round(state.silent_s, 1)}
    lag_s = round(state.event_loop_lag_s, 3)
    return _probe(state, state.alive, engine=engine, event_loop_lag_s=lag_s)


def readyz(state: ServerState) -> JSONResponse:
    """200 while more requests are welcome."""
    return _probe(state, state.welcoming)


def startupz(state: ServerState) -> JSONResponse:
    """200 once the start is over."""
    return _probe(state, state.phase is not Phase.STARTING)


def health(state: ServerState) -> JSONResponse:
    """200 while requests are answered, however many."""
    return _probe(state, state.ready)


BY_PATH: dict[str, Callable[[ServerState], JSONResponse]] = {
    "/livez": livez,
    "/readyz": readyz,
    "/startupz": startupz,
    "/health": health,
}


def _probe(state: ServerState, healthy: bool, **more: Any) -> JSONResponse:
    body: dict[str, Any] = {"status": state.condition}
    if state.phase is Phase.STARTING:
        body["startup_seconds"] = state.timeline.as_dict()
    if state.condition not in ("ready", "starting"):
        body["reason"] = state.reason
    return JSONResponse(body | more, 200 if healthy else 503)


def starting_app(state: ServerState) -> ASGIApp:
    """The server until its routes can be imported: the probes, and 503 `starting` for the rest."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        # KServe's word for /livez.
        probe = BY_PATH.get("/livez" if path == "/v2/health/live" else path)
        answer = probe(state) if probe else error_response(state.unavailable(), path)
        answer.headers["connection"] = "close"  # the routes are another server's connections
        await answer(scope, receive, send)

    return with_request_id(app)
