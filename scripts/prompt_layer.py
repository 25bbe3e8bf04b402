"""
What the prompt layer costs: normalise, guard, render and tokenise, against vLLM's renderer alone.

    python -m scripts.prompt_layer --out benchmarks/results/DATE-prompt-layer.json

Both renderers stand in one process, on one tokenizer and one chat template (the embedded Gemma 3
270M's), and get the same messages in ABBA order. No part of benchmarks/, which talks HTTP only:
what it measures has no port.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare.statistics import estimate, log_ratios
from benchmarks.machine import conditions, utc_now

BAR = 1.15
SENTENCE = "The quick brown fox jumps over the lazy dog, while seven small birds watch in peace. "


def main() -> None:
    """Measure, print the table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--profile", default="gemma-3-270m")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=4000, help="of the whole prompt, about")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--renders", type=int, default=40, help="a cell")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    record = asyncio.run(measure(options))
    print(json.dumps(record["summary"], indent=2))
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n")


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Render in turns with both, and compare CPU seconds by round."""
    about = {"date": utc_now(), **conditions()}
    ours, theirs = await renderers(options.profile)
    messages = conversation(options.turns, options.tokens)
    num_tokens = len(await render(ours, messages))
    if await render(theirs, messages) != await render(ours, messages):
        raise RuntimeError("the two renderers give different prompts for this conversation")
    # As the server does when it is ready: the garbage collector leaves the vocabulary alone.
    gc.collect()
    gc.freeze()
    both = {"gemma-serve": ours, "vllm": theirs}
    rounds = [await cpu_ms(both, messages, options.renders) for _ in range(options.rounds)]
    cells = {name: [cell[name] for cell in rounds] for name in both}
    logs = log_ratios(cells["gemma-serve"], cells["vllm"])
    found = estimate(logs)
    ratio, low, high = (math.exp(value) for value in (found.mean, found.low, found.high))
    return {
        "conditions": about,
        "method": [
            f"{options.turns} turns, {num_tokens} tokens, no tools, no control tokens, no images",
            f"{options.rounds} rounds of {options.renders} renders each, one at a time, the two in "
            "ABBA order; the heap is frozen before, as the server does when it is ready",
            "CPU: time.process_time of the process, all its threads, by render",
            "vllm: its HfRenderer on the same config, tokenizer and template",
        ],
        "cpu_ms": cells,
        "summary": {
            "cpu_ms_median": {name: round(statistics.median(v), 3) for name, v in cells.items()},
            "ours_over_vllm": {
                "ratio": round(ratio, 4),
                "interval_95": [round(low, 4), round(high, 4)],
                "by_round": [round(math.exp(log), 4) for log in logs],
            },
            "bar": {"at_most": BAR},
            "verdict": "PASS" if high <= BAR else "FAIL" if ratio > BAR else "not certain",
        },
    }


async def renderers(profile: str) -> tuple[Any, Any]:
    """Ours and vLLM's own OnlineRenderer, for one profile."""
    import copy
    import os

    from gemma_serve.plan import plan_serve
    from gemma_serve.profile.load import load_profile

    loaded = load_profile(profile, [])
    plan = plan_serve(loaded, print)
    os.environ.update(plan.resolved.env_dict())

    from vllm.renderers.hf import HfRenderer  # noqa: TID251  # the peer

    from gemma_serve.engine.vllm import renderer_without_engine

    resolved = plan.resolved
    ours = await renderer_without_engine(
        resolved.engine_kwargs(), resolved.frontend_kwargs(), loaded.profile, plan.checkpoint
    )
    theirs = copy.copy(ours)
    theirs.renderer = HfRenderer(ours.renderer.config, ours.renderer.tokenizer)
    return ours, theirs


def conversation(turns: int, tokens: int) -> list[dict[str, str]]:
    """A system message, then alternating turns, user last for an even number."""
    text = SENTENCE * max(1, round(tokens / turns / 18.5))
    roles = ["system", *("user" if turn % 2 == 0 else "assistant" for turn in range(turns - 1))]
    return [{"role": role, "content": f"{turn}. {text}"} for turn, role in enumerate(roles)]


async def render(online: Any, messages: list[dict[str, str]]) -> list[int]:
    """The token ids of a conversation."""
    from gemma_serve.engine.vllm import ChatRequest

    request = ChatRequest(messages=messages)
    _, (engine_input,) = await online.render_chat(request)
    return list(engine_input["prompt_token_ids"])


async def cpu_ms(
    renderers: Mapping[str, Any], messages: list[dict[str, str]], renders: int
) -> dict[str, float]:
    """CPU milliseconds of one render with each; they take turns, so that drift hits both."""
    spent_s = dict.fromkeys(renderers, 0.0)
    for number in range(renders):
        for name in list(renderers)[:: 1 if number % 2 == 0 else -1]:
            began_s = time.process_time()
            await render(renderers[name], messages)
            spent_s[name] += time.process_time() - began_s
    return {name: seconds / renders * 1000 for name, seconds in spent_s.items()}


if __name__ == "__main__":
    main()
