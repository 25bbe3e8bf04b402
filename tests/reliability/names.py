"""Classes H and I: keys that open nothing, and names that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tests.conftest import KEY
from tests.reliability.case import (
    CHAT,
    COMPLETIONS,
    GENERATE,
    JSON,
    MESSAGES,
    OK,
    REFUSED,
    RESPONSES,
    TOKENIZE,
    UNAUTHORISED,
    Case,
    chat,
    post,
)

ROUTES = {
    "POST": (CHAT, COMPLETIONS, RESPONSES, MESSAGES, TOKENIZE, GENERATE, "/detokenize"),
    "GET": ("/v1/models", "/v1/info", "/metrics", "/v2", "/v2/models/tiny", "/docs", "/nope"),
}
PATHS = (
    *("//v1/models", "/v1//models", "/v1/../v1/models", "/./v1/models", "/v1/models/"),
    *("/v1/%6dodels", "/%76%31/models", "/v1%2fmodels", "/V1/Models", "/v1/models;a=b"),
    *("/v1/models?api_key=" + KEY, "/livez/../v1/models", "/livez%2f..%2fv1%2fmodels"),
    *("/health/v1/models", "/v1/models%00", "/v1/models%0d%0a"),
)
# Which the path must not be put together from (CVE-2026-48746): malformed, or another's.
HOSTS = (
    *("x/livez?y=", "x/health?", "localhost/livez#", "localhost:80/livez", "/livez", "livez"),
    *("user@localhost", "[::1", "a b", ".", "%2flivez", "localhost:80:80", "x\\livez", "127.0.0.1"),
)
# Of vLLM's own server, of Triton's and of others: code, weights and caches are not a client's.
NOT_MOUNTED = (
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc", "/server_info"),
    *("/sleep", "/wake_up", "/is_sleeping", "/pause", "/resume", "/abort_requests", "/load"),
    *("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/release_kv_cache_memory"),
    *("/start_profile", "/stop_profile", "/update_weights", "/init_weight_transfer_engine"),
    *("/scale_elastic_ep", "/invocations", "/inference/v1/generate", "/fault_tolerance/apply"),
    *("/pooling", "/classify", "/score", "/rerank", "/v1/embeddings", "/v1/audio/transcriptions"),
    *("/v2/logging", "/v2/trace/setting", "/v1/chat/completions/batch", "/tokenizer_info"),
    *("/.env", "/static/../../etc/passwd", "/playground/../../etc/passwd", "/admin", "/debug"),
)
# What a name that the server does not know may look like.
NAMES = {
    "unknown": "gpt-4o",
    "upper case": "TINY",
    "with a space": "tiny ",
    "with a path": "tiny/../../etc/passwd",
    "parent": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "..\\..\\windows\\system.ini",
    "file": "file:///etc/passwd",
    "url": "http://127.0.0.1:1/model",
    "percent": "%2e%2e%2ftiny",
    "nul": "tiny\0",
    "line break": "tiny\r\nx-injected: 1",
    "look-alike": "t\u0456ny",
    "combining": "ti\u0301ny",
    "right to left": "\u202eynit",
    "surrogate": "\ud800",
    "long": "x" * 100_000,
    "template": "{{ 7*7 }}",
    "shell": "$(reboot)",
    "sql": "' OR 1=1 --",
}


def bad_keys() -> Iterator[Case]:
    """Class H: for a server with keys; only the probes answer."""
    for method, paths in ROUTES.items():
        for path in paths:
            yield Case(f"H no key: {method} {path}", path, b"{}", UNAUTHORISED, method)
    for what, headers in _headers():
        yield Case(f"H {what}", "/v1/models", b"", UNAUTHORISED, "GET", headers)
        yield Case(f"H {what}, chat", CHAT, b"{}", UNAUTHORISED, "POST", JSON | headers)
    for path in PATHS:
        yield Case(f"H path {path.replace(KEY, 'KEY')}", path, b"", UNAUTHORISED | REFUSED, "GET")
    for host in HOSTS:
        for method, path in (("GET", "/v1/models"), ("POST", COMPLETIONS)):
            body, headers = b"{}" if method == "POST" else b"", JSON | {"host": host}
            allowed = UNAUTHORISED | {400}
            yield Case(f"H host {host}, {method} {path}", path, body, allowed, method, headers)
    for path in ("/livez", "/readyz", "/startupz", "/health"):
        yield Case(f"H probe {path}", path, b"", OK, "GET", {})


def _headers() -> Iterator[tuple[str, dict[str, str]]]:
    for scheme in ("Basic", "Digest", "Token", "Bearer:", "Bear er", "BearerBearer"):
        yield f"scheme {scheme}", {"authorization": f"{scheme} {KEY}"}
    for what, key in {
        "wrong": "wrong",
        "cut": KEY[:-1],
        "prolonged": f"{KEY}x",
        "doubled": f"{KEY} {KEY}",
        "upper case": KEY.upper(),
        "quoted": f'"{KEY}"',
        "of 10 KB": "k" * 10_000,
        "a list": f"{KEY},{KEY}",
        "null": "null",
        "a wildcard": "*",
    }.items():
        yield f"key {what}", {"authorization": f"Bearer {key}"}
        yield f"x-api-key {what}", {"x-api-key": key}


def bad_names() -> Iterator[Case]:
    """Class I: models, versions, adapters, request ids, and routes that are not there."""
    for path in NOT_MOUNTED:
        for method, body in (("GET", b""), ("POST", b"{}")):
            yield Case(f"I {method} {path}", path, body, frozenset({404}), method)
    turn = {"role": "user", "content": "a"}
    for what, name in NAMES.items():
        yield chat(f"I model {what}", model=name)
        yield post(f"I model {what}, messages", MESSAGES, _message(name, turn))
        path = f"/v2/models/{quote(name[:500], safe='', errors='replace')}"
        yield post(f"I v2 model {what}", f"{path}/generate", {"text_input": "a"})
        version = path.replace("/v2/models/", "/v2/models/tiny/versions/")
        yield post(f"I v2 version {what}", f"{version}/generate", {"text_input": "a"})
    for what, value in {"line break": "a\tb", "long": "i" * 5_000, "quotes": "\"'<script>"}.items():
        yield post(f"I request id {what}", CHAT, {"messages": []}, **{"x-request-id": value})


def _message(name: str, turn: dict[str, str]) -> dict[str, object]:
    return {"model": name, "max_tokens": 1, "messages": [turn]}
