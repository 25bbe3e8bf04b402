"""
guidellm: its configuration, its result file, and our figures by its definitions.

guidellm.json is what guidellm 0.8.1 saved of a run against the null server, 12 requests of
different lengths two at a time, cut down to the figures and times that are used.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judge import JudgeError
from benchmarks.judge.guidellm import Guidellm, configuration, num_lost, read_figures
from benchmarks.records import Chunk, RequestRecord
from tests.benchmarks.judge.test_vllm_bench import replay

SAVED: dict[str, Any] = json.loads(Path(__file__).with_name("guidellm.json").read_text())


def recorded() -> list[RequestRecord]:
    """Its requests as we would have recorded them: the first token, the last one, and the end."""
    made = []
    for index, request in enumerate(SAVED["benchmarks"][0]["requests"]["successful"]):
        times, tokens = request["info"]["timings"], request["output_tokens"]
        began_s = times["request_start"]
        first_s = times["first_token_iteration"] - began_s
        last_s = times["last_token_iteration"] - began_s
        made.append(
            RequestRecord(
                index=index,
                phase="measured",
                max_tokens=tokens,
                send_s=began_s,
                end_s=times["request_end"],
                chunks=[Chunk(first_s, 1, 0), Chunk(last_s, tokens - 1, 1)],
                num_output_tokens=tokens,
            )
        )
    return made


def test_our_definitions_are_its_own() -> None:
    """From the times of its requests our formulas give the figures that it printed."""
    theirs, ours = read_figures(SAVED), Guidellm().ours(recorded())

    assert theirs.keys() == ours.keys() == Guidellm.definitions.keys()
    # Its times are seconds since 1970: a double has some tenths of a microsecond there.
    for metric, value in theirs.items():
        assert ours[metric] == pytest.approx(value, rel=1e-4), metric


def test_long_answers_weigh_more() -> None:
    """Its times per token are means over tokens, not over requests."""
    short, long = recorded()[:2]
    # 3 tokens, one each 0.1 s from 0.1 s on; 11 tokens, one each 0.2 s from 0.2 s on.
    short.num_output_tokens, short.chunks = 3, [Chunk(0.1, 1, 0), Chunk(0.3, 2, 1)]
    long.num_output_tokens, long.chunks = 11, [Chunk(0.2, 1, 0), Chunk(2.2, 10, 1)]

    figures = Guidellm().ours([short, long])

    # Both have e2e / n = gap; over tokens (3 x 100 + 11 x 200) / 14, over gaps (2, 10) / 12.
    assert figures["tpot_mean_ms"] == pytest.approx((300 + 2200) / 14)
    assert figures["itl_mean_ms"] == pytest.approx((200 + 2000) / 12)


def test_lost_and_failed_requests() -> None:
    """A request that it tells nothing of is lost; one that failed is an error with its reason."""
    assert num_lost(SAVED, 12) == 0
    assert num_lost(SAVED, 13) == 1

    saved = copy.deepcopy(SAVED)
    benchmark = saved["benchmarks"][0]
    benchmark["metrics"]["request_totals"]["errored"] = 1
    benchmark["requests"]["errored"] = [{"info": {"error": "ReadTimeout"}}]
    with pytest.raises(JudgeError, match="1 of 13 requests failed: ReadTimeout"):
        num_lost(saved, 13)


def test_same_work_is_asked_for() -> None:
    """It sends every request once, with what ours has beside them and no usage in every event."""
    spec = configuration(replay(ignore_eos=False), "s1", Path("w"), Path("r"))["spec"]

    assert spec["profile"] == {"kind": "concurrent", "streams": [2]}
    assert spec["constraints"] == [{"kind": "max_requests", "count": 5}]
    assert spec["backend"]["extras"]["body"] == {
        "temperature": 0,
        "return_token_ids": True,
        "cache_salt": "r-s1",
        "stream_options": {"continuous_usage_stats": False},
        "ignore_eos": False,
    }
