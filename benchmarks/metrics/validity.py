"""
Whether a run may be believed: each check with its value, its limit, and what to do.

A check that cannot be made says so; it makes no run invalid, and is no proof either.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.metrics.answer_checks import answer_checks
from benchmarks.metrics.client_checks import client_checks
from benchmarks.metrics.saturation import backlog, drain_over_schedule
from benchmarks.metrics.verdicts import judged, not_measured, percent
from benchmarks.records import Check, ClientHealth, Load, RequestRecord, ServerSide, Validity

# A "cold" cell with more is a benchmark of the prefix cache: +86 % tokens/s in vllm#52884.
PREFIX_CACHE_HITS = 0.01
MAX_DRAIN = 1.0  # schedules


def check_run(
    records: Sequence[RequestRecord],
    load: Load,
    client: ClientHealth | None,
    *,
    cold: bool,
    server: ServerSide | None = None,
    ignore_eos: bool = True,
    ended: str | None = None,
) -> Validity:
    """
    All checks of a run; INVALID as soon as one is red.

    A closed loop has no schedule, so nothing is checked against one; a cell that is not cold may
    hit the prefix cache. `ignore_eos`: the server was asked to give exactly max_tokens. `ended`:
    why the server ended meanwhile, where it did.
    """
    measured = [record for record in records if record.phase == "measured"]
    checks = [Check(name="server_process", status="red", message=ended)] if ended else []
    checks += answer_checks(measured, ignore_eos=ignore_eos)
    checks += client_checks(measured, load, client)
    if cold:
        checks.append(prefix_cache(measured, server))
    if load.mode != "closed":
        checks.append(saturation(records, load.ramp_s or 0.0))
    red = any(check.status == "red" for check in checks)
    return Validity(verdict="INVALID" if red else "VALID", checks=checks)


def worst_of(
    runs: Sequence[tuple[str | None, Validity]], what: str = "blocks", arm: str = ""
) -> list[Check]:
    """
    The checks of several runs as one each: the worst, with the run named where it is not kept.

    Args:
        runs: the name of each, and what was found of it.
        what: what the runs are called.
        arm: stands behind each check's name.
    """
    by_name: dict[str, list[tuple[str | None, Check]]] = {}
    for name, validity in runs:
        for check in validity.checks:
            by_name.setdefault(check.name, []).append((name, check))
    return [_worst(f"{name}{arm}", checks, what) for name, checks in by_name.items()]


def _worst(name: str, checks: Sequence[tuple[str | None, Check]], what: str) -> Check:
    rank = {"red": 0, "not_measured": 1, "ok": 2}
    first, worst = min(checks, key=lambda item: rank[item[1].status])
    num_alike = sum(check.status == worst.status for _, check in checks)
    message = f"{num_alike} of {len(checks)} {what}, first {first}: {worst.message}"
    if worst.status == "ok":
        message = f"kept in all {len(checks)} {what}"
    return worst.model_copy(update={"name": name, "message": message})


def prefix_cache(measured: Sequence[RequestRecord], server: ServerSide | None) -> Check:
    """
    Part of the prompt tokens that came from the prefix cache, in a cell that calls itself cold.

    By the server's counters and by `cached_tokens` of the answers; the greater counts.
    """
    name = "prefix_cache_hits"
    shares = []
    if server is not None and server.prefix_cache_queries and server.prefix_cache_hits is not None:
        shares.append(server.prefix_cache_hits / server.prefix_cache_queries)
    told = [record for record in measured if record.cached_tokens is not None]
    if prompts := sum(record.prompt_tokens or 0 for record in told):
        shares.append(sum(record.cached_tokens or 0 for record in told) / prompts)
    if not shares:
        return not_measured(
            name,
            "the server has neither prefix-cache counters at /metrics nor cached_tokens in its "
            "usage (vLLM: --enable-prompt-tokens-details)",
        )
    seen = f"{percent(max(shares))} of the prompt tokens came from the prefix cache"
    return judged(
        name,
        max(shares),
        PREFIX_CACHE_HITS,
        seen,
        f"{seen}, in a cell that is called cold; send prompts that differ from their first token "
        "on or a cache_salt, or call the cell warm",
        "share",
    )


def saturation(records: Sequence[RequestRecord], ramp_s: float = 0.0) -> Check:
    """
    Open requests gained over the schedule: a backlog that keeps growing has no steady latency.

    Its latencies then say how long the run was. See `saturation.py` for the two tests.
    """
    name, found = "saturation", backlog(records, ramp_s)
    if (drain := drain_over_schedule(records)) is not None and drain > MAX_DRAIN:
        return Check(
            name=name,
            status="red",
            value=drain,
            limit=MAX_DRAIN,
            unit="schedules",
            message=f"the server needed {drain:.1f} times the schedule's length to finish after "
            "it: saturated, or far too short a run; offer a lower rate, or send more requests",
        )
    if found is None:
        return not_measured(
            name, "the schedule is too short to tell a growing backlog from its ramp"
        )
    message = f"the backlog is stable, {found.mean:.1f} requests at the mean"
    if found.saturated:
        message = (
            f"saturated: the backlog grew by {found.growth:.0f} requests over the run, so every "
            "latency depends on how long it ran; offer a lower rate"
        )
    return Check(
        name=name,
        status="red" if found.saturated else "ok",
        value=found.growth,
        unit="requests",
        message=message,
    )
