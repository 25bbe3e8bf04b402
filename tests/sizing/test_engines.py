"""The plan against the KV cache of engines that were really started, recorded in golden/."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.derive import TWO_CORES, checkpoint_of
from tests.sizing.make_golden import CASES, FIGURES, GOLDEN
from tests.sizing.subjects import subject

RECORDED: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['style']}-{case['keys']}")
def test_plan_is_what_the_engine_made(case: dict[str, Any]) -> None:
    """
    Blocks, tokens and concurrency of the embedded 270M and four tiny Gemmas, to the last token.

    Three percent would do; a difference means that vLLM's rule is another than ours.
    """
    of_files = checkpoint_of(case["config"]) if case["config"] else None
    model = "someone/model" if of_files else "embedded/gemma-3-270m"

    sizing = subject(TWO_CORES, checkpoint=of_files, model=model, **case["keys"]).size()

    planned = (sizing.num_blocks, sizing.kv_cache_tokens, sizing.max_concurrency)
    assert planned == pytest.approx(tuple(case["engine"][name] for name in FIGURES), rel=1e-12)


def test_every_style_is_recorded() -> None:
    """None of the styles is left out, and none is there that can't be recorded anew."""
    recorded = {str((case["style"], case["keys"])) for case in RECORDED}
    there_are = {str((style, keys)) for style, cases in CASES.items() for keys in cases}

    assert recorded == there_are
