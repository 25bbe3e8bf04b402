"""
A request: as it is sent, one line of workload.jsonl; and as it was measured, one of requests.jsonl.

Times are seconds from `time.perf_counter`, relative to the run's start, or to the request's sending
where the comment says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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
