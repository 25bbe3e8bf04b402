"""The FastAPI application: our own route table and what stands before it."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma_serve import __version__
from gemma_serve.api import anthropic, kserve_http, openai, operations, playground
from gemma_serve.api.auth import Authenticate
from gemma_serve.api.error_body import error_response
from gemma_serve.api.errors import install_error_handlers
from gemma_serve.api.kserve.service import KServe
from gemma_serve.api.limits import LimitBody
from gemma_serve.api.observe import Observe
from gemma_serve.api.request_id import with_request_id
from gemma_serve.api.state import ServerState
from gemma_serve.errors import NotFoundError

OPEN_PATHS = operations.OPEN_PATHS | kserve_http.OPEN_PATHS


def build_app(state: ServerState, kserve: KServe | None = None) -> ASGIApp:
    """
    The whole HTTP side, outermost first: observe, CORS, keys, body limit, routes.

    Args:
        state: The server's state, which the launcher goes on changing.
        kserve: The v2 side, where another door shares it.
    """
    server = state.profile.server
    routes = build_routes(state, kserve or KServe(state))
    app: ASGIApp = LimitBody(routes, state.max_body_bytes, state.held)
    if state.keys:
        pages = playground.OPEN_PATHS if server.playground else frozenset()
        separates = not server.shared_prefix_cache
        app = Authenticate(app, state.keys, OPEN_PATHS | pages, separates=separates)
    if server.cors_allow_origins:
        app = CORSMiddleware(
            app, server.cors_allow_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return Observe(app, state, routes.routes)


def only_probes(app: ASGIApp) -> ASGIApp:
    """The application of `server.probe_port`: the probes of `app`, and nothing else of it."""

    async def probes(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            error = NotFoundError(
                f"This port has {', '.join(sorted(OPEN_PATHS))} alone; use server.port.",
                code="unknown_route",
            )
            answer = error_response(error, scope["path"])
            await with_request_id(answer)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return probes


def build_routes(state: ServerState, kserve: KServe) -> FastAPI:
    """The route table: what is not listed here does not exist."""
    server = state.profile.server
    app = FastAPI(
        title="gemma-serve",
        version=__version__,
        docs_url="/docs" if server.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if server.docs else None,
    )
    app.state.server, app.state.kserve = state, kserve
    app.include_router(openai.inference)
    app.include_router(openai.router)
    app.include_router(anthropic.inference)
    app.include_router(kserve_http.router)
    app.include_router(operations.router)
    app.include_router(operations.metrics_router)
    if server.playground:
        app.include_router(playground.router)
    install_error_handlers(app)
    return app
