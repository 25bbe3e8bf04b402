"""
`vllm bench serve`: its command line, its result file, and our figures by its definitions.

vllm_bench.json is what vLLM 0.32 saved of a run against the tiny model, 12 requests of different
lengths two at a time, without texts and tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judge import JudgeError, Replay
from benchmarks.judge.vllm_bench import VllmBench, arguments, read_figures
from benchmarks.records import Chunk, Item, Load, RequestRecord
from benchmarks.workload import Workload, parse_spec

SAVED: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_bench.json").read_text())


def replay(**how: Any) -> Replay:
    """Two requests at a time."""
    items = [Item(index, 8, prompt="x") for index in range(5)]
    spec = parse_spec({"kind": "synthetic", "input": "1", "output": "8"})
    workload = Workload(items, [], spec, 0, "0" * 64, "five")
    load = Load(mode="closed", concurrency=2)
    return Replay("http://h:1", "m", "openai-chat", workload, load, **{"begun": "r"} | how)


def recorded() -> list[RequestRecord]:
    """Its requests as we would have recorded them: the first event and the last one of each."""
    columns = (SAVED[name] for name in ("start_times", "ttfts", "latencies", "output_lens"))
    return [
        RequestRecord(
            index=index,
            phase="measured",
            max_tokens=tokens,
            send_s=start_s,
            end_s=start_s + e2e_s,
            choice_s=ttft_s,
            chunks=[Chunk(ttft_s, 1, 0), Chunk(e2e_s, tokens - 1, 1)],
            num_output_tokens=tokens,
        )
        for index, (start_s, ttft_s, e2e_s, tokens) in enumerate(zip(*columns, strict=True))
    ]


def test_our_definitions_are_its_own() -> None:
    """From the times of its requests our formulas give the figures that it printed."""
    theirs, ours = read_figures(SAVED), VllmBench().ours(recorded())

    for metric in ("output_tokens", "ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms"):
        assert ours[metric] == pytest.approx(theirs[metric], rel=1e-9)
    # Its duration also has the making and gathering of its tasks in it.
    for metric in ("output_tps", "mean_concurrency"):
        assert ours[metric] == pytest.approx(theirs[metric], rel=0.01)


def test_figures_are_those_of_its_file() -> None:
    """Each figure is the one that the file names, whatever else is in it."""
    figures = read_figures(SAVED)

    assert figures.keys() == VllmBench.definitions.keys()
    # 167 tokens in 4.8023 s.
    assert figures["output_tokens"] == 167
    assert figures["output_tps"] == pytest.approx(34.775, abs=1e-3)


def test_event_without_tokens_is_its_first_token() -> None:
    """Its TTFT is the first event with choices; tokens that come later make its TPOT shorter."""
    record = recorded()[0]
    # A role at 0.1 s, 5 tokens from 0.3 s to 0.7 s: TTFT 100 ms, TPOT (700 - 100) / 4 = 150 ms.
    record.choice_s, record.num_output_tokens = 0.1, 5
    record.chunks = [Chunk(0.3, 1, 0), Chunk(0.7, 4, 1)]

    figures = VllmBench().ours([record])

    assert figures["ttft_mean_ms"] == pytest.approx(100)
    assert figures["tpot_mean_ms"] == pytest.approx(150)


def test_failed_requests_are_an_error() -> None:
    """A run in which requests failed is no other's equal; the first reason is told."""
    saved = SAVED | {"failed": 2, "completed": 10, "errors": ["", "Traceback\nValueError: no"]}

    with pytest.raises(JudgeError, match="2 of 12 requests failed: ValueError: no"):
        read_figures(saved)


def test_warm_up_is_not_judged_and_failures_are_told() -> None:
    """Only measured requests count, and one that failed among them ends the judging."""
    warm, bad = recorded()[:2]
    warm.phase, bad.error, bad.error_message = "warm_up", "stall", "no byte for 120 s"

    assert VllmBench().ours([warm, *recorded()[2:]])["output_tokens"] == 167 - 19 - 13
    with pytest.raises(JudgeError, match=r"1 of our 1 requests failed, .* stall: no byte"):
        VllmBench().ours([warm, bad])


def test_same_work_is_asked_for() -> None:
    """It sends every request once, in order, as long as ours, with what ours has beside them."""
    words = arguments(replay(), "s1", Path("w.jsonl"), Path("t"), Path("out/r.json"))

    def after(flag: str) -> str:
        return words[words.index(flag) + 1]

    assert after("--num-prompts") == "5"
    assert after("--max-concurrency") == "2"
    assert after("--endpoint") == "/v1/chat/completions"
    assert after("--custom-output-len") == "-1"
    assert {"--disable-shuffle", "--skip-chat-template", "--ignore-eos"} <= set(words)
    assert json.loads(after("--extra-body")) == {
        "temperature": 0,
        "return_token_ids": True,
        "cache_salt": "r-s1",
    }


def test_no_judging_has_the_salts_of_another() -> None:
    """A running server still has the blocks of the judging before, of the same seed."""
    one = replay()
    other, third = (
        Replay(one.url, one.model, one.protocol, one.workload, one.load).extra_body("s1")
        for _ in range(2)
    )

    assert other["cache_salt"] != third["cache_salt"]
    assert other["cache_salt"].endswith("-s1")


def test_key_is_not_on_its_command_line() -> None:
    """Everyone can read a command line; the key goes through the environment."""
    words = arguments(replay(api_key="secret"), "s", Path("w"), Path("t"), Path("r.json"))

    assert not [word for word in words if "secret" in word]
