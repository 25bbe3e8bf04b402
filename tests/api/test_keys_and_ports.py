"""A server with keys, a metrics port and CORS, as an operator would run it."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.conftest import KEY, ORIGIN
from tests.servers import Server


def test_keys(keyed_server: Server) -> None:
    """Clients with a key are served, the probes need none, and it is in no log."""
    known = openai.OpenAI(base_url=f"{keyed_server.base_url}/v1", api_key=KEY, max_retries=0)
    assert known.completions.create(model="tiny", prompt="Hi", max_tokens=2).choices[0].text

    unknown = known.with_options(api_key="guess")
    with pytest.raises(openai.AuthenticationError):
        unknown.completions.create(model="tiny", prompt="Hi", max_tokens=2)
    assert httpx.get(f"{keyed_server.base_url}/readyz").status_code == 200
    assert KEY not in keyed_server.output()


def test_metrics_port(keyed_server: Server, metrics_port: int) -> None:
    """Metrics want a key on the main port, and none on a port of their own."""
    with keyed_server.client() as client:
        body = {"model": "tiny", "prompt": "Hi", "max_tokens": 2}
        headers = {"x-api-key": KEY}
        assert client.post("/v1/completions", json=body, headers=headers).status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 200
    metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    assert 'gemma_serve_generation_tokens_total{model="tiny"}' in metrics
    assert "vllm:generation_tokens_total" in metrics
    assert KEY not in metrics


def test_no_documentation(keyed_server: Server) -> None:
    """`server.docs: false` hides the OpenAPI document from clients with a key too."""
    with keyed_server.client() as client:
        for path in ("/docs", "/openapi.json"):
            assert client.get(path, headers={"x-api-key": KEY}).status_code == 404


def test_one_origin_may(keyed_server: Server) -> None:
    """A page of the origin that is named may call the server, and no other."""
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST"}
    with keyed_server.client() as client:
        allowed = client.options("/v1/completions", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        stranger = preflight | {"origin": "https://elsewhere.example"}
        refused = client.options("/v1/completions", headers=stranger)
        assert "access-control-allow-origin" not in refused.headers
