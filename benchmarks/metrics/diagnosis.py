"""What a run means, in sentences for a person; a sentence only where the figures carry it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.metrics.distributions import floor_reason
from benchmarks.metrics.verdicts import percent
from benchmarks.records import Check, Distribution, Run, Window

# Parts of a whole from which on they are worth a sentence.
MOST_OF_TTFT = 0.5
TAIL_RATIO = 3.0
STALL_RATIO = 5.0
STALL_FLOOR_S = 0.05  # shorter pauses nobody sees
COALESCED = 0.02
TOKENS_PER_EVENT = 1.1
RAMP_PART = 0.1
NUM_NAMES = {"p90": "90th", "p95": "95th", "p99": "99th", "p99_9": "99.9th"}


def diagnose(run: Run) -> list[str]:
    """What stands out in a run, the most important first."""
    return [sentence for part in PARTS for sentence in part(run)]


def _failures(run: Run) -> Iterator[str]:
    window = run.metrics.full_run
    if window.num_failed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in window.errors.items())
        yield (
            f"{window.num_failed} of {window.num_failed + window.num_ok} requests failed "
            f"({kinds}); their times are in no figure."
        )


def _saturation(run: Run) -> Iterator[str]:
    check = _check(run, "saturation")
    if check is not None and check.status == "red":
        yield (
            "The server is saturated, so latencies depend on how long the run was; only its "
            "throughput is a property of the server."
        )


def _ttft_parts(run: Run) -> Iterator[str]:
    """Queue and prefill by the engine's own clock, as parts of its own TTFT."""
    server = run.server
    if server is None or not server.ttft_mean_s:
        return
    if server.queue_mean_s is not None:
        queue = min(1.0, server.queue_mean_s / server.ttft_mean_s)
        if queue >= MOST_OF_TTFT:
            yield (
                f"{percent(queue)} of TTFT is queue time: more concurrency will not give more "
                "tokens, only longer waits."
            )
    if server.prefill_mean_s is not None:
        prefill = min(1.0, server.prefill_mean_s / server.ttft_mean_s)
        if prefill >= MOST_OF_TTFT:
            yield (
                f"{percent(prefill)} of TTFT is prefill: shorter prompts, a shared prefix or more "
                "compute shorten it."
            )


def _overhead(run: Run) -> Iterator[str]:
    server, ttft = run.server, _distribution(run, "ttft_s")
    if server is None or server.overhead_ttft_s is None or ttft is None or not ttft.mean:
        return
    if server.overhead_ttft_s > 0:
        yield (
            f"HTTP layer, network and client cost {_ms(server.overhead_ttft_s)} of TTFT "
            f"({percent(server.overhead_ttft_s / ttft.mean)})."
        )


def _preemptions(run: Run) -> Iterator[str]:
    if run.server is not None and run.server.preemptions:
        yield (
            f"The engine preempted {run.server.preemptions:.0f} times: its KV cache is too small "
            "for this load, and work was done twice."
        )


def _prefix_cache(run: Run) -> Iterator[str]:
    window = run.metrics.full_run
    if run.workload.cache == "warm" and window.cached_prompt_tokens and window.prompt_tokens:
        share = window.cached_prompt_tokens / window.prompt_tokens
        yield f"{percent(share)} of the prompt tokens came from the prefix cache."


def _tails(run: Run) -> Iterator[str]:
    for name, word in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "End-to-end latency")):
        found = _distribution(run, name)
        if found is None or not found.p50:
            continue
        top, value = ("99th", found.p99) if found.p99 is not None else ("95th", found.p95)
        if value is not None and value >= TAIL_RATIO * found.p50:
            yield (
                f"{word} has a long tail: its {top} percentile, {_ms(value)}, is "
                f"{value / found.p50:.1f} times its median."
            )


def _stalls(run: Run) -> Iterator[str]:
    stall, tpot = _distribution(run, "max_stall_s"), _distribution(run, "tpot_s")
    if stall is None or tpot is None or stall.p50 is None or not tpot.p50:
        return
    if stall.p50 >= max(STALL_FLOOR_S, STALL_RATIO * tpot.p50):
        yield (
            f"Half of the streams stood still for {_ms(stall.p50)} or more at least once, "
            f"{stall.p50 / tpot.p50:.0f} times their usual gap: look for prefills of other "
            "requests, or preemption."
        )


def _events(run: Run) -> Iterator[str]:
    check = _check(run, "coalesced_reads")
    if check is not None and check.value is not None and check.value >= COALESCED:
        yield (
            f"{percent(check.value)} of the token events came out of one read with the one before: "
            "high percentiles of ITL are partly a matter of reading; TPOT is not."
        )
    tokens_per_event = _tokens_per_event(run)
    if tokens_per_event is not None and tokens_per_event >= TOKENS_PER_EVENT:
        yield (
            f"The server sends {tokens_per_event:.1f} tokens an event: a reader sees bursts, and "
            "tools that take an event for a token count too few."
        )


def _ramp(run: Run) -> Iterator[str]:
    full, steady = run.metrics.full_run, run.metrics.steady
    if steady is None or not full.output_tps or not steady.output_tps:
        return
    if steady.output_tps >= (1 + RAMP_PART) * full.output_tps:
        yield (
            f"Under full load the server gave {steady.output_tps:.0f} tokens/s; with ramp and "
            f"drain the run as a whole has {full.output_tps:.0f}. Send more requests to bring them "
            "together."
        )


def _goodput(run: Run) -> Iterator[str]:
    found = run.metrics.full_run.goodput
    if found is None:
        return
    limits = ", ".join(
        f"{name} {value:g}" for name, value in found.slo.model_dump(exclude_none=True).items()
    )
    yield (
        f"{percent(found.attainment)} of the requests met the SLO ({limits}): "
        f"{found.goodput_rps:.2f} good requests/s."
    )


def _samples(run: Run) -> Iterator[str]:
    """Only the first percentile that is missing: the higher ones need more still."""
    found = _distribution(run, "e2e_s")
    for name in NUM_NAMES:
        reason = floor_reason(name, found.n) if found is not None else None
        if reason is not None and name != "p99_9":
            yield f"The {NUM_NAMES[name]} percentile over requests is not shown: {reason}."
            return


PARTS: tuple[Callable[[Run], Iterator[str]], ...] = (
    _failures,
    _saturation,
    _ttft_parts,
    _overhead,
    _preemptions,
    _prefix_cache,
    _goodput,
    _stalls,
    _tails,
    _events,
    _ramp,
    _samples,
)


def _window(run: Run) -> Window:
    return run.metrics.steady or run.metrics.full_run


def _distribution(run: Run, name: str) -> Distribution | None:
    found = _window(run).distributions.get(name)
    return found if found is not None and found.n else None


def _check(run: Run, name: str) -> Check | None:
    return next((check for check in run.validity.checks if check.name == name), None)


def _tokens_per_event(run: Run) -> float | None:
    """Each request has one token more than gaps between tokens, and one event more than those."""
    icl, itl, all_ok = (_distribution(run, name) for name in ("icl_s", "itl_s", "e2e_s"))
    if icl is None or itl is None or all_ok is None:
        return None
    return (itl.n + all_ok.n) / (icl.n + all_ok.n)


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
