"""
What is measured and what is written down: workload lines, request records, run.json.

Times are seconds from `time.perf_counter`, relative to the run's start, or to the request's sending
where the comment says so. Nothing here measures or computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "gemma-bench/1"

Phase = Literal["warm_up", "measured"]
Protocol = Literal["openai-chat", "openai-completions", "triton-generate", "triton-grpc"]
# KServe v2: server-sent events of generate_stream, and responses of ModelStreamInfer.
TRITON_PROTOCOLS: frozenset[str] = frozenset({"triton-generate", "triton-grpc"})
# Whose tensors a model behind them takes.
TritonContract = Literal["python-backend", "vllm-backend", "tensorrtllm"]
# Where the number of tokens of each event comes from, best first: ids in the event, the server's
# count of the event's own tokens, a running usage in the event, the usage at the stream's end, and
# where there is none, one an event that has text.
TokenSource = Literal["token_ids", "event_counts", "continuous_usage", "usage", "events"]
ErrorKind = Literal[
    "connect",  # no connection, or it broke before the head of an answer
    "http_status",  # any status but 200; over gRPC any but OK, or refused in the first response
    "sse_error",  # an error event in a stream that began with 200, or with a response
    "early_close",  # the stream ended without a finish reason
    "stall",  # no byte for longer than the stall limit
    "timeout",  # not finished within the request's limit
    "bad_answer",  # what came is no event stream, or no JSON
    "no_tokens",  # a finish reason, and not one token
    "not_sent",  # a turn of a conversation that ended with the failure of the turn before
]


# --- the workload: one line of workload.jsonl a request


@dataclass(slots=True)
class Item:
    """
    One request before it is sent: exactly one of messages, prompt and prompt_token_ids.

    In a conversation, `messages` holds only the new turn; the turns before it and the server's own
    answers to them go in front of it when it is sent.
    """

    index: int
    max_tokens: int
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    input_len_tokens: int | None = None  # as asked for; what the server counted is in the record
    at_s: float | None = None  # a trace's own time, after its first request
    conversation: str | None = None
    turn: int = 0
    think_s: float = 0.0  # between the answer before and this turn
    prefix_group: int | None = None


# --- one request, measured: one line of requests.jsonl


class Chunk(NamedTuple):
    """An event of the stream that carried tokens."""

    at_s: float  # after the request was sent, when its last byte was read from the socket
    num_tokens: int
    read_id: int  # events with one read_id came out of one read


@dataclass(slots=True)
class RequestRecord:
    """One request: when what happened, how many tokens, and how it ended."""

    index: int
    phase: Phase
    max_tokens: int
    send_s: float  # just before the first byte was written
    end_s: float  # last byte read, or the moment it was given up
    sched_s: float | None = None  # when it should have been sent; None in a closed loop
    choice_s: float | None = None  # after send_s: the first event with `choices`, tokens or none
    chunks: list[Chunk] = field(default_factory=list)
    num_output_tokens: int = 0
    input_len_tokens: int | None = None
    prompt_tokens: int | None = None  # by the server's usage
    cached_tokens: int | None = None
    usage_output_tokens: int | None = None  # by the server's usage, whatever the source is
    token_source: TokenSource | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: ErrorKind | None = None
    error_message: str | None = None
    conversation: str | None = None
    turn: int = 0
    queue_s: float = 0.0  # waited in the client for a place under max_concurrency
    text: str | None = None  # kept only where answers are compared
    token_ids: list[int] | None = None


@dataclass(slots=True)
class ClientHealth:
    """Whether the client kept up, from the first measured sending to the last measured end."""

    wall_s: float
    cpu_s: float  # of the client's process
    loop_lag_s: list[float]  # how much too late a timer of the event loop rang, every sample
    foreign_cpu: float | None = None  # part of all cores used by processes not under test
    steal: float | None = None  # part of all cores taken by the hypervisor
    num_cores: int = 1


# --- run.json


class Model(BaseModel):
    """A part of a file: frozen, and no key that the schema does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(Model):
    """
    How requests are offered.

    closed: `concurrency` clients, each with one request at a time. open: by the clock at
    `rate_rps`, arrivals constant, poisson or gamma (shape `burstiness`; 1 is poisson). trace: at
    the times that the workload carries. `max_concurrency` caps the two last.
    """

    mode: Literal["closed", "open", "trace"]
    concurrency: int | None = None
    rate_rps: float | None = None
    arrivals: Literal["constant", "poisson", "gamma"] | None = None
    burstiness: float | None = None
    max_concurrency: int | None = None

    def label(self) -> str:
        """A few characters for a plot's point."""
        if self.mode == "closed":
            return f"c={self.concurrency}"
        return f"{self.rate_rps:g}/s" if self.rate_rps else self.mode


