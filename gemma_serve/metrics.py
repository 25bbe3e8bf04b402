"""
Every Prometheus series that gemma-serve adds, declared once; vLLM's own `vllm:*` stand beside.

Labels are route templates, statuses, served names and phases: never a raw path, a key or text.
"""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)
from prometheus_client.registry import Collector

# From a probe's milliseconds to the minutes of a long generation.
REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
RENDER_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

HTTP_REQUESTS = Counter(
    "gemma_serve_http_requests_total",
    "HTTP requests answered, by route template, method and status.",
    ["route", "method", "status"],
)
HTTP_REQUEST_DURATION = Histogram(
    "gemma_serve_http_request_duration_seconds",
    "Seconds from the request's first byte to the answer's last, by route template.",
    ["route"],
    buckets=REQUEST_BUCKETS_S,
)
OPEN_REQUESTS = Gauge(
    "gemma_serve_open_requests", "HTTP requests that are being answered right now."
)
ENGINE_SILENT = Gauge(
    "gemma_serve_engine_silent_seconds",
    "Seconds since the engine's last sign of life: a finished step, or an answered ping.",
)
ENGINE_STALLED = Gauge(
    "gemma_serve_engine_stalled", "1 while /readyz says that the engine has stalled."
)
EVENT_LOOP_LAG = Histogram(
    "gemma_serve_event_loop_lag_seconds",
    "Seconds by which the server's event loop was late, five times a second.",
    buckets=LAG_BUCKETS_S,
)
CLIENT_DISCONNECTS = Counter(
    "gemma_serve_client_disconnects_total",
    "Requests whose client left before the answer was complete, by route template.",
    ["route"],
)
CONNECTIONS = Gauge(
    "gemma_serve_connections", "Open connections, by port (http, metrics, probe).", ["port"]
)
CONNECTIONS_REFUSED = Counter(
    "gemma_serve_connections_refused_total",
    "Connections that were closed for what came, or did not come, through them, by reason.",
    ["reason"],
)
LOG_LINES_DROPPED = Counter(
    "gemma_serve_log_lines_dropped_total",
    "Lines of the log or the flight recorder that could not be written: no reader, or a full disk.",
)
GRPC_REQUESTS = Counter(
    "gemma_serve_grpc_requests_total",
    "KServe v2 inferences over gRPC, by method and status.",
    ["method", "status"],
)
ADMISSION_WAITING = Gauge(
    "gemma_serve_admission_waiting_requests",
    "Sequences that wait for a place with the engine, not tokenised yet.",
)
ADMISSION_MAX_REQUESTS = Gauge(
    "gemma_serve_admission_max_requests",
    "Sequences that may run or wait; more are refused with 503.",
)
ADMISSION_MAX_TOKENS = Gauge(
    "gemma_serve_admission_max_tokens",
    "Prompt tokens before their first token, from which on new requests are refused with 503.",
)
ADMISSION_MAX_KEY_REQUESTS = Gauge(
    "gemma_serve_admission_max_key_requests",
    "Sequences that one key may run while other keys send.",
)
ADMISSION_REJECTIONS = Counter(
    "gemma_serve_admission_rejections_total",
    "Requests refused before they were tokenised, by reason.",
    ["reason"],
)
# An alert on a counter that is not there before the first refusal would miss that one.
for _reason in ("bodies", "requests", "tokens", "wait", "deadline", "key_tokens", "key_share"):
    ADMISSION_REJECTIONS.labels(_reason)
DEADLINES_EXCEEDED = Counter(
    "gemma_serve_deadlines_exceeded_total",
    "Requests that the engine had, and that were stopped because their time was over.",
)
KEY_PROMPT_TOKENS = Counter(
    "gemma_serve_key_prompt_tokens_total",
    "Prompt tokens given to the engine, by the key's name.",
    ["key"],
)
KEY_GENERATION_TOKENS = Counter(
    "gemma_serve_key_generation_tokens_total",
    "Generated tokens, also of answers that were stopped or left, by the key's name.",
    ["key"],
)
KEY_REQUESTS = Counter(
    "gemma_serve_key_requests_total",
    "Requests that asked for an answer, by the key's name and whether they were taken.",
    ["key", "outcome"],
)
KEYS_RELOADS = Counter(
    "gemma_serve_keys_reloads_total",
    "Times that the keys file had changed, by outcome: loaded, kept (it could not be used).",
    ["outcome"],
)
TEMPLATE_RENDER = Histogram(
    "gemma_serve_chat_template_render_seconds",
    "Seconds to turn one chat into the prompt, before tokenising.",
    buckets=RENDER_BUCKETS_S,
)
PROMPT_RULES = Counter(
    "gemma_serve_prompt_rules_total",
    "Conversations that a rule of the prompt layer changed, by rule.",
    ["rule"],
)
PROMPT_TOKENS = Counter(
    "gemma_serve_prompt_tokens_total",
    "Prompt tokens of completed requests, by served model.",
    ["model"],
)
GENERATION_TOKENS = Counter(
    "gemma_serve_generation_tokens_total",
    "Generated tokens of completed requests, by served model.",
    ["model"],
)
STARTUP_PHASE = Gauge(
    "gemma_serve_startup_phase_seconds",
    "Seconds that each phase of the last start took; phase 'ready' is the total.",
    ["phase"],
)
SLO = Gauge(
    "gemma_serve_slo_seconds",
    "Latency that the profile promises, by objective (ttft, itl); none where it promises none.",
    ["objective"],
)
QUALITY_KL = Gauge(
    "gemma_serve_quality_kl_nats",
    "Mean KL divergence per token from the profile's reference, a lower bound, found at the start.",
    ["model"],
)
INFO = Info(
    "gemma_serve",
    "What is served: profile, model, dtype, tensor_parallel_size and versions.",
)
KV_CACHE_BLOCKS = Gauge(
    "gemma_serve_kv_cache_blocks",
    "Blocks of one replica's KV cache; source is plan or engine, before the start and after.",
    ["source"],
)
KV_CACHE_TOKENS = Gauge(
    "gemma_serve_kv_cache_tokens",
    "Tokens of one replica's KV cache, as vLLM counts them; source is plan or engine.",
    ["source"],
)
KV_CACHE_MAX_CONCURRENCY = Gauge(
    "gemma_serve_kv_cache_max_concurrency",
    "Requests of the whole context that the KV cache holds; source is plan or engine.",
    ["source"],
)
PLAN_ERROR = Gauge(
    "gemma_serve_plan_error_ratio",
    "planned / actual - 1, by figure (blocks, tokens, max_concurrency) of the KV cache.",
    ["figure"],
)


def exposition(registry: CollectorRegistry = REGISTRY) -> tuple[bytes, str]:
    """
    All series, vLLM's too, in Prometheus' text format; with its content type.

    Never as OpenMetrics, which Prometheus prefers: prometheus_client writes the samples of
    `vllm:name` as `vllm_name` there (https://github.com/prometheus/client_python/issues/1177).
    """
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def register(collector: Collector) -> None:
    """Add series that are collected when they are asked for."""
    REGISTRY.register(collector)


def count_tokens(model: str, prompt_tokens: int, generation_tokens: int) -> None:
    """Count the tokens of one completed request."""
    PROMPT_TOKENS.labels(model).inc(prompt_tokens)
    GENERATION_TOKENS.labels(model).inc(generation_tokens)
