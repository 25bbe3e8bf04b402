"""A server with keys, a metrics port and CORS, as an operator would run it."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from typing import Any

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import KEY, ORIGIN, OTHER_KEY
from tests.listening import listeners
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


def test_only_our_ports_listen(keyed_server: Server, metrics_port: int) -> None:
    """Of the server and all processes below it nothing listens but its ports, here on loopback."""
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in keyed_server.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ours = {httpx.URL(keyed_server.base_url).port, metrics_port}
    ours.add(int(keyed_server.grpc_address.rpartition(":")[2]))
    assert ours <= {port for _, port in listening}
    # gRPC's own listens on IPv4 by IPv6's name for it.
    addresses = {ipaddress.ip_address(ip.removeprefix("::ffff:")) for ip, _ in listening}
    assert all(address.is_loopback for address in addresses), listening


def test_ss_sees_only_our_ports(keyed_server: Server, metrics_port: int) -> None:
    """`ss` sees our ports, the engine's own among others, over TCP and UDP, and all on loopback."""
    found = listeners(keyed_server)
    ours = {httpx.URL(keyed_server.base_url).port, metrics_port}
    ours.add(int(keyed_server.grpc_address.rpartition(":")[2]))
    assert ours <= {listener.port for listener in found}
    # torch.distributed's store and gloo's pairs, which the engine makes for its workers.
    assert {listener.process for listener in found if listener.port not in ours}, found
    assert all(listener.is_on_loopback for listener in found), found


# --- the prefix cache


def _cache_hits(client: httpx.Client) -> float:
    text = client.get("/metrics", headers={"x-api-key": KEY}).text
    families = text_string_to_metric_families(text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "vllm:prefix_cache_hits_total"
    )


def _complete(client: httpx.Client, key: str, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": "A river of words. " * 40, "max_tokens": 2} | fields
    return client.post("/v1/completions", json=body, headers={"x-api-key": key})


def test_keys_do_not_share_the_prefix_cache(keyed_server: Server) -> None:
    """A prompt's prefix is found again by the key that sent it, and by no other."""
    with keyed_server.client() as client:
        assert _complete(client, KEY).status_code == 200
        before = _cache_hits(client)
        assert _complete(client, OTHER_KEY).status_code == 200
        assert _cache_hits(client) == before
        assert _complete(client, OTHER_KEY).status_code == 200
        assert _cache_hits(client) > before


def test_a_clients_cache_salt_is_refused(keyed_server: Server) -> None:
    """With several keys the salt is ours: a client's own could be another's."""
    with keyed_server.client() as client:
        answer = _complete(client, KEY, cache_salt="mine")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "The field 'cache_salt' is not allowed: each key's prompts have a salt of their own; "
        "leave it out."
    )


# --- the log


def test_json_log(keyed_server: Server) -> None:
    """Every line of the log is a JSON object, vLLM's own too; a request's lines have its id."""
    headers = {"x-api-key": KEY, "x-request-id": "logged-1"}
    with keyed_server.client() as client:
        client.headers.update(headers)
        body = {"model": "tiny", "prompt": "A secret quokka", "max_tokens": 3, "temperature": 0}
        assert client.post("/v1/completions", json=body).status_code == 200
        assert client.get("/no/such/route%0a{}").status_code == 404
    line = _access_line(keyed_server, "logged-1")
    assert line.pop("duration_ms") > 0
    assert (line["logger"], line["route"], line["method"]) == (
        "gemma_serve.access",
        "/v1/completions",
        "POST",
    )
    assert (line["status"], line["answer_tokens"]) == ("200", 3)
    assert line["prompt_tokens"] > 3
    output = keyed_server.output()
    assert "quokka" not in output
    loggers = {json.loads(text)["logger"].partition(".")[0] for text in _json_lines(output)}
    assert {"vllm", "gemma_serve"} <= loggers
    assert not re.search(r"^\(?\w* ?pid=\d+\) (INFO|WARNING|ERROR) ", output, re.MULTILINE)
    processes = {json.loads(text)["process"] for text in _json_lines(output)}
    assert any("EngineCore" in name for name in processes), processes


def _access_line(server: Server, request_id: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        lines = [json.loads(text) for text in _json_lines(server.output())]
        for line in lines:
            if line.get("request_id") == request_id and line["logger"] == "gemma_serve.access":
                return dict(line)
        time.sleep(0.1)
    raise AssertionError(server.output())


def _json_lines(output: str) -> list[str]:
    return [text for text in output.splitlines() if text.startswith("{")]
