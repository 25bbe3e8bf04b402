"""The course of a comparison, on blocks whose figures are written down here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.compare.plan import Block, draw_orders
from benchmarks.compare.run import Arm, Progress, Settings, compare
from benchmarks.compare.verdict import exit_code
from benchmarks.records import Comparison, Run
from tests.benchmarks.compare.made_up import made_up_run

Figure = Callable[[str, Block], float]


def wobbling(ratio: float, noise: float = 0.001) -> Figure:
    """Output tokens/s: A's `ratio` times B's, half of the pairs a little up and half down."""

    def tps(label: str, block: Block) -> float:
        # By slot and not by arm, so that A against itself wobbles too.
        sign = 1 if (block.number // 2) % 2 else -1
        return (ratio if label == "a" else 1.0) * (1 + sign * noise * (block.slot == "a")) * 100

    return tps


@dataclass
class Script:
    """Two arms and their blocks: what is called is noted, what is measured is given."""

    tps: Figure
    red: dict[int, Sequence[str]] = field(default_factory=dict)  # by pair number, in B's slot
    calls: list[str] = field(default_factory=list)
    blocks: list[tuple[str, Block]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    run_fields: dict[str, Any] = field(default_factory=dict)
    fail_at: tuple[int, BaseException] | None = None

    def arm(self, label: str) -> Arm:
        """An arm whose wake and pause are noted."""

        async def wake() -> None:
            self.calls.append(f"wake {label}")

        async def pause() -> None:
            self.calls.append(f"pause {label}")

        return Arm(label, wake, pause)

    async def measure(self, arm: Arm, block: Block) -> Run:
        """A block."""
        if self.fail_at is not None and len(self.blocks) == self.fail_at[0]:
            raise self.fail_at[1]
        self.calls.append(f"measure {arm.label}")
        self.blocks.append((arm.label, block))
        red = self.red.get(block.number, ()) if block.slot == "b" else ()
        sha256 = str(block.prompt_seed)
        given = {"label": arm.label, "red": red, "sha256": sha256, **self.run_fields}
        return made_up_run(self.tps(arm.label, block), **given)

    async def restart(self) -> None:
        """Both servers, ended and started anew."""
        self.calls.append("restart")

    def compare(self, **settings: object) -> Comparison:
        """Run the comparison to its end."""
        arms = (self.arm("a"), self.arm("b"))
        chosen = Settings(**settings)  # type: ignore[arg-type]
        return asyncio.run(compare(arms, self.measure, chosen, self.progress.append, self.restart))


def message(found: Comparison, name: str) -> str:
    """What a check says."""
    (said,) = [check.message for check in found.validity.checks if check.name == name]
    return said


def test_faster() -> None:
    """A 5 % gain is found at the first look, after A against itself, and exits with 0."""
    script = Script(wobbling(1.05))
    found = script.compare(argv=("compare", "a", "b"))
    assert (found.verdict, exit_code(found)) == ("faster", 0)
    assert found.message.startswith("faster: A gives 1.0")
    assert (found.a.label, found.b.label) == ("a", "b")
    assert (found.looks, found.equivalence, found.argv) == (
        [10, 12, 16],
        0.03,
        ["compare", "a", "b"],
    )
    # 6 A/A pairs and 10 pairs, two blocks each.
    assert len(script.blocks) == 2 * (6 + 10)
    assert [len(m.pairs) for m in (*found.a_a, *found.metrics)] == [6, 10]
    assert found.metrics[0].noise_floor == pytest.approx(
        (found.a_a[0].ci_high / found.a_a[0].ci_low) ** 0.5 - 1
    )


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict", "code"),
    [(0.95, 0.001, "slower", 1), (1.0, 0.001, "equivalent", 0), (1.0, 0.3, "inconclusive", 2)],
)
def test_verdicts(ratio: float, noise: float, verdict: str, code: int) -> None:
    """A loss is slower, equals are equivalent, and noise is no verdict; each has its exit code."""
    found = Script(wobbling(ratio, noise)).compare()
    assert (found.verdict, exit_code(found)) == (verdict, code)


def test_a_against_itself_first_and_the_drawn_order() -> None:
    """A is measured against itself, then each pair in its drawn order."""
    script = Script(wobbling(1.05))
    found = script.compare(seed=4)
    assert [label for label, _ in script.blocks[:12]] == ["a"] * 12
    slots = [block.slot for _, block in script.blocks]
    drawn = [*draw_orders(6, 4), *draw_orders(16, 5)[:10]]
    assert "".join(slots).upper() == "".join(drawn)
    assert [label for label, _ in script.blocks[12:]] == slots[12:]
    assert [pair.order for pair in found.metrics[0].pairs] == drawn[6:]
    assert len(set(drawn[6:])) == 2
    numbers = [block.number for _, block in script.blocks]
    assert numbers == [number for number in range(16) for _ in "ab"]
    assert found.metrics[0].pairs[0].a_directory == "a_b-06-a"


def test_pause_and_wake() -> None:
    """The idle arm is paused: an arm is awake for its block alone, and both are at the end."""
    script = Script(wobbling(1.05))
    script.compare()
    assert script.calls[:2] == ["pause a", "pause b"]
    assert script.calls[-2:] == ["wake a", "wake b"]
    middle = script.calls[2:-2]
    for wake, measure, pause in zip(middle[::3], middle[1::3], middle[2::3], strict=True):
        label = measure.split()[1]
        assert (wake, measure, pause) == (f"wake {label}", f"measure {label}", f"pause {label}")


def test_goes_on_until_the_last_look() -> None:
    """Without a verdict it is looked at again, and ends with the last look."""
    script = Script(wobbling(1.0, noise=0.3))
    found = script.compare(aa_pairs=0)
    assert len(found.metrics[0].pairs) == 16
    # The next look is what the progress counts to.
    assert [p.num_pairs for p in script.progress[::2]] == [10] * 10 + [12] * 2 + [16] * 4
    assert script.progress[-1].pair == 16
    assert [(p.block, p.num_blocks) for p in script.progress] == [(n, 32) for n in range(1, 33)]


def test_stops_at_a_later_look() -> None:
    """A difference that shows late ends it at the look that finds it."""

    def tps(label: str, block: Block) -> float:
        # The first pair says 1 % slower, the others 10 to 21 % faster: of 10 pairs 4 choices of
        # 1024 are as far, p 0.0039, above 0.003; of 12 pairs it is 4 of 4096, p 0.001.
        return 100.0 if label == "b" else 99.0 if block.number == 0 else 110.0 + block.number

    script = Script(tps)
    found = script.compare(aa_pairs=0, alpha=0.009)
    assert (found.verdict, len(found.metrics[0].pairs)) == ("faster", 12)


def test_without_a_noise_floor() -> None:
    """Without A against itself there is no floor, and the message says so."""
    found = Script(wobbling(1.05)).compare(aa_pairs=0)
    assert found.a_a == []
    assert found.metrics[0].noise_floor is None
    assert found.message.endswith("; no noise floor: A was not measured against itself")


def test_noise_floor_holds_a_claim_back() -> None:
    """A gain below what A differs from itself is no gain."""

    def tps(label: str, block: Block) -> float:
        if block.stage == "a_a":
            return 100.0 + 10 * (block.slot == "a") * (-1) ** block.number
        return 105.0 if label == "a" else 100.0 + 0.1 * (block.number % 2)

    found = Script(tps).compare()
    assert found.verdict == "inconclusive"
    assert "that is within the noise floor" in found.message


def test_a_disturbed_pair_is_repeated() -> None:
    """A pair in which something else ran is measured again in its order, with other prompts."""
    script = Script(wobbling(1.05), red={7: ["cpu_steal"], 8: ["foreign_cpu"]})
    found = script.compare()
    assert found.verdict == "faster"
    assert found.validity.verdict == "VALID"
    # Pair 7 and its repeat 8 are out: 6, 9, 10, ... count.
    kept = [pair.a_directory for pair in found.metrics[0].pairs]
    assert kept == ["a_b-06-a", *(f"a_b-{number:02d}-a" for number in range(9, 18))]
    orders = draw_orders(16, 1)
    assert [pair.order for pair in found.metrics[0].pairs] == orders[:10]
    assert [p.repeat for p in script.progress[14:20]] == [0, 0, 1, 1, 2, 2]
    assert [p.pair for p in script.progress[14:20]] == [2] * 6
    # The blocks of A against itself are before them, and a repeated one keeps its number.
    assert [p.block for p in script.progress[12:20]] == [13, 14, 15, 16, 15, 16, 15, 16]
    (repeats,) = [check for check in found.validity.checks if check.name == "repeated_pairs"]
    assert repeats.value == 2
    assert "a_b-07-a and a_b-07-b, a_b-08-a and a_b-08-b" in repeats.message


def test_repeats_are_bounded() -> None:
    """A pair that stays disturbed counts after its last repeat, and makes it all invalid."""
    script = Script(wobbling(1.05), red={number: ["cpu_steal"] for number in range(6, 99)})
    found = script.compare(max_repeats=1)
    assert (found.verdict, exit_code(found)) == ("invalid", 3)
    assert len(script.blocks) == 2 * 6 + 2 * 2 * 10
    assert found.message.startswith("invalid: cpu_steal (B): 10 of 10 blocks, first a_b-07-b: ")


def test_invalid_ends_at_the_first_look() -> None:
    """Another red check makes it invalid; what was measured stays, and no more pairs are."""
    found = Script(wobbling(1.0, noise=0.3), red={8: ["failed_share"]}).compare()
    assert (found.verdict, exit_code(found)) == ("invalid", 3)
    assert len(found.metrics[0].pairs) == 10
    assert found.message == (
        "invalid: failed_share (B): 1 of 10 blocks, first a_b-08-b: failed_share was looked at"
    )


def test_invalid_by_a_against_itself() -> None:
    """A red check in A's run against itself is A's."""
    found = Script(wobbling(1.05), red={2: ["failed_share"]}).compare()
    assert found.verdict == "invalid"
    assert "failed_share (A): 1 of 22 blocks, first a_a-02-b" in found.message


def test_starts() -> None:
    """The pairs before the first look are spread over the starts, each idle until its block."""
    script = Script(wobbling(1.05))
    found = script.compare(starts=3)
    metric = found.metrics[0]
    assert [pair.start for pair in metric.pairs] == [1] * 3 + [2] * 3 + [3] * 4
    assert found.starts == 3
    # Two pauses at the beginning, three calls a block: 6 pairs of A/A, then 3 and 3 of A/B.
    calls = [number for number, call in enumerate(script.calls) if call == "restart"]
    assert calls == [2 + 6 * 6 + 3 * 6, 2 + 6 * 6 + 6 * 6 + 3]
    assert script.calls[calls[0] + 1 : calls[0] + 3] == ["pause a", "pause b"]


def test_each_start_is_shown_by_itself() -> None:
    """A server that is lucky in one start shows there; the interval over pairs does not say it."""

    def tps(label: str, block: Block) -> float:
        # Pairs 0 to 4 are of the first start.
        return 100.0 if label == "b" or block.number < 5 else 121.0

    found = Script(tps).compare(starts=2, aa_pairs=0)
    assert message(found, "starts") == (
        "both servers were started 2 times; A / B by start: output_tps 1.000 1.210"
    )


def test_one_start_says_so() -> None:
    """What one start can't show is told with the verdict, and makes nothing invalid."""
    script = Script(wobbling(1.05))
    found = script.compare()
    assert "restart" not in script.calls
    assert (found.starts, found.validity.verdict) == (1, "VALID")
    assert message(found, "starts").startswith("each server was started once: the luck of a start")


