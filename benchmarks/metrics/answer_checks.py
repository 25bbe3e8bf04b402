"""Checks of what the server answered: failures, lengths, counts, and whether it streams at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.metrics.requests import (
    completed,
    e2e_s,
    itl_s,
    num_coalesced_chunks,
    num_first_chunk_extra_tokens,
    tokens_by_chunk_known,
    ttft_s,
)
from benchmarks.metrics.verdicts import judged, not_measured, percent
from benchmarks.records import Check, Chunk, ErrorKind, RequestRecord

FAILED = 0.01
# A server that breaks its protocol even once cannot be believed in the rest.
NEVER: tuple[ErrorKind, ...] = ("sse_error", "early_close", "bad_answer", "no_tokens")
OUTPUT_LENGTH = 0.05  # AIPerf's limit for a mismatch
USAGE = 0.02
NO_DECODE_TIME = 0.01
# Above it even the 80th percentile of the gaps is made of reads, where they were equal.
COALESCED = 0.2
ITL_SHIFT = 0.1


def answer_checks(measured: Sequence[RequestRecord], *, ignore_eos: bool) -> list[Check]:
    """All checks of the answers."""
    ok = completed(measured)
    return [
        failed_requests(measured),
        output_length(ok, ignore_eos=ignore_eos),
        usage_tokens(ok),
        streaming(ok),
        coalesced_reads(ok),
    ]


def failed_requests(measured: Sequence[RequestRecord]) -> Check:
    """Failed requests / all, at most 1 %, and none whose answer breaks the protocol."""
    name = "failed_requests"
    if not measured:
        return Check(name=name, status="red", message="no request was measured; send some")
    kinds = Counter(record.error for record in measured if record.error is not None)
    share = kinds.total() / len(measured)
    seen = f"{kinds.total()} of {len(measured)} requests failed"
    if kinds:
        named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        seen += f" ({named}), the first: {_first_message(measured)}"
    broken = [kind for kind in NEVER if kinds[kind]]
    advice = f"{seen}; find out why in requests.jsonl and in the server's log"
    check = judged(name, share, FAILED, seen, advice, "share")
    if not broken:
        return check
    rule = f"{advice}; {broken[0]} is red however rare, as the server breaks its protocol"
    return check.model_copy(update={"status": "red", "limit": 0.0, "message": rule})


def output_length(ok: Sequence[RequestRecord], *, ignore_eos: bool) -> Check:
    """sum(|n - max_tokens|) / sum(max_tokens), at most 5 %, where the length was asked for."""
    name = "output_length"
    if not ignore_eos:
        return not_measured(name, "answers may end by themselves: ignore_eos was not asked for")
    if not ok:
        return not_measured(name, "no request completed")
    wanted = sum(record.max_tokens for record in ok)
    off = [record for record in ok if record.num_output_tokens != record.max_tokens]
    share = sum(abs(record.num_output_tokens - record.max_tokens) for record in off) / wanted
    got = sum(record.num_output_tokens for record in ok)
    seen = (
        f"{got} output tokens where {wanted} were asked for; {len(off)} of {len(ok)} answers "
        "differ in length"
    )
    advice = (
        f"{seen}: not the work that was to be measured; see whether the server knows ignore_eos "
        "and whether its usage is true"
    )
    return judged(name, share, OUTPUT_LENGTH, seen, advice, "share")


def usage_tokens(ok: Sequence[RequestRecord]) -> Check:
    """
    sum(|usage - counted|) / sum(counted), at most 2 %, counted by the ids in the stream.

    Without ids, events with text are counted: a usage below them is a lie, one above them may be
    several tokens an event, which nobody can check without a tokenizer.
    """
    name = "usage_tokens"
    told = [record for record in ok if record.usage_output_tokens is not None]
    if not told:
        by_server = bool(ok) and ok[0].token_source == "event_counts"
        what = "the server's count of each response" if by_server else "our own count"
        return not_measured(name, f"the server sends no usage; the tokens are {what}")
    if told[0].token_source == "continuous_usage":
        return not_measured(name, "the tokens come from the usage itself; ask for token ids")
    pairs = [(record.usage_output_tokens or 0, _counted(record)) for record in told]
    counted, usage = sum(c for _, c in pairs), sum(u for u, _ in pairs)
    by_ids = told[0].token_source == "token_ids"
    what = "token ids" if by_ids else "events with text"
    seen = f"the usage says {usage} output tokens, the streams have {counted} {what}"
    share = sum(abs(u - c) for u, c in pairs) / counted if counted else 0.0
    above_asked = any((r.usage_output_tokens or 0) > r.max_tokens for r in told)
    if not by_ids and share > USAGE and usage > counted and not above_asked:
        return not_measured(
            name, f"{seen}: several tokens an event, or a false usage; ask for token ids"
        )
    advice = f"{seen}: the usage is false; count tokens by ids (--token-source token_ids)"
    return judged(name, share, USAGE, seen, advice, "share")


def streaming(ok: Sequence[RequestRecord]) -> Check:
    """Part of the answers of two tokens and more whose tokens all came at one moment (tpot = 0)."""
    name = "streaming"
    several = [record for record in ok if record.num_output_tokens > 1 and record.chunks]
    if not several:
        return not_measured(name, "no answer has two tokens: there is no time per output token")
    at_once = sum(e2e_s(record) == ttft_s(record) for record in several)
    seen = f"{len(several) - at_once} of {len(several)} answers came token by token"
    advice = (
        f"{at_once} of {len(several)} answers came all at once, so that TTFT and TPOT are no "
        "times of tokens; see whether the server, or a proxy before it, buffers the stream"
    )
    return judged(name, at_once / len(several), NO_DECODE_TIME, seen, advice, "share")


def coalesced_reads(ok: Sequence[RequestRecord]) -> Check:
    """
    Part of the gaps that are 0 because two events came out of one read.

    A server at full speed writes two events at once now and then, and that is how a user gets them.
    Red only above 20 %, and only if it is reads that ITL then describes: if its p50 or p95 moves by
    more than 10 % when the events of a read are taken as one. Means and TPOT are right either way.
    """
    name = "coalesced_reads"
    gaps = sum(max(0, len(record.chunks) - 1) for record in ok)
    if not gaps:
        return not_measured(name, "no answer has two events with tokens")
    share = sum(num_coalesced_chunks(record) for record in ok) / gaps
    shift = itl_shift(ok)
    seen = f"{percent(share)} of the token events came out of one read with the event before"
    if share <= COALESCED or shift is None or shift <= ITL_SHIFT:
        moved = "" if shift is None else f"; ITL's p50 and p95 move by {percent(shift)} with them"
        return Check(
            name=name,
            status="ok",
            value=share,
            limit=COALESCED,
            unit="share",
            message=seen + moved,
        )
    advice = (
        f"{seen}, which moves ITL's p50 or p95 by {percent(shift)}: ITL describes reads, not "
        "tokens; look at the client's CPU and loop lag, or use TPOT"
    )
    return judged(name, share, COALESCED, seen, advice, "share")


def itl_shift(ok: Sequence[RequestRecord]) -> float | None:
    """How far ITL's p50 or p95 moves, at most, when events of one read are taken as one chunk."""
    known = [record for record in ok if tokens_by_chunk_known(record)]
    as_events = [gap for record in known for gap in itl_s(record)]
    as_reads = [gap for record in known for gap in _itl_by_read(record)]
    if not as_events or not as_reads:
        return None
    by_event, by_read = (np.quantile(gaps, [0.5, 0.95]) for gaps in (as_events, as_reads))
    pairs = zip(by_event, by_read, strict=True)
    return float(max(abs(event - read) / read if read > 0 else 0.0 for event, read in pairs))


def _itl_by_read(record: RequestRecord) -> list[float]:
    reads: dict[int, Chunk] = {}
    for chunk in record.chunks:
        before = reads.get(chunk.read_id)
        tokens = chunk.num_tokens + (before.num_tokens if before else 0)
        reads[chunk.read_id] = Chunk(chunk.at_s, tokens, chunk.read_id)
    chunks = list(reads.values())
    gaps = [0.0] * num_first_chunk_extra_tokens(record)
    for earlier, later in pairwise(chunks):
        gaps += [(later.at_s - earlier.at_s) / later.num_tokens] * later.num_tokens
    return gaps


def _counted(record: RequestRecord) -> int:
    return sum(chunk.num_tokens for chunk in record.chunks)


def _first_message(measured: Sequence[RequestRecord]) -> str:
    first = next(record for record in measured if record.error is not None)
    return first.error_message or first.error or ""
