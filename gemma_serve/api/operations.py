"""What operators and orchestrators ask: probes, what is running, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gemma_serve import __version__, metrics
from gemma_serve.api.respond import server_state
from gemma_serve.api.state import Phase, ServerState

router = APIRouter(tags=["Operations"])
metrics_router = APIRouter(tags=["Operations"])

# These answer without a key: an orchestrator has none.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/health"})


def _probe(state: ServerState, healthy: bool) -> JSONResponse:
    body: dict[str, Any] = {"status": state.condition}
    if state.phase is Phase.STARTING:
        body["startup_seconds"] = state.timeline.as_dict()
    return JSONResponse(body, 200 if healthy else 503)


@router.get("/livez")
async def livez(request: Request) -> Response:
    """200 while this process can become or stay useful; 503 asks for a restart."""
    state = server_state(request)
    return _probe(state, state.alive)


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """200 while requests are taken; 503 when starting, draining or dead."""
    state = server_state(request)
    return _probe(state, state.ready)


@router.get("/startupz")
async def startupz(request: Request) -> Response:
    """200 once the start is over."""
    state = server_state(request)
    return _probe(state, state.phase is not Phase.STARTING)


@router.get("/health")
async def health(request: Request) -> Response:
    """As /readyz, under the name that vLLM's clients know."""
    return await readyz(request)


@router.get("/v1/info")
async def info(request: Request) -> Response:
    """What is running, with which settings, and how long the start took."""
    state = server_state(request)
    return JSONResponse(
        {
            "gemma_serve_version": __version__,
            "status": state.condition,
            **state.about,
            "engine": state.engine.facts() if state.engine else None,
            "plan": state.self_check,
            "slo": state.profile.slo.model_dump(),
            "startup_seconds": state.timeline.as_dict(),
        }
    )


@metrics_router.get("/metrics")
def get_metrics() -> Response:
    """Prometheus series: vLLM's `vllm:*` and ours."""
    body, content_type = metrics.exposition()
    return Response(body, headers={"content-type": content_type})
