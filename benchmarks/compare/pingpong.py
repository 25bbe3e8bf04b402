"""
Latency at concurrency 1, request by request: each prompt goes to A and B in a drawn order.

Slow changes of the machine touch both of a pair alike, so minutes give as many pairs as blocks do
in hours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.compare.metrics import REQUEST_METRICS
from benchmarks.compare.plan import draw_orders
from benchmarks.compare.run import Arm
from benchmarks.compare.statistics import ALPHA, MARGIN
from benchmarks.compare.verdict import MeasuredPair, Rule, compare_metrics
from benchmarks.records import Check, Item, MetricComparison, RequestRecord

MAX_FAILED = 0.01

Send = Callable[[Arm, Item], Awaitable[RequestRecord]]
RequestPair = MeasuredPair[RequestRecord]


@dataclass(frozen=True)
class PingPong:
    """What came of it; a pair with a failed request is in `failed`, and in no metric."""

    metrics: list[MetricComparison]
    check: Check
    pairs: list[RequestPair] = field(default_factory=list)
    failed: list[RequestPair] = field(default_factory=list)


async def ping_pong(
    send: Send,
    arms: tuple[Arm, Arm],
    items: Sequence[Item],
    *,
    seed: int = 0,
    noise_floors: Mapping[str, float] | None = None,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    on_progress: Callable[[int, int], None] | None = None,
) -> PingPong:
    """
    Paired log ratios of ttft, tpot and e2e over all items; one look, so the whole alpha.

    `send` sends one request and waits for its end, with a cache salt that no request before had.
    Neither arm is paused: to wake one for each request would be in what is measured. With the
    same arm twice it is the A/A that gives `noise_floors`.
    """
    pairs: list[RequestPair] = []
    orders = draw_orders(len(items), seed)
    for done, (item, order) in enumerate(zip(items, orders, strict=True)):
        if on_progress is not None:
            on_progress(done, len(items))
        first, second = arms if order == "AB" else arms[::-1]
        one, two = await send(first, item), await send(second, item)
        pairs.append(
            MeasuredPair(order, one, two) if order == "AB" else MeasuredPair(order, two, one)
        )
    failed = [pair for pair in pairs if pair.a.error or pair.b.error]
    whole = [pair for pair in pairs if not (pair.a.error or pair.b.error)]
    rule = Rule(alpha, margin, seed, "A" if arms[0] is arms[1] else "B")
    metrics = compare_metrics(REQUEST_METRICS, whole, rule, noise_floors)
    return PingPong(metrics, failed_check(failed, len(pairs)), whole, failed)


def failed_check(failed: Sequence[RequestPair], num_pairs: int) -> Check:
    """Red above MAX_FAILED: those that fail are seldom the quick ones."""
    part = len(failed) / num_pairs if num_pairs else 0.0
    kinds = sorted({str(r.error) for pair in failed for r in (pair.a, pair.b) if r.error})
    return Check(
        name="failed_pairs",
        status="red" if part > MAX_FAILED else "ok",
        value=part,
        limit=MAX_FAILED,
        unit="part of pairs",
        message=(
            f"{len(failed)} of {num_pairs} pairs had a failed request ({', '.join(kinds)}); "
            "see the server's log"
            if failed
            else f"none of {num_pairs} pairs had a failed request"
        ),
    )