@pytest.mark.parametrize(("requests", "is_compared"), [(13, True), (12, False)])
def test_p95_of_itl(requests: int, is_compared: bool) -> None:
    """It is one of the primary metrics where ten blocks of a side have 130 requests, else told."""
    found = Script(
        wobbling(1.05), run_fields={"itl_p95_s": 0.03, "itl_requests": requests}
    ).compare()
    primary = [metric.metric for metric in found.metrics if metric.primary]
    assert primary == ["output_tps", "itl_p95_s"][: 1 + is_compared]
    if not is_compared:
        assert message(found, "metric itl_p95_s").startswith(
            "itl_p95_s is not compared: it needs 130 requests a side, and there were 120"
        )
    assert message(found, "metric goodput_rps").startswith(
        "goodput_rps is not compared: there is no SLO; give --slo"
    )


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("gone")])
def test_both_are_woken_when_it_breaks_off(error: BaseException) -> None:
    """Whatever ends it passes through, and no arm stays paused."""
    script = Script(wobbling(1.05), fail_at=(15, error))
    with pytest.raises(type(error)):
        script.compare()
    assert len(script.blocks) == 15
    assert script.calls[-2:] == ["wake a", "wake b"]


def test_cancelled_from_outside() -> None:
    """A cancelled comparison wakes both arms and is cancelled."""
    script = Script(wobbling(1.05))

    async def block_forever(arm: Arm, block: Block) -> Run:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        task = asyncio.create_task(compare((script.arm("a"), script.arm("b")), block_forever))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())
    assert script.calls == ["pause a", "pause b", "wake a", "wake a", "wake b"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"looks": (5, 8)}, r"looks after \[5, 8\] pairs .* rising numbers from 6 on"),
        ({"looks": ()}, r"looks after \[\] pairs"),
        ({"looks": (10, 10)}, r"looks after \[10, 10\] pairs"),
        ({"aa_pairs": 1}, "1 pairs of A against itself were asked for; an interval needs 2"),
        (
            {"margin": 3.0},
            "an equivalence margin of 3.0 was asked for; give a part between 0 and 1",
        ),
        ({"starts": 11}, "11 starts of both servers were asked for; give 1 to 10"),
    ],
)
def test_settings_that_decide_nothing(settings: dict[str, object], sentence: str) -> None:
    """Settings with which nothing could be decided are refused before anything is measured."""
    with pytest.raises(ValueError, match=sentence):
        Settings(**settings)  # type: ignore[arg-type]
