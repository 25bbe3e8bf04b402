"""Each prompt to A and B in turn, on records whose times are written down here."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.compare.pingpong import PingPong, ping_pong
from benchmarks.compare.plan import draw_orders
from benchmarks.compare.run import Arm
from benchmarks.records import Item, RequestRecord
from tests.benchmarks.compare.made_up import record

ARMS = (Arm("a"), Arm("b"))


def played(
    num_items: int = 40, *, failed: tuple[int, ...] = (), same: bool = False
) -> tuple[PingPong, list[tuple[str, int]]]:
    """B's tokens come 10 % later than A's, on a machine that gets slower all the time."""
    sent: list[tuple[str, int]] = []

    async def send(arm: Arm, item: Item) -> RequestRecord:
        sent.append((arm.label, item.index))
        slow = (1.0 if arm.label == "a" else 1.1) * (1 + 0.001 * len(sent))
        fails = arm.label == "b" and item.index in failed
        return record(item.index, ttft_s=0.1, tpot_s=0.01 * slow, failed=fails)

    items = [Item(index, max_tokens=3) for index in range(num_items)]
    arms = (ARMS[0], ARMS[0]) if same else ARMS
    return asyncio.run(ping_pong(send, arms, items, seed=2)), sent


def test_order_and_verdicts() -> None:
    """Each prompt goes to both, one after the other, in the drawn order; drift cancels."""
    found, sent = played()
    expected = [
        (arm, index)
        for index, order in enumerate(draw_orders(40, 2))
        for arm in (("a", "b") if order == "AB" else ("b", "a"))
    ]
    assert sent == expected
    by_name = {metric.metric: metric for metric in found.metrics}
    assert by_name["ttft_s"].verdict == "equivalent"
    assert by_name["tpot_s"].verdict == "faster"
    # A over B is 1 / 1.1 = 0.909, and each pair's drift of 0.1 % has the other sign in the next.
    assert by_name["tpot_s"].ratio_mean == pytest.approx(1 / 1.1, abs=1e-4)
    assert len(by_name["tpot_s"].pairs) == 40
    assert found.check.status == "ok"


def test_failed_requests_are_in_no_metric() -> None:
    """A pair with a failed request is kept apart, and more than 1 % of them is red."""
    found, _ = played(failed=(3, 4))
    assert len(found.metrics[0].pairs) == 38
    assert [pair.a.index for pair in found.failed] == [3, 4]
    assert (found.check.status, found.check.value) == ("red", 0.05)
    assert found.check.message == (
        "2 of 40 pairs had a failed request (early_close); see the server's log"
    )


def test_against_itself() -> None:
    """With one arm twice it is A against A, which gives the noise floors."""
    found, _ = played(same=True)
    assert all("times A's" in metric.message for metric in found.metrics)
    assert {metric.verdict for metric in found.metrics} == {"equivalent"}
