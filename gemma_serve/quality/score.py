"""What a running engine says of windows of token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gemma_serve.quality.corpus import Windows, cut_windows
from gemma_serve.quality.record import NUM_TOP, Scores

if TYPE_CHECKING:
    from gemma_serve.engine.vllm import Engine

# Greedy continuations: one of the first window of each text.
NUM_PROMPTS = 14
PROMPT_TOKENS = 32
NEW_TOKENS = 64


def windows_of(engine: Engine) -> Windows:
    """The corpus by the engine's own tokenizer."""
    from gemma_serve.engine import vllm

    return cut_windows(lambda text: vllm.encode(engine, text), vllm.bos_token_id(engine))


async def score(
    engine: Engine,
    token_ids: npt.NDArray[np.int32],
    on_window: Callable[[], None] = lambda: None,
    *,
    num_top: int = NUM_TOP,
    with_continuations: bool = True,
) -> Scores:
    """
    Score windows one after another, then let the model go on from the first ones.

    Args:
        token_ids: Shape (num_windows, window_tokens), each beginning with BOS.
        on_window: Called after each window.

    Raises:
        GemmaServeError: vLLM refused a window (max_model_len may be too short) or failed on it.
    """
    from gemma_serve.engine import vllm

    scored = []
    for window in token_ids.tolist():
        scored.append(await vllm.score_prompt(engine, window, num_top))
        on_window()
    prompts = token_ids[:NUM_PROMPTS, :PROMPT_TOKENS].tolist() if with_continuations else []
    going_on = (vllm.continue_greedily(engine, prompt, NEW_TOKENS) for prompt in prompts)
    continuations = await asyncio.gather(*going_on)
    return Scores(
        token_ids,
        np.stack([one.target_logprobs for one in scored]),
        np.stack([one.top_ids for one in scored]),
        np.stack([one.top_logprobs for one in scored]),
        np.array(continuations, dtype=np.int32).reshape(-1, NEW_TOKENS),
    )
