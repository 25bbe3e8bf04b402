"""Probes, info, metrics and docs of a running server; who leaves is noticed."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server

SECRET = "xylophone-zeppelin"
IDLE_S, SILENT_S = 60, 15


@pytest.fixture
def http(tiny_server: Server) -> httpx.Client:
    """A plain HTTP client."""
    return tiny_server.client()


def samples(http: httpx.Client) -> dict[tuple[str, ...], float]:
    """Each sample of /metrics, by name and sorted label values."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def chat(text: str, **more: object) -> dict[str, object]:
    """The body of a chat."""
    return {"messages": [{"role": "user", "content": text}], "ignore_eos": True, **more}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/health"])
def test_probes(http: httpx.Client, path: str) -> None:
    """Every probe of a ready server is 200."""
    answer = http.get(path)
    more = {"engine", "event_loop_lag_s"} if path == "/livez" else set()
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json().keys() == {"status"} | more


def test_an_idle_engine_answers_pings(http: httpx.Client) -> None:
    """/livez says that the engine has nothing to do, and when it last gave a sign of life."""
    deadline_s = time.monotonic() + IDLE_S
    # A request whose client has just left may still run, and pings come each third of stall_s.
    while (engine := http.get("/livez").json()["engine"])["progress"] != "idle" or (
        engine["silent_s"] >= SILENT_S
    ):
        assert time.monotonic() < deadline_s, engine
        time.sleep(0.5)
    assert samples(http)["gemma_serve_engine_stalled",] == 0.0


def test_info(http: httpx.Client) -> None:
    """/v1/info says what is running, why, and how long the start took."""
    info = http.get("/v1/info").json()
    assert info["status"] == "ready"
    assert info["profile"] == "tiny"
    assert info["engine"]["max_model_len"] == 4096
    assert info["engine"]["dtype"] == "bfloat16"
    settings = {setting["key"]: setting for setting in info["settings"]}
    assert settings["VLLM_ATTENTION_BACKEND"]["value"] == "FLASHINFER"
    assert settings["max_model_len"]["origin"].split("/")[-1].startswith("tiny.yaml:")
    assert list(info["startup_seconds"]) == [
        *("import", "config", "processes", "weights", "compile", "kv_cache", "warm_up", "ready")
    ]


def test_docs(http: httpx.Client) -> None:
    """/docs shows the routes, and the OpenAPI document the bodies of those that have one."""
    assert http.get("/docs").status_code == 200
    document = http.get("/openapi.json").json()
    assert {
        "/v1/chat/completions",
        "/v1/chat/completions/render",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/tokenize",
        "/detokenize",
        "/health",
        "/livez",
        "/readyz",
        "/startupz",
        "/v1/info",
        "/metrics",
    } == {path for path in document["paths"] if not path.startswith("/v2")}
    model = "/v2/models/{model}"
    versions = {
        f"{where}/{what}"
        for where in (model, f"{model}/versions/{{version}}")
        for what in ("config", "generate", "generate_stream", "infer", "ready", "stats")
    }
    assert {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/repository/index",
        model,
        f"{model}/versions/{{version}}",
        *versions,
    } == {path for path in document["paths"] if path.startswith("/v2")}
    assert "messages" in document["components"]["schemas"]["ChatRequest"]["properties"]
    for path in ("/v2/health/live", "/v2/health/ready", f"{model}/ready", "/metrics"):
        assert "content" not in document["paths"][path]["get"]["responses"]["200"]


def test_tokenize_and_back(http: httpx.Client) -> None:
    """Tokenising a text, and the text of its ids."""
    tokens = http.post("/tokenize", json={"prompt": "Hello sea"}).json()["tokens"]
    assert tokens[0] == 2
    text = http.post("/detokenize", json={"tokens": tokens[1:]}).json()["prompt"]
    assert text == "Hello sea"


