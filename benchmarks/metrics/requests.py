"""
The metrics of one request, each with its formula and source; None or empty where undefined.

t_send is the moment before the first byte was written, t_i the arrival of the i-th chunk that
carried tokens, k_i its tokens, n the request's output tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from benchmarks.records import RequestRecord


def ttft_s(record: RequestRecord) -> float | None:
    """
    Time to first token: t_1 - t_send, seconds.

    The first chunk with a token of any channel; an event with only a role is none.
    Source: AIPerf and inference-perf (first non-empty content).
    """
    return record.chunks[0].at_s if record.chunks else None


def ttft_sched_s(record: RequestRecord) -> float | None:
    """
    Time to first token from the scheduled sending: t_send + ttft - t_sched, seconds.

    What a user of an open loop waits, with everything that held the sending back.
    Source: MLPerf LoadGen loadgen.cc (latencies begin at scheduled_time).
    """
    return _since_schedule_s(record, ttft_s(record))


def ttfc_s(record: RequestRecord) -> float | None:
    """
    Time to first event with `choices`, tokens or none, from t_send, seconds.

    Only to reproduce `vllm bench serve`, which calls it TTFT.
    Source: vLLM 0.32 benchmarks/lib/endpoint_request_func.py.
    """
    return record.choice_s


def e2e_s(record: RequestRecord) -> float | None:
    """
    End-to-end latency: t_last - t_send, seconds; what comes after the last token is not in it.

    Source: vLLM 0.32 benchmarks/lib/endpoint_request_func.py (`latency`).
    """
    return record.chunks[-1].at_s if record.chunks else None


def e2e_sched_s(record: RequestRecord) -> float | None:
    """
    End-to-end latency from the scheduled sending: t_send + e2e - t_sched, seconds.

    Source: MLPerf LoadGen loadgen.cc (latencies begin at scheduled_time).
    """
    return _since_schedule_s(record, e2e_s(record))


def tpot_s(record: RequestRecord) -> float | None:
    """
    Time per output token: (e2e - ttft) / (n - 1), seconds; undefined below two tokens.

    Source: vLLM 0.32 benchmarks/serve.py; MLPerf LoadGen logging.cc; inference-perf.
    """
    if not record.chunks or record.num_output_tokens < 2:
        return None
    decode_s = record.chunks[-1].at_s - record.chunks[0].at_s
    return decode_s / (record.num_output_tokens - 1)


def icl_s(record: RequestRecord) -> list[float]:
    """
    Inter-chunk latencies: t_i - t_(i-1), seconds, as they came.

    Source: AIPerf (inter-chunk latency); `vllm bench serve` calls this ITL.
    """
    return [after.at_s - before.at_s for before, after in pairwise(record.chunks)]


def itl_s(record: RequestRecord) -> list[float]:
    """
    Inter-token latencies: each chunk's gap / k_i, k_i times, seconds; n - 1 of them.

    The tokens of a first chunk beyond its first enter as gaps of 0. Empty where the tokens of each
    chunk are not known: the usage names another number than there were events with text.
    Source: SGLang bench_serving (tokens of a chunk share its gap); vllm-project/vllm#46652.
    """
    if not record.chunks or not tokens_by_chunk_known(record):
        return []
    gaps_s = [0.0] * num_first_chunk_extra_tokens(record)
    for gap_s, chunk in zip(icl_s(record), record.chunks[1:], strict=True):
        gaps_s += [gap_s / chunk.num_tokens] * chunk.num_tokens
    return gaps_s


def num_first_chunk_extra_tokens(record: RequestRecord) -> int:
    """k_1 - 1: how many gaps of 0 in `itl_s` come from a first chunk with several tokens."""
    return record.chunks[0].num_tokens - 1 if record.chunks else 0


def tokens_by_chunk_known(record: RequestRecord) -> bool:
    """Whether each chunk's number of tokens is known, and not the total alone."""
    counted = sum(chunk.num_tokens for chunk in record.chunks)
    return record.token_source != "usage" or counted == record.num_output_tokens


def max_stall_s(record: RequestRecord) -> float | None:
    """
    The longest pause between two chunks: max(t_i - t_(i-1)), seconds; needs two chunks.

    What a reader of the stream sees as stuttering; a mean or a percentile over tokens hides it.
    """
    return max(icl_s(record), default=None)


def ntpot_s(record: RequestRecord) -> float | None:
    """
    Normalised time per output token: e2e / n, seconds; the first token's time is in it.

    Source: inference-perf (normalized_time_per_output_token).
    """
    if not record.chunks or record.num_output_tokens < 1:
        return None
    return record.chunks[-1].at_s / record.num_output_tokens


def speed_user_tps(record: RequestRecord) -> float | None:
    """
    Tokens per second that one user sees: 1 / tpot.

    Source: InferenceX (interactivity); AIPerf (output token throughput per user).
    """
    tpot = tpot_s(record)
    return 1 / tpot if tpot else None


def prefill_tps(record: RequestRecord) -> float | None:
    """
    Prompt tokens per second until the first token: prompt / ttft.

    Only of requests that have the server to themselves (a closed loop of one client), as TTFT is
    queueing otherwise, and that found nothing in the prefix cache.
    Source: llama-bench (prompt processing, pp).
    """
    ttft, prompt = ttft_s(record), prompt_tokens(record)
    if not ttft or not prompt or record.cached_tokens:
        return None
    return prompt / ttft


def num_coalesced_chunks(record: RequestRecord) -> int:
    """Chunks that came out of one read together with the chunk before them: their gap is 0."""
    return sum(before.read_id == after.read_id for before, after in pairwise(record.chunks))


def prompt_tokens(record: RequestRecord) -> int | None:
    """The server's count of the prompt; the length asked for where it does not say."""
    return record.input_len_tokens if record.prompt_tokens is None else record.prompt_tokens


def token_arrivals(record: RequestRecord) -> Iterator[tuple[float, float]]:
    """
    (time in the run, tokens) of each chunk; the tokens add up to n.

    Where only the total is known, each chunk gets the same part of it.
    """
    counted = sum(chunk.num_tokens for chunk in record.chunks)
    part = record.num_output_tokens / counted if counted else 0.0
    for chunk in record.chunks:
        yield record.send_s + chunk.at_s, chunk.num_tokens * part


def completed(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Those that ended well; whatever has an error is in no latency."""
    return [record for record in records if record.error is None]


def _since_schedule_s(record: RequestRecord, after_send_s: float | None) -> float | None:
    if record.sched_s is None or after_send_s is None:
        return None
    return record.send_s + after_send_s - record.sched_s
