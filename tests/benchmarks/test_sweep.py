"""Which loads a sweep measures, against servers whose curve is known (arithmetic, no server)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from benchmarks.records import Check, Goodput, Load, Metrics, Run, Slo, Validity, Window
from benchmarks.sweep import Swept, sweep_for_goodput, sweep_list, sweep_to_knee


def closed(level: float) -> Load:
    """A closed loop of this many clients."""
    return Load(mode="closed", concurrency=int(level))


def run_of(output_tps: float, attainment: float | None = None, *red: str) -> Run:
    """A run of which only what a sweep reads is there."""
    goodput = None
    if attainment is not None:
        goodput = Goodput(
            slo=Slo(ttft_ms=1),
            num_good=round(100 * attainment),
            num_counted=100,
            goodput_rps=output_tps * attainment,
            goodput_tps=0,
            attainment=attainment,
        )
    window = Window(
        began_s=0,
        ended_s=1,
        duration_s=1,
        num_ok=1,
        num_failed=0,
        output_tokens=1,
        prompt_tokens=1,
        output_tps=output_tps,
        goodput=goodput,
    )
    checks = [Check(name=name, status="red", message=f"{name} is red") for name in red]
    validity = Validity(verdict="INVALID" if red else "VALID", checks=checks)
    return Run.model_construct(metrics=Metrics(full_run=window, steady=None), validity=validity)


class Curve:
    """Measures a known curve, and remembers where."""

    def __init__(self, run_at: Callable[[int], Run]) -> None:
        self.run_at = run_at
        self.levels: list[int] = []

    async def __call__(self, load: Load) -> Run:
        assert load.concurrency is not None
        self.levels.append(load.concurrency)
        return self.run_at(load.concurrency)


def test_list_measures_what_it_is_told() -> None:
    """A list is measured in its order, each load once."""
    curve = Curve(lambda level: run_of(100 * level))

    swept = asyncio.run(sweep_list(curve, [closed(4), closed(1)]))

    assert curve.levels == [4, 1]
    assert swept.message == "most tokens/s at c=4: 400.0"


def test_knee_is_the_last_load_that_gave_more() -> None:
    """Linear up to 8 clients, flat after: 1, 2, 4, 8 gain, 16 and 32 do not, the knee is 8."""
    curve = Curve(lambda level: run_of(100.0 * min(level, 8)))

    swept = asyncio.run(sweep_to_knee(curve, closed, 1))

    assert curve.levels == [1, 2, 4, 8, 16, 32]
    assert swept.knee == closed(8)


def test_one_flat_point_is_no_knee() -> None:
    """A single point without gain may be noise; the sweep goes on and finds the gain after it."""
    rates = {1: 100, 2: 200, 4: 201, 8: 400, 16: 401, 32: 402}
    curve = Curve(lambda level: run_of(rates[level]))

    assert asyncio.run(sweep_to_knee(curve, closed, 1)).knee == closed(8)


def search(keeps_up_to: int, start: int = 1) -> tuple[Curve, Swept]:
    """The search on a server that keeps the SLO up to so many clients."""
    curve = Curve(lambda level: run_of(10.0 * level, 1.0 if level <= keeps_up_to else 0.5))
    found = sweep_for_goodput(curve, closed, start, attainment=0.9, whole=True)
    return curve, asyncio.run(found)


@pytest.mark.parametrize("keeps_up_to", [1, 2, 3, 7, 11, 12, 33])
def test_search_finds_the_highest_load_under_the_slo(keeps_up_to: int) -> None:
    """Doubling, then bisection: within 10 % (or one client) below the true limit, never above."""
    curve, swept = search(keeps_up_to)

    assert swept.best_under_slo is not None
    found = swept.best_under_slo.concurrency or 0
    assert found <= keeps_up_to <= found + max(1, 0.1 * found)
    assert len(curve.levels) == len(set(curve.levels))


def test_search_says_when_nothing_keeps_the_slo() -> None:
    """Where not even the first load keeps it, there is no best one, and the message says so."""
    curve, swept = search(keeps_up_to=0)

    assert curve.levels == [1]
    assert swept.best_under_slo is None
    assert "not kept even at c=1: attainment 50%" in swept.message


def saturating(capacity: int, *red: str) -> Curve:
    """A server that keeps the SLO as long as it can, and beyond it turns these checks red."""

    def run_at(level: int) -> Run:
        return run_of(10.0 * level, 1.0, *(red if level > capacity else ()))

    return Curve(run_at)


def test_search_may_pass_the_capacity() -> None:
    """What is INVALID for too much load alone ends the search, and does not spoil what it found."""
    found = sweep_for_goodput(
        saturating(11, "saturation", "failed_requests"), closed, 1, attainment=0.9, whole=True
    )
    swept = asyncio.run(found)

    assert (swept.best_under_slo, swept.verdict) == (closed(11), "VALID")
    assert swept.message.endswith("; c=12 is INVALID (failed_requests, saturation)")


def test_invalid_cell_is_never_the_best() -> None:
    """However good its figures are: nothing is announced that a red check speaks against."""
    listed = asyncio.run(sweep_list(saturating(4, "saturation"), [closed(4), closed(8)]))
    curve = Curve(lambda n: run_of(100.0 * n, None, *(["client_cpu"] if n > 4 else [])))
    knee = asyncio.run(sweep_to_knee(curve, closed, 1))

    assert (listed.best_under_slo, listed.verdict) == (closed(4), "INVALID")
    assert listed.message == "most tokens/s at c=4: 40.0"
    assert (knee.knee, curve.levels) == (closed(4), [1, 2, 4, 8, 16])
    # The client gave up there, not the server: that is no knee of the server's.
    assert knee.verdict == "INVALID"


def test_disturbed_search_is_invalid() -> None:
    """A cell that something else disturbed says nothing of the load beyond the best."""
    search = sweep_for_goodput(
        saturating(2, "saturation", "foreign_cpu"), closed, 1, attainment=0.9, whole=True
    )

    assert asyncio.run(search).verdict == "INVALID"


@pytest.mark.parametrize("how", ["list", "knee", "goodput"])
def test_nothing_is_said_without_a_valid_cell(how: str) -> None:
    """Where every cell is INVALID, so is the sweep, and it announces none of them."""
    curve = saturating(0, "saturation")
    sweeps = {
        "list": sweep_list(curve, [closed(1)]),
        "knee": sweep_to_knee(curve, closed, 1),
        "goodput": sweep_for_goodput(curve, closed, 1, attainment=0.9, whole=True),
    }
    swept = asyncio.run(sweeps.pop(how))
    for other in sweeps.values():
        other.close()

    assert (swept.knee, swept.best_under_slo, swept.verdict) == (None, None, "INVALID")
    assert "no cell is VALID, so nothing is said" in swept.message


def test_slo_that_is_never_kept_is_a_finding() -> None:
    """A VALID cell that misses it says so, and the sweep is VALID."""
    _, swept = search(keeps_up_to=0)

    assert swept.verdict == "VALID"


def test_runs_are_in_order_of_load() -> None:
    """Bisection measures out of order; the record does not show it that way."""
    _, swept = search(keeps_up_to=11)
    levels = [load.concurrency for load, _ in swept.runs]

    assert levels == sorted(levels)