def test_tokens_and_requests_are_counted(http: httpx.Client) -> None:
    """Tokens in and out are those of the usage, for every protocol, streamed or not."""
    before = samples(http)
    prompt = generated = 0
    for stream in (False, True):
        options = {"stream": stream, "max_tokens": 5}
        openai = http.post("/v1/chat/completions", json=chat("Hi", **options))
        assert openai.status_code == 200
        assert http.post("/v1/completions", json={"prompt": "Hi", **options}).status_code == 200
        anthropic = {"model": "tiny", **chat("Hi", **options)}
        anthropic.pop("ignore_eos")
        assert http.post("/v1/messages", json=anthropic).status_code == 200
        responses = {"input": "Hi", "max_output_tokens": 5, "stream": stream}
        assert http.post("/v1/responses", json=responses).status_code == 200
    after = samples(http)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0.0)

    prompt = grown("gemma_serve_prompt_tokens_total", "model=tiny")
    generated = grown("gemma_serve_generation_tokens_total", "model=tiny")
    # vLLM counts the same requests itself.
    assert prompt == grown("vllm:prompt_tokens_total", "engine=0", "model_name=tiny")
    assert generated == grown("vllm:generation_tokens_total", "engine=0", "model_name=tiny")
    assert grown(
        "gemma_serve_http_requests_total", "method=POST", "route=/v1/messages", "status=200"
    ) == (2.0)
    durations = "gemma_serve_http_request_duration_seconds_count"
    assert grown(durations, "route=/v1/responses") == 2.0
    assert grown("gemma_serve_chat_template_render_seconds_count") >= 6.0


def test_series_of_the_server(http: httpx.Client) -> None:
    """The info series names the server; start-up seconds stand by phase, vLLM's series beside."""
    found = samples(http)
    assert found[("gemma_serve_startup_phase_seconds", "phase=ready")] > 0
    info = next(key for key in found if key[0] == "gemma_serve_info")
    assert {"profile=tiny", "dtype=bf16", "tensor_parallel_size=1"} <= set(info)
    assert ("vllm:num_requests_running", "engine=0", "model_name=tiny") in found
    assert found[("gemma_serve_open_requests",)] == 1.0  # this one


def test_routes_are_templates(http: httpx.Client) -> None:
    """Whatever paths and methods are tried, they make no label of their own."""
    for number in range(5):
        http.get(f"/made/up/{number}")
        http.request(f"BREW{number}", "/livez")
    found = samples(http)
    assert not [key for key in found if "made" in str(key) or "BREW" in str(key)]
    assert any("route=unmatched" in key for key in found)


def test_no_prompt_text_in_metrics_or_logs(http: httpx.Client, tiny_server: Server) -> None:
    """A prompt and its answer reach neither labels nor the server's output, also when refused."""
    http.post("/v1/chat/completions", json=chat(SECRET, max_tokens=2))
    http.post("/v1/chat/completions", json=chat(SECRET, max_tokens=-1))
    http.post("/v1/chat/completions", json=chat(SECRET, logit_bias={"999999": 1}))
    http.post("/v1/completions", json={"prompt": SECRET, "max_tokens": "x"})
    http.post("/v1/chat/completions", content=json.dumps({"messages": SECRET}))
    assert SECRET not in http.get("/metrics").text
    assert SECRET not in tiny_server.output()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_its_request(http: httpx.Client, stream: bool) -> None:
    """A disconnect aborts the request in the engine, streamed or not, and is counted."""
    left = ("gemma_serve_client_disconnects_total", "route=/v1/chat/completions")
    running = ("vllm:num_requests_running", "engine=0", "model_name=tiny")
    before = samples(http).get(left, 0.0)
    body = chat("A long story", max_tokens=4000, stream=stream)
    with pytest.raises(httpx.ReadTimeout):
        _give_up_soon(http, body)
    deadline_s = time.monotonic() + 20
    while (found := samples(http))[running] or found.get(left, 0.0) == before:
        assert time.monotonic() < deadline_s, "the engine still works on it"
        time.sleep(0.1)
    assert found[left] == before + 1


def _give_up_soon(http: httpx.Client, body: dict[str, object]) -> None:
    """Read for half a second at most, then close the connection."""
    started_s = time.monotonic()
    with http.stream("POST", "/v1/chat/completions", json=body, timeout=0.5) as answer:
        for _ in answer.iter_lines():
            if time.monotonic() - started_s > 0.5:
                raise httpx.ReadTimeout("long enough")
