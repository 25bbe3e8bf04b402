"""
From the bytes of an answer to a request record: events, token counts, and how it really ended.

Runs after the answer is complete, where possible after the whole run, so that parsing takes no CPU
from the server while it is measured.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.load.connection import Exchange
from benchmarks.load.protocols import Event, read_event
from benchmarks.records import (
    TRITON_PROTOCOLS,
    Chunk,
    ErrorKind,
    Item,
    Phase,
    Protocol,
    RequestRecord,
    TokenSource,
)

# A line of server-sent events ends in one of three ways, and an event with an empty line. JSON may
# hold U+2028 and its like as they are, at which str.splitlines would cut.
LINE_END = re.compile(r"\r\n|\n|\r")
EVENT_END = re.compile(rb"(?>\r\n|\n|\r){2}")
DONE = "[DONE]"
# An error's text is for a person; a server may send pages.
MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent, with everything about it that the answer does not say."""

    item: Item
    phase: Phase
    exchange: Exchange
    sched_s: float | None  # time.perf_counter, as the exchange's times
    queue_s: float


class Stamped(NamedTuple):
    """An event's data and the read in which its last byte came."""

    data: str | bytes  # a protobuf message is bytes
    at_s: float
    read_id: int


def split_messages(exchange: Exchange) -> Iterator[Stamped]:
    """The messages of a gRPC stream, each of which was read by itself."""
    body, start = bytes(exchange.body), 0
    for read_id, read in enumerate(exchange.reads):
        yield Stamped(body[start : read.body_end], read.at_s, read_id)
        start = read.body_end


def split_events(exchange: Exchange) -> Iterator[Stamped]:
    """The events of a stream, without comments and [DONE]; an unfinished last event is none."""
    body = bytes(exchange.body)
    ends = [read.body_end for read in exchange.reads]
    start = 0
    for end in EVENT_END.finditer(body):
        lines = LINE_END.split(body[start : end.start()].decode("utf-8", "replace"))
        start = end.end()
        data = "\n".join(line[5:].lstrip() for line in lines if line.startswith("data:"))
        if data and data != DONE:
            read_id = bisect.bisect_left(ends, end.end())
            yield Stamped(data, exchange.reads[read_id].at_s, read_id)


def to_record(
    sent: Sent,
    protocol: Protocol,
    source: TokenSource,
    origin_s: float,
    *,
    keep_text: bool = False,
) -> RequestRecord:
    """
    The record of one request, times relative to `origin_s`.

    An answer with status 200 is a success only if it has tokens and says how it finished.
    """
    item, exchange = sent.item, sent.exchange
    record = RequestRecord(
        index=item.index,
        phase=sent.phase,
        max_tokens=item.max_tokens,
        send_s=exchange.send_s - origin_s,
        end_s=exchange.end_s - origin_s,
        sched_s=None if sent.sched_s is None else sent.sched_s - origin_s,
        queue_s=sent.queue_s,
        input_len_tokens=item.input_len_tokens,
        status=exchange.status,
        conversation=item.conversation,
        turn=item.turn,
        error=exchange.error,
        error_message=exchange.error_message,
    )
    if exchange.status is not None and exchange.status != 200:
        _fail(record, "http_status", f"{exchange.status}: {exchange.body.decode(errors='replace')}")
        return record
    reader = _Reader(record, protocol, source, exchange.send_s, keep_text)
    split = split_messages if protocol == "triton-grpc" else split_events
    for event in split(exchange):
        if not reader.take(event):
            break
    reader.finish()
    if record.error is None:
        _judge_end(record, bool(exchange.body), needs_reason=reader.needs_reason)
    return record


def _fail(record: RequestRecord, error: ErrorKind, message: str) -> None:
    """The first error stands: a server's own word comes before the close that follows it."""
    record.error, record.error_message = error, message[:MESSAGE_CHARS]


def _judge_end(record: RequestRecord, has_body: bool, *, needs_reason: bool) -> None:
    # Triton's python backend has no finish reason: there the complete answer is the end.
    ended = record.choice_s is not None and not needs_reason
    finished = record.finish_reason is not None or ended
    if not finished and record.choice_s is None:
        what = "an answer without a single event of a completion" if has_body else "an empty answer"
        _fail(record, "bad_answer", what)
    elif not finished:
        _fail(record, "early_close", "the stream ended without a finish reason")
    elif record.num_output_tokens == 0:
        _fail(record, "no_tokens", f"finish reason {record.finish_reason!r} and not one token")


def _parsed(data: str | bytes) -> dict[str, Any]:
    if isinstance(data, bytes):
        from benchmarks.load.grpc_messages import read_response

        try:
            return read_response(data)
        except ValueError as error:
            raise ValueError(f"a message that is no response: {error}") from error
    try:
        said = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"an event that is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ValueError("an event that is no JSON object")  # noqa: TRY004  # of the answer
    return said


class _Reader:
    """Adds up the events of one answer."""

    def __init__(
        self,
        record: RequestRecord,
        protocol: Protocol,
        source: TokenSource,
        send_s: float,
        keep_text: bool,
    ) -> None:
        self.record, self.protocol, self.source, self.send_s = record, protocol, source, send_s
        self.needs_reason = protocol not in TRITON_PROTOCOLS
        self.texts: list[str] = []
        self.ids: list[int] = []
        self.keep_text = keep_text

    def take(self, stamped: Stamped) -> bool:
        """Book one event; False when nothing after it counts."""
        try:
            said = _parsed(stamped.data)
        except ValueError as error:
            _fail(self.record, "bad_answer", str(error))
            return False
        event = read_event(self.protocol, said)
        if event.error is not None:
            # What HTTP refuses with a status, a gRPC stream refuses in its first response.
            refused = self.protocol == "triton-grpc" and stamped.read_id == 0
            _fail(self.record, "http_status" if refused else "sse_error", event.error)
            return False
        self._book(event, stamped)
        return True

    def _book(self, event: Event, stamped: Stamped) -> None:
        record, at_s = self.record, stamped.at_s - self.send_s
        self.needs_reason |= event.says_if_finished
        if event.has_choice and record.choice_s is None:
            record.choice_s = at_s
        num_tokens = self._num_tokens(event)
        if num_tokens:
            record.chunks.append(Chunk(at_s, num_tokens, stamped.read_id))
        record.finish_reason = event.finish_reason or record.finish_reason
        for name in ("prompt_tokens", "cached_tokens"):
            if (value := getattr(event, name)) is not None:
                setattr(record, name, value)
        if event.output_tokens is not None:
            record.usage_output_tokens = event.output_tokens
        if self.keep_text:
            self.texts.append(event.text)
            self.ids += event.token_ids or []

    def _num_tokens(self, event: Event) -> int:
        if self.source in ("token_ids", "event_counts"):
            return event.num_tokens or 0
        if self.source == "continuous_usage" and event.output_tokens is not None:
            before = self.record.usage_output_tokens or 0
            return max(0, event.output_tokens - before)
        return 1 if event.text else 0

    def finish(self) -> None:
        """Totals: by ids where there are ids, by the usage where there is only that."""
        record, counted = self.record, sum(chunk.num_tokens for chunk in self.record.chunks)
        record.token_source = self.source
        record.num_output_tokens = counted
        if self.source == "usage":
            if record.usage_output_tokens is None:
                record.token_source = "events"
            else:
                record.num_output_tokens = record.usage_output_tokens
        if self.keep_text:
            record.text = "".join(self.texts)
            record.token_ids = self.ids or None
