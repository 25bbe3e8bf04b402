"""Checks of the harness itself, and of the machine: whether it kept up with what it measures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.metrics.distributions import quantile_of
from benchmarks.metrics.requests import completed, ttft_s
from benchmarks.metrics.verdicts import judged, judged_at_least, not_measured, percent
from benchmarks.records import Check, ClientHealth, Load, RequestRecord

SEND_LAG_S = 0.005
SEND_LAG_PART_OF_TTFT = 0.05
LOOP_LAG_S = 0.010
CLIENT_CPU = 0.7  # of one core: an event loop near 1 is a queue (arXiv:2605.24217)
OFFERED_RATE = 0.98
STEAL = 0.02
FOREIGN_CPU = 0.05


def client_checks(
    measured: Sequence[RequestRecord], load: Load, client: ClientHealth | None
) -> list[Check]:
    """All checks of the client and its machine; of its schedule where it has one."""
    checks = [loop_lag(client), client_cpu(client)]
    if load.mode != "closed":
        checks += [send_lag(measured), offered_rate(measured, load)]
    shares = (client.steal, client.foreign_cpu) if client else (None, None)
    checks.append(
        _machine_share(
            "cpu_steal",
            shares[0],
            STEAL,
            "of the CPU time was taken by the hypervisor",
            "repeat the run, or use a machine of your own",
        )
    )
    checks.append(
        _machine_share(
            "foreign_cpu",
            shares[1],
            FOREIGN_CPU,
            "of the CPU time went to processes that are not under test",
            "end them and repeat the run",
        )
    )
    return checks


def send_lag(measured: Sequence[RequestRecord]) -> Check:
    """p99 of t_send - t_sched - queue, at most the greater of 5 ms and 5 % of the median TTFT."""
    name = "send_lag"
    lags_s = [r.send_s - r.sched_s - r.queue_s for r in measured if r.sched_s is not None]
    p99_s = quantile_of(lags_s, 0.99)
    if p99_s is None:
        return not_measured(name, "no request has a scheduled sending")
    ttfts_s = [value for record in completed(measured) if (value := ttft_s(record)) is not None]
    limit_s = max(SEND_LAG_S, SEND_LAG_PART_OF_TTFT * (quantile_of(ttfts_s, 0.5) or 0.0))
    seen = f"requests were sent up to {1000 * p99_s:.1f} ms late (p99)"
    advice = (
        f"{seen}: the load was not the one asked for; offer a lower rate, or give the client a "
        "core of its own"
    )
    return judged(name, p99_s, limit_s, seen, advice, "s")


def loop_lag(client: ClientHealth | None) -> Check:
    """p99 of the event loop's lateness, at most 10 ms: so much may be in every time it took."""
    name = "event_loop_lag"
    p99_s = quantile_of(client.loop_lag_s, 0.99) if client else None
    if p99_s is None:
        return not_measured(name, "the run was too short for one sample of the event loop's lag")
    seen = f"the client's event loop was up to {1000 * p99_s:.1f} ms late (p99)"
    advice = (
        f"{seen}, which is in every latency; lower the load below what `calibrate` found, or give "
        "the client a core of its own"
    )
    return judged(name, p99_s, LOOP_LAG_S, seen, advice, "s")


def client_cpu(client: ClientHealth | None) -> Check:
    """CPU time of the client's process / wall time, at most 70 % of a core."""
    name = "client_cpu"
    if client is None or client.wall_s <= 0:
        return not_measured(name, "the client's CPU time was not taken")
    share = client.cpu_s / client.wall_s
    seen = f"the client used {percent(share)} of a core"
    advice = (
        f"{seen}: it is near its own ceiling, and what was measured may be the client; lower the "
        "load below what `calibrate` found"
    )
    return judged(name, share, CLIENT_CPU, seen, advice, "cores")


def offered_rate(measured: Sequence[RequestRecord], load: Load) -> Check:
    """Rate of the sendings / rate of the schedule, both (N - 1) / (last - first); at least 0.98."""
    name = "offered_rate"
    scheduled = [(r.sched_s, r.send_s) for r in measured if r.sched_s is not None]
    due_s, sent_s = [due for due, _ in scheduled], [sent for _, sent in scheduled]
    if len(scheduled) < 2 or max(due_s) <= min(due_s) or max(sent_s) <= min(sent_s):
        return not_measured(name, "fewer than two requests had a scheduled sending")
    share = (max(due_s) - min(due_s)) / (max(sent_s) - min(sent_s))
    seen = f"{percent(share)} of the scheduled rate was sent"
    cause = (
        f"max_concurrency={load.max_concurrency} or the client held requests back; raise it, or "
        "offer a lower rate"
        if load.max_concurrency
        else "the client cannot keep up; offer a lower rate"
    )
    return judged_at_least(name, share, OFFERED_RATE, seen, f"{seen}: {cause}", "ratio")


def _machine_share(name: str, share: float | None, limit: float, what: str, advice: str) -> Check:
    if share is None:
        return not_measured(name, "not sampled on this machine")
    seen = f"{percent(share)} {what}"
    return judged(name, share, limit, seen, f"{seen}; {advice}", "share")
