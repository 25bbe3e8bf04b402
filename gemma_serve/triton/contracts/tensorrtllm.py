"""
The tensor names of TensorRT-LLM's ensemble.

Source: https://github.com/NVIDIA/TensorRT-LLM (triton_backend/all_models/inflight_batcher_llm,
ensemble/config.pbtxt; the shapes of outputs from inflight_batcher_llm/src/model_instance_state.cc
and postprocessing/1/model.py). As there, nothing sent means greedy, and the prompt comes before the
answer unless streaming or `exclude_input_in_output`. Requests have a batch dimension of 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gemma_serve.engine.pieces import Piece
from gemma_serve.errors import RequestError
from gemma_serve.triton.contracts.chat import read_prompt
from gemma_serve.triton.contracts.contract import (
    STRING,
    Call,
    Contract,
    Inputs,
    TensorSpec,
    at_least,
    given,
    text_output,
)
from gemma_serve.triton.contracts.tool_calls import TOOL_CALLS, tool_calls
from gemma_serve.triton.tensors import Tensor, numbers

RETURNS = ("return_log_probs", "return_num_input_tokens", "return_num_output_tokens")
# Known there and not here; each would change the answer, so it must say what it says by default.
ONLY_DEFAULT = {
    "beam_width": (1, "vLLM has no beam search that streams or batches"),
    "return_context_logits": (False, "vLLM gives no logits"),
    "return_generation_logits": (False, "vLLM gives no logits"),
}
GUIDES = {"json": "json_object", "json_schema": "json", "regex": "regex", "ebnf_grammar": "grammar"}


class TensorrtLlm(Contract):
    """text_input and max_tokens -> text_output, log probabilities and counts."""

    name = "tensorrtllm"
    backend = "tensorrtllm"
    max_batch_size = 1
    decoupled = True
    splits_answers = True
    rivals = (frozenset({"min_tokens", "min_length"}), frozenset({"seed", "random_seed"}))
    inputs = (
        TensorSpec("text_input", STRING, optional=False),
        TensorSpec("max_tokens", "INT32", optional=False),
        TensorSpec("bad_words", STRING, (-1,)),
        TensorSpec("stop_words", STRING, (-1,)),
        TensorSpec("exclude_input_in_output", "BOOL"),
        TensorSpec("end_id", "INT32"),
        TensorSpec("pad_id", "INT32"),
        TensorSpec("top_k", "INT32"),
        TensorSpec("top_p", "FP32"),
        TensorSpec("temperature", "FP32"),
        TensorSpec("length_penalty", "FP32"),
        TensorSpec("repetition_penalty", "FP32"),
        TensorSpec("min_tokens", "INT32"),
        TensorSpec("min_length", "INT32"),
        TensorSpec("presence_penalty", "FP32"),
        TensorSpec("frequency_penalty", "FP32"),
        TensorSpec("seed", "UINT64"),
        TensorSpec("random_seed", "UINT64"),
        TensorSpec("num_return_sequences", "INT32"),
        TensorSpec("beam_width", "INT32"),
        TensorSpec("stream", "BOOL"),
        *(TensorSpec(name, "BOOL") for name in RETURNS),
        TensorSpec("return_context_logits", "BOOL"),
        TensorSpec("return_generation_logits", "BOOL"),
        TensorSpec("guided_decoding_guide_type", STRING),
        TensorSpec("guided_decoding_guide", STRING),
    )
    outputs = (
        TensorSpec("text_output", STRING, (-1,)),
        TensorSpec("cum_log_probs", "FP32", (-1,)),
        TensorSpec("output_log_probs", "FP32", (-1, -1)),
        TensorSpec("batch_index", "INT32"),
        TensorSpec("sequence_index", "INT32"),
        TensorSpec("num_input_tokens", "INT32"),
        TensorSpec("num_output_tokens", "INT32"),
        TOOL_CALLS,
    )

    def read(
        self,
        inputs: Inputs,
        parameters: Mapping[str, Any],
        generation_config: Mapping[str, Any],  # noqa: ARG002  # the backend does not read it
    ) -> Call:
        """The names of TensorRT-LLM as vLLM's."""
        _check_only_default(inputs)
        stream = bool(inputs.flag("stream"))
        wants = frozenset(name for name in RETURNS if inputs.flag(name))
        return Call(
            (read_prompt(inputs.text("text_input") or "", parameters, lists_are_chats=False),),
            _sampling(inputs) | ({"logprobs": 0} if "return_log_probs" in wants else {}),
            stream,
            prepends_prompt=not stream and not inputs.flag("exclude_input_in_output"),
            wants=wants,
        )

    def write(self, call: Call, texts: Sequence[str], pieces: Sequence[Piece]) -> list[Tensor]:
        """One row an answer; the texts alone are flat, as postprocessing/1/model.py has them."""
        (piece,) = pieces
        parts = piece.parts
        rows = [
            *tool_calls(call, pieces),
            numbers("batch_index", "INT32", [0 for _ in parts]),
            numbers("sequence_index", "INT32", [part.index for part in parts]),
        ]
        if "return_log_probs" in call.wants:
            rows += _log_probs(piece)
        if "return_num_input_tokens" in call.wants:
            rows.append(numbers("num_input_tokens", "INT32", [piece.num_prompt_tokens]))
        if "return_num_output_tokens" in call.wants:
            counts = [part.num_tokens for part in parts]
            rows.append(numbers("num_output_tokens", "INT32", counts))
        return [text_output(texts), *map(_with_batch_dimension, rows)]


