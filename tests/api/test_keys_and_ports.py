"""A server with keys, a metrics port and CORS, as an operator would run it."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import openai
import pytest

from tests.conftest import ServeProfile

KEY = "correct-horse"
ORIGIN = "https://chat.example"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_keys_metrics_port_and_cors(
    tiny_profile: Path, serve_profile: ServeProfile, tmp_path: Path
) -> None:
    """Clients with a key are served; metrics need none on a port of their own; one origin may."""
    keys, metrics_port = tmp_path / "keys", free_port()
    keys.write_text(f"{KEY}\n")
    overrides = [
        f"server.api_keys_file={keys}",
        f"server.metrics_port={metrics_port}",
        f"server.cors_allow_origins=[{ORIGIN}]",
        "server.docs=false",
    ]
    with serve_profile(tiny_profile, overrides) as server:
        known = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=KEY, max_retries=0)
        assert known.completions.create(model="tiny", prompt="Hi", max_tokens=2).choices[0].text

        unknown = known.with_options(api_key="guess")
        with pytest.raises(openai.AuthenticationError):
            unknown.completions.create(model="tiny", prompt="Hi", max_tokens=2)

        assert httpx.get(f"{server.base_url}/readyz").status_code == 200
        headers = {"x-api-key": KEY}
        assert httpx.get(f"{server.base_url}/metrics").status_code == 401
        assert httpx.get(f"{server.base_url}/metrics", headers=headers).status_code == 200
        for path in ("/docs", "/openapi.json"):
            assert httpx.get(f"{server.base_url}{path}", headers=headers).status_code == 404
        metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert 'gemma_serve_generation_tokens_total{model="tiny"}' in metrics
        assert "vllm:generation_tokens_total" in metrics
        assert KEY not in server.output() + metrics

        preflight = {"origin": ORIGIN, "access-control-request-method": "POST"}
        allowed = httpx.options(f"{server.base_url}/v1/completions", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        stranger = preflight | {"origin": "https://elsewhere.example"}
        refused = httpx.options(f"{server.base_url}/v1/completions", headers=stranger)
        assert "access-control-allow-origin" not in refused.headers
