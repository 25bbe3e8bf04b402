"""The judging itself: pairs in turns, a warm-up that does not count, intervals and a verdict."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from benchmarks.judge import JudgeError, Replay, exit_code, judge, table
from benchmarks.judge.judge import TOOLS
from benchmarks.judge.replay import Figures, run_tool
from benchmarks.judge.rows import judge_row
from benchmarks.machine import ahead_of_servers
from benchmarks.records import Judgement, JudgePair, JudgeRow, Load, RequestRecord, Run
from benchmarks.servers.venvs import Progress
from tests.benchmarks.compare.made_up import made_up_run
from tests.benchmarks.judge.test_vllm_bench import replay


@dataclass
class Ours:
    """One run of ours; the order of all runs is noted."""

    run: Run
    records: Sequence[RequestRecord] = ()


@dataclass
class Stopwatch:
    """A tool whose figures the test gives: ours over theirs, run by run."""

    ratios: Sequence[float]
    red: Mapping[int, Sequence[str]] = field(default_factory=dict)  # by our run's number
    said: list[str] = field(default_factory=list)
    begun: list[tuple[int, int, str]] = field(default_factory=list)
    name: str = "stopwatch"
    definitions: Mapping[str, str] = field(default_factory=lambda: {"ttft_mean_ms": "a time"})

    async def prepare(self, on_progress: Progress | None) -> str:
        """Nothing to install."""
        return "stopwatch 1"

    async def run(self, replay: Replay, directory: Path, salt: str) -> Figures:
        """Always 100 ms."""
        self.said.append(f"theirs {salt}")
        return {"ttft_mean_ms": 100.0}

    def ours(self, sent: Sequence[RequestRecord]) -> Figures:
        """The next ratio of it."""
        # The first run of ours is the warm-up, of which no figures are asked.
        return {"ttft_mean_ms": 100.0 * self.ratios[self.said.count("ours") - 2]}


def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Stopwatch) -> Judgement:
    """A judgement by the stopwatch, as many pairs as it has ratios."""
    monkeypatch.setitem(TOOLS, "stopwatch", lambda: tool)

    async def measure(number: int) -> Ours:
        assert number == tool.said.count("ours")
        tool.said.append("ours")
        return Ours(made_up_run(red=tool.red.get(number, ())))

    how: Any = {"tools": ["stopwatch"], "repeats": len(tool.ratios)}
    begun = tool.begun.append
    how["on_run"] = lambda number, total, what: begun((number, total, what))
    return asyncio.run(judge(replay(), measure, tmp_path, **how))


def test_runs_alternate_after_a_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of ours warms up; then pairs, each the other way round, each with its own salt."""
    tool = Stopwatch([1.0, 1.0, 1.0])

    judged(tmp_path, monkeypatch, tool)

    assert tool.said == [
        "ours",
        *("ours", "theirs judge-1"),
        *("theirs judge-2", "ours"),
        *("ours", "theirs judge-3"),
    ]
    # What a progress bar shows.
    assert [number for number, _, _ in tool.begun] == [1, 2, 3, 4, 5, 6, 7]
    assert tool.begun[3] == (4, 7, "stopwatch, pair 2 of 3: theirs")


def test_judge_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds every pair, the versions and the verdict, and is read back as it was."""
    judgement = judged(tmp_path, monkeypatch, Stopwatch([1.01, 1.01]))
    said = json.loads((tmp_path / "judge.json").read_text())

    assert Judgement.model_validate(said) == judgement
    jsonschema.validate(said, Judgement.model_json_schema(by_alias=True))
    assert said["schema"] == "gemma-bench-judge/2"
    # The conditions are those of our runs.
    run = made_up_run()
    assert (judgement.target, judgement.workload, judgement.host) == (
        run.target,
        run.workload,
        run.host,
    )
    assert (judgement.argv, judgement.validity.verdict) == (run.argv, "VALID")
    assert said["tools"] == {"stopwatch": "stopwatch 1"}
    assert [pair["ours"] for pair in said["rows"][0]["pairs"]] == [101.0, 101.0]
    assert said["message"] == "all 1 figures agree within 5%"


@pytest.mark.parametrize(
    ("ratios", "status", "code"),
    [
        ([1.04, 1.05, 1.045], "agrees", 0),
        # All pairs say about 1.2: no ratio in the interval is within 5 %.
        ([1.19, 1.20, 1.21], "off", 1),
        ([0.80, 0.81, 0.79], "off", 1),
        # The mean is off, but the pairs differ more than that.
        ([1.50, 1.00, 1.00], "unclear", 0),
        # The mean is exactly 1, and nobody knows it: agreement is not proved by noise.
        ([1.25, 0.80, 1.25, 0.80], "unclear", 0),
        # One pair has no interval: it can't show that they agree, and more than 5 % is a failure.
        ([1.5], "off", 1),
        ([0.94], "off", 1),
        ([1.0], "unclear", 0),
    ],
)
def test_verdict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratios: list[float],
    status: str,
    code: int,
) -> None:
    """Only what is off by more than 5 % beyond its interval is a failure to explain."""
    judgement = judged(tmp_path, monkeypatch, Stopwatch(ratios))

    assert judgement.rows[0].status == judgement.verdict == status
    assert exit_code(judgement) == code


def test_invalid_runs_are_no_measure_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A red check of one of our runs is the verdict, whatever the figures; the warm-up is free."""
    red = {0: ["failed_share"], 3: ["foreign_cpu"]}
    judgement = judged(tmp_path, monkeypatch, Stopwatch([1.2, 1.2, 1.2], red))

    assert (judgement.verdict, exit_code(judgement)) == ("invalid", 3)
    assert judgement.validity.verdict == "INVALID"
    assert judgement.message == (
        "invalid: foreign_cpu: 1 of 1 runs of ours, first ours-3: foreign_cpu was looked at"
    )