def _with_batch_dimension(tensor: Tensor) -> Tensor:
    first, *rest = tensor.shape
    return replace(tensor, shape=(first, 1, *rest))


def _check_only_default(inputs: Inputs) -> None:
    for name, (default, why) in ONLY_DEFAULT.items():
        value = inputs.flag(name) if isinstance(default, bool) else inputs.integer(name)
        if value not in (None, default):
            raise RequestError(
                f"{name} {value} can't be served: {why}; send {default}, or leave it out.",
                param=name,
            )


def _sampling(inputs: Inputs) -> dict[str, Any]:
    top_k, top_p = inputs.integer("top_k"), inputs.number("top_p")
    # Neither asked for: TensorRT-LLM takes the likeliest token. Its 0 is off for both.
    is_greedy = not top_k and not top_p
    end_id = inputs.integer("end_id")
    seed = inputs.integer("seed")
    min_tokens = inputs.integer("min_tokens")
    return given(
        max_tokens=at_least("max_tokens", inputs.integer("max_tokens"), 1),
        temperature=0.0 if is_greedy else inputs.number("temperature"),
        top_k=None if is_greedy else top_k,
        top_p=(top_p or None),
        repetition_penalty=inputs.number("repetition_penalty"),
        presence_penalty=inputs.number("presence_penalty"),
        frequency_penalty=inputs.number("frequency_penalty"),
        min_tokens=inputs.integer("min_length") if min_tokens is None else min_tokens,
        seed=inputs.integer("random_seed") if seed is None else seed,
        n=at_least("num_return_sequences", inputs.integer("num_return_sequences"), 1),
        # Clients send "" where they mean none.
        stop=[word for word in inputs.texts("stop_words") if word],
        bad_words=[word for word in inputs.texts("bad_words") if word],
        # -1 is its word for none.
        stop_token_ids=None if end_id is None or end_id < 0 else [end_id],
        structured_outputs=_guide(inputs),
    )


def _guide(inputs: Inputs) -> dict[str, Any] | None:
    kind, guide = inputs.text("guided_decoding_guide_type"), inputs.text("guided_decoding_guide")
    if kind is None:
        return None
    if kind not in GUIDES:
        raise RequestError(
            f"guided_decoding_guide_type {kind[:40]!r} is not known; use {', '.join(GUIDES)}.",
            param="guided_decoding_guide_type",
        )
    return {GUIDES[kind]: True if kind == "json" else guide or ""}


def _log_probs(piece: Piece) -> list[Tensor]:
    """Of the tokens that were taken; the sum, and one by one, rows filled up with 0."""
    sums = [part.cumulative_logprob or 0.0 for part in piece.parts]
    rows = [
        [next(iter(position.values()))["logprob"] for position in part.logprobs or []]
        for part in piece.parts
    ]
    width = max(map(len, rows), default=0)
    flat = tuple(value for row in rows for value in [*row, *[0.0] * (width - len(row))])
    return [
        numbers("cum_log_probs", "FP32", sums),
        Tensor("output_log_probs", "FP32", (len(rows), width), flat),
    ]
