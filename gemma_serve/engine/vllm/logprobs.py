"""
What the model thinks of a given text, token by token, and how it goes on greedily.

vLLM scores a prompt with `prompt_logprobs=K`: for each position the K most likely tokens and the
one that stands there. The rest of the vocabulary is not asked for: 262,144 numbers a position
would go through Python one by one. `prompt_logprob_token_ids`, which scores chosen ids, needs
vLLM's second model runner, and that needs Triton: it is missing on CPU.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind

from gemma_serve.engine.vllm.errors import translate
from gemma_serve.errors import InternalError

if TYPE_CHECKING:
    from gemma_serve.engine.vllm.engine import Engine


@dataclass(frozen=True)
class PromptScores:
    """Natural log-probabilities of one prompt; row i is of the token at i + 1."""

    target_logprobs: npt.NDArray[np.float32]  # (num_tokens - 1,)
    top_ids: npt.NDArray[np.int32]  # (num_tokens - 1, num_top), the most likely first
    top_logprobs: npt.NDArray[np.float32]  # (num_tokens - 1, num_top)


async def score_prompt(engine: Engine, token_ids: list[int], num_top: int) -> PromptScores:
    """
    Teacher-forced log-probabilities of a prompt, at temperature 1 and without any penalty.

    vLLM reads nothing from the prefix cache for such a request. Await one at a time: that bounds
    the logits in memory, and the same batches give the same numbers.

    Raises:
        GemmaServeError: vLLM refused the request or failed on it.
    """
    params = SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=num_top,
        detokenize=False,
        # Numbers in three lists, not one object a number.
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    with _logprobs_allowed(engine, num_top):
        output = await _final_output(engine, token_ids, params)
    flat = output.prompt_logprobs
    # The first position has no prediction; each other one has its own token, then the K of the top.
    shape = (len(token_ids) - 1, num_top + 1)
    ids = np.array(flat.token_ids, dtype=np.int32).reshape(shape)
    logprobs = np.array(flat.logprobs, dtype=np.float32).reshape(shape)
    return PromptScores(logprobs[:, 0], ids[:, 1:], logprobs[:, 1:])


async def continue_greedily(engine: Engine, token_ids: list[int], num_tokens: int) -> list[int]:
    """
    The next `num_tokens` most likely tokens, whether or not the model would stop before.

    Raises:
        GemmaServeError: vLLM refused the request or failed on it.
    """
    params = SamplingParams(
        temperature=0.0,
        max_tokens=num_tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    output = await _final_output(engine, token_ids, params)
    return list(output.outputs[0].token_ids)


def encode(engine: Engine, text: str) -> list[int]:
    """A text's token ids by the engine's tokenizer, without special tokens."""
    tokenizer = engine.client.get_tokenizer()
    # `verbose` would warn of a text that is longer than the context; it is cut later.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def bos_token_id(engine: Engine) -> int:
    """What a prompt begins with."""
    token_id: int = engine.client.get_tokenizer().bos_token_id
    return token_id


@contextmanager
def _logprobs_allowed(engine: Engine, num_top: int) -> Iterator[None]:
    """
    Let this process ask for more log-probabilities than clients may.

    `max_logprobs` (20) is a bound for clients, which vLLM checks where requests come in and
    nowhere else; no client is served while this holds.
    """
    config = engine.client.vllm_config.model_config
    allowed = config.max_logprobs
    config.max_logprobs = num_top if allowed >= 0 and num_top > allowed else allowed
    try:
        yield
    finally:
        config.max_logprobs = allowed


async def _final_output(engine: Engine, token_ids: list[int], params: SamplingParams) -> Any:
    prompt = TokensPrompt(prompt_token_ids=token_ids)
    outputs = engine.client.generate(prompt, params, f"quality-{uuid.uuid4().hex}")
    try:
        async with aclosing(outputs):
            async for output in outputs:
                if output.finished:
                    return output
    except Exception as error:
        raise translate(error) from error
    raise InternalError("The engine gave no answer to a prompt that was to be scored.")
