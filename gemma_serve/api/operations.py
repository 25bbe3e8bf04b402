"""What operators and orchestrators ask: probes, what is running, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gemma_serve import __version__, metrics
from gemma_serve.api import probes
from gemma_serve.api.respond import server_state

router = APIRouter(tags=["Operations"])
metrics_router = APIRouter(tags=["Operations"])

# These answer without a key: an orchestrator has none.
OPEN_PATHS = frozenset(probes.BY_PATH)


@router.get("/livez")
async def livez(request: Request) -> Response:
    """200 while this process is or will be useful, whatever its load; 503 asks for a restart."""
    return probes.livez(server_state(request))


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """200 while more requests are welcome; 503 with the reason, which is no cause for a restart."""
    return probes.readyz(server_state(request))


@router.get("/startupz")
async def startupz(request: Request) -> Response:
    """200 once the start is over."""
    return probes.startupz(server_state(request))


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while requests are answered, however many; the name that vLLM's clients know."""
    return probes.health(server_state(request))


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
            "admission": state.admission.as_dict(),
            "startup_seconds": state.timeline.as_dict(),
        }
    )


@metrics_router.get("/metrics", response_class=Response)
def get_metrics() -> Response:
    """Prometheus series: vLLM's `vllm:*` and ours."""
    body, content_type = metrics.exposition()
    return Response(body, headers={"content-type": content_type})