class Slo(Model):
    """What one request has to keep to be good; all that are given, together. Milliseconds."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    max_stall_ms: float | None = None


class Target(Model):
    """The server that was measured."""

    url: str
    protocol: Protocol
    model: str
    label: str
    contract: TritonContract | None = None  # of a Triton protocol
    grpc: str | None = None  # HOST:PORT, where requests went there
    server: dict[str, Any] = {}  # what it says of itself: version, settings


class WorkloadInfo(Model):
    """What was sent."""

    kind: str
    sha256: str
    num_requests: int
    num_warm_up: int
    description: str
    cache: Literal["cold", "warm"]
    ignore_eos: bool


class Check(Model):
    """One question to the run's validity; `value` and `limit` in `unit`."""

    name: str
    status: Literal["ok", "red", "not_measured"]
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    message: str


class Validity(Model):
    """INVALID as soon as one check is red."""

    verdict: Literal["VALID", "INVALID"]
    checks: list[Check]


class Distribution(Model):
    """Of one metric; a percentile is null where there are too few samples to say it."""

    unit: str
    n: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    # Upper bounds that hold with 99 % confidence (MLPerf's early stopping).
    p90_certified: float | None = None
    p99_certified: float | None = None
    reason: str | None = None  # why it is empty


class Goodput(Model):
    """What met the SLO; failed and timed-out requests stay in attainment's denominator."""

    slo: Slo
    num_good: int
    num_counted: int
    goodput_rps: float
    goodput_tps: float
    attainment: float


class Window(Model):
    """The metrics of one window of the run."""

    began_s: float
    ended_s: float
    duration_s: float
    num_ok: int
    num_failed: int
    errors: dict[str, int] = {}
    output_tokens: int
    prompt_tokens: int
    cached_prompt_tokens: int | None = None
    output_tps: float | None = None
    total_tps: float | None = None
    rps: float | None = None
    mean_concurrency: float | None = None
    distributions: dict[str, Distribution] = {}
    goodput: Goodput | None = None


class Metrics(Model):
    """The whole measured part, comparable with other tools; and the window under full load."""

    full_run: Window
    steady: Window | None
    steady_reason: str | None = None  # why there is no steady window


class ServerSide(Model):
    """Differences of the server's own counters over the measured part."""

    ttft_mean_s: float | None = None
    itl_mean_s: float | None = None
    queue_mean_s: float | None = None
    prefill_mean_s: float | None = None
    decode_mean_s: float | None = None
    num_requests: float | None = None
    generation_tokens: float | None = None
    prompt_tokens: float | None = None
    prefix_cache_queries: float | None = None
    prefix_cache_hits: float | None = None
    preemptions: float | None = None
    # client's mean TTFT minus the engine's own: HTTP layer, network and client together
    overhead_ttft_s: float | None = None
    # of the processes, where the harness started the server
    api_cpu_s: float | None = None
    tree_cpu_s: float | None = None
    api_rss_mib: float | None = None


class Second(Model):
    """One second of the run."""

    t_s: int
    output_tokens: int
    active: float  # mean number of open requests
    queued: float  # mean number of those without a first token
    sent: int


class PhaseSpan(Model):
    """One phase of the run."""

    name: Literal["warm_up", "measured", "drain"]
    began_s: float
    ended_s: float
    num_requests: int


class Run(Model):
    """run.json: one cell, with its conditions, validity and metrics."""

    schema_: Annotated[Literal["gemma-bench/1"], Field(alias="schema")] = "gemma-bench/1"
    run_id: str
    tool: dict[str, Any]
    started_at: str  # UTC, ISO 8601; the one wall-clock anchor
    ended_at: str
    argv: list[str]
    seed: int
    workload: WorkloadInfo
    load: Load
    target: Target
    host: dict[str, Any]
    phases: list[PhaseSpan]
    validity: Validity
    token_source: TokenSource | None
    slo: Slo | None = None
    metrics: Metrics
    server: ServerSide | None = None
    server_reason: str | None = None  # why there are no server-side figures
    timeseries: list[Second] = []

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


# --- sweep.json, compare.json and judge.json


