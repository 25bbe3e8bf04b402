"""What is refused before it is routed: counted under its route, and kept by the flight recorder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import REGISTRY

from gemma_serve.api.app import build_app
from gemma_serve.api.keys import KeyRing
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.flight import FlightRecorder
from gemma_serve.profile.schema import Limits, Profile

MAX_BODY_BYTES = 1000
KEY = {"x-api-key": "correct-horse"}
CHAT, INFER = "/v1/chat/completions", "/v2/models/{model:path}/infer"
ENDS = (401, 404, 413, 503)


def counted(route: str, status: int) -> float:
    """Requests of a route that ended so."""
    labels = {"route": route, "method": "POST", "status": str(status)}
    return REGISTRY.get_sample_value("gemma_serve_http_requests_total", labels) or 0.0


async def ask(app: Any, paths: dict[str, dict[str, Any]]) -> list[int]:
    """The statuses of one POST each."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return [(await client.post(path, **what)).status_code for path, what in paths.items()]


def test_refused_early(tmp_path: Path) -> None:
    """A body that is too large, a server that still starts, no key: each under its route."""
    path = tmp_path / "flight.jsonl"
    profile = Profile(model="google/gemma-3-4b-it", limits=Limits(max_body_bytes=MAX_BODY_BYTES))
    keys = KeyRing(None, {"GEMMA_SERVE_API_KEYS": "correct-horse"})
    recorder = FlightRecorder(str(path), 100_000)
    app = build_app(ServerState(profile, Timeline(), keys=keys, flight=recorder))
    large = {"content": b"x" * (MAX_BODY_BYTES + 1), "headers": KEY}
    before = {(route, status): counted(route, status) for route in (CHAT, INFER) for status in ENDS}

    statuses = asyncio.run(
        ask(
            app,
            {
                CHAT: large,
                "/v2/models/a/infer": large,
                "/v1/completions": {"json": {"prompt": "Hi"}, "headers": KEY},
                "/v1/messages": {"json": {"prompt": "Hi"}},
                "/v1/nothing": {"json": {"prompt": "Hi"}, "headers": KEY},
            },
        )
    )

    assert statuses == [413, 413, 503, 401, 404]
    grown = {what: counted(*what) - count for what, count in before.items()}
    assert {what for what, count in grown.items() if count} == {(CHAT, 413), (INFER, 413)}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["route"], line["status"], line["reason"]) for line in lines] == [
        (CHAT, "413", "request_too_large"),
        (INFER, "413", "request_too_large"),
        ("/v1/completions", "503", "starting"),
    ]