def test_one_pair_says_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by itself, as nobody knows how far one pair is from the next."""
    judgement = judged(tmp_path, monkeypatch, Stopwatch([3.0]))

    assert judgement.message == (
        "1 of 1 figures are off by more than 5%, most ttft_mean_ms of stopwatch (ours +200.0%, one "
        "pair): a failure to explain, or one pair's noise: --repeats 3 gives it an interval"
    )


def test_failure_to_explain_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the figure that is off most, and by how much; the table shows it."""
    judgement = judged(tmp_path, monkeypatch, Stopwatch([1.25, 1.25]))

    assert judgement.message == (
        "1 of 1 figures are off by more than 5% beyond their interval, most ttft_mean_ms of "
        "stopwatch (ours +25.0%, 95 % 1.250 to 1.250): a failure to explain"
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(judgement))
    assert "1.250 to 1.250" in console.export_text()


def test_what_is_not_known_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which figure is known least, and what to do."""
    judgement = judged(tmp_path, monkeypatch, Stopwatch([1.0]))

    assert judgement.message == (
        "1 of 1 figures are not known to 5%, least ttft_mean_ms of stopwatch (ours +0.0%, one "
        "pair); repeat more often, send more requests, or quiet the machine"
    )


def row(*pairs: tuple[float, float], metric: str = "output_tps") -> JudgeRow:
    """A row of (ours, theirs) pairs."""
    made = [JudgePair(order="ours first", ours=ours, theirs=theirs) for ours, theirs in pairs]
    return judge_row("t", metric, "tokens over seconds", made)


def test_interval_is_the_paired_t_of_log_ratios() -> None:
    """exp(mean -+ t s / sqrt(R)), worked by hand."""
    # ln ratios 0.1 and 0.3: mean 0.2, s = 0.141421, t(0.975, 1) = 12.7062,
    # half = 12.7062 x 0.141421 / 1.414214 = 1.27062.
    # e^0.2 = 1.221403; e^(0.2 - 1.27062) = 0.342796; e^(0.2 + 1.27062) = 4.351932.
    made = row((1.1051709, 1.0), (1.3498588, 1.0))

    assert made.ratio == pytest.approx(1.221403, rel=1e-5)
    assert made.ci_low == pytest.approx(0.342796, rel=1e-4)
    assert made.ci_high == pytest.approx(4.351932, rel=1e-4)
    assert made.unit == "tokens/s"


def test_geometric_means() -> None:
    """A pair of twice and one of half agree exactly: ratios are multiplied, not added."""
    made = row((200, 100), (100, 200))

    assert made.ratio == pytest.approx(1.0)
    assert made.ours == pytest.approx(made.theirs)


def test_concurrency_explains_and_is_not_judged() -> None:
    """A tool that holds fewer requests open is told, not condemned, by that figure itself."""
    assert row((8, 4), (8, 4), metric="mean_concurrency").status == "not judged"


def test_unknown_judge(tmp_path: Path) -> None:
    """A judge that is none is refused with those there are."""

    async def measure(number: int) -> Any:
        raise AssertionError

    with pytest.raises(JudgeError, match="no judge 'aiperf'; give vllm or guidellm"):
        asyncio.run(judge(replay(), measure, tmp_path, tools=["aiperf"]))


@pytest.mark.parametrize(
    ("load", "protocol", "sentence"),
    [
        (Load(mode="open", rate_rps=2.0, arrivals="poisson"), "openai-chat", "give a --concurr"),
        (Load(mode="closed", concurrency=1), "triton-generate", "the tools speak OpenAI's"),
    ],
)
def test_what_cannot_be_judged(load: Load, protocol: Any, sentence: str) -> None:
    """A load or protocol that the tools cannot repeat is refused before anything runs."""
    with pytest.raises(JudgeError, match=sentence):
        Replay("http://h:1", "m", protocol, replay().workload, load)


def test_salt_and_ids_only_where_the_server_takes_them() -> None:
    """A plain server gets nothing that it does not know."""
    assert replay(salted=False, token_ids=False).extra_body("s") == {"temperature": 0}


def test_tool_that_fails_tells_its_last_words(tmp_path: Path) -> None:
    """A tool's own end is in the error."""
    words = [sys.executable, "-c", "print('cannot reach it'); raise SystemExit(4)"]

    with pytest.raises(JudgeError, match=r"(?s)ended with code 4; .*cannot reach it"):
        asyncio.run(run_tool("a tool", words, tmp_path / "log", {}))


def test_tool_goes_ahead_of_the_servers_as_we_do(tmp_path: Path) -> None:
    """Like for like: our client's priority, and our session, outside of which it means nothing."""
    with ahead_of_servers():
        ours = os.getpriority(os.PRIO_PROCESS, 0)
    shown = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0))"

    asyncio.run(run_tool("a tool", [sys.executable, "-c", shown], tmp_path / "log", {}))

    assert (tmp_path / "log").read_text().split() == [str(ours), str(os.getsid(0))]