class SweepPoint(Model):
    """One cell of a sweep; `directory` is relative to sweep.json."""

    load: Load
    directory: str
    verdict: Literal["VALID", "INVALID"]
    output_tps: float | None
    rps: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    tpot_p95_s: float | None
    goodput_rps: float | None = None
    attainment: float | None = None


class Sweep(Model):
    """sweep.json."""

    schema_: Annotated[Literal["gemma-bench-sweep/1"], Field(alias="schema")] = (
        "gemma-bench-sweep/1"
    )
    target: Target
    points: list[SweepPoint]
    how: str  # list, knee or goodput
    knee: Load | None = None  # where more load stops giving more tokens
    best_under_slo: Load | None = None
    slo: Slo | None = None
    # Of a search, whose last cells may well be INVALID: the server had more than it can take.
    verdict: Literal["VALID", "INVALID"] | None = None  # None in files from before there was one
    message: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Pair(Model):
    """One paired block: the same work through A and B, in the order drawn."""

    order: Literal["AB", "BA"]
    a: float
    b: float
    log_ratio: float  # ln(a / b)
    a_directory: str | None = None
    b_directory: str | None = None


class MetricComparison(Model):
    """One metric of A over B, over all pairs."""

    metric: str
    unit: str
    better: Literal["higher", "lower"]
    primary: bool
    pairs: list[Pair]
    a_median: float
    b_median: float
    ratio_mean: float  # exp(mean log ratio)
    ratio_median: float
    ci_low: float  # 95 %, paired t on the log ratios
    ci_high: float
    p_sign_flip: float
    p_holm: float | None = None  # among the primary metrics
    noise_floor: float | None = (
        None  # half width of A/A's interval, as a ratio above 1: 0.02 is 2 %
    )
    verdict: Literal["faster", "slower", "equivalent", "inconclusive"]
    message: str


class Quality(Model):
    """Whether both say the same, greedily: a speed claim without it is no claim."""

    num_prompts: int
    exact_match: float  # part of the prompts with identical answers
    mean_agreement_tokens: float  # length of the common prefix
    mean_agreement: float  # common prefix over the shorter answer's length
    length_ratio: float  # mean tokens of A over mean tokens of B
    same: bool
    message: str


class Comparison(Model):
    """compare.json."""

    schema_: Annotated[Literal["gemma-bench-compare/1"], Field(alias="schema")] = (
        "gemma-bench-compare/1"
    )
    a: Target
    b: Target
    load: Load
    workload: WorkloadInfo
    started_at: str
    ended_at: str
    argv: list[str]
    seed: int
    host: dict[str, Any]
    equivalence: float  # the margin: 0.03 is 3 %
    looks: list[int]  # after how many pairs it was looked at
    metrics: list[MetricComparison]
    a_a: list[MetricComparison] = []  # the same server against itself, first
    quality: Quality | None = None
    validity: Validity
    verdict: Literal["faster", "slower", "equivalent", "inconclusive", "invalid"]
    message: str  # the verdict in one sentence, with its interval

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class JudgePair(Model):
    """The same requests through both, one after the other."""

    order: Literal["ours first", "theirs first"]
    ours: float
    theirs: float


class JudgeRow(Model):
    """
    One metric by one tool's definition; `ours` and `theirs` are geometric means over the pairs.

    agrees: the ratio is within the tolerance, and is known to within it: the interval reaches no
    further above. off: no ratio in the interval is within. unclear: all else, so pairs that differ
    more than the tolerance prove nothing. The interval is the paired t's, 95 %, on log ratios. One
    pair has none: it is off by itself, or unclear.
    """

    tool: str
    metric: str
    unit: str
    definition: str
    pairs: list[JudgePair]
    ours: float
    theirs: float
    ratio: float
    ci_low: float | None  # None with one pair
    ci_high: float | None
    status: Literal["agrees", "unclear", "off", "not judged"]


class Judgement(Model):
    """judge.json; what our own runs were, and their validity, stands for the tools' too."""

    schema_: Annotated[Literal["gemma-bench-judge/2"], Field(alias="schema")] = (
        "gemma-bench-judge/2"
    )
    target: Target
    workload: WorkloadInfo
    load: Load
    started_at: str
    ended_at: str
    argv: list[str]
    seed: int
    host: dict[str, Any]
    tools: dict[str, str]  # name -> version
    tolerance: float
    rows: list[JudgeRow]
    validity: Validity  # of our runs
    verdict: Literal["agrees", "unclear", "off", "invalid"]
    message: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
