"""
The tensors of Triton's vLLM backend.

Source: https://github.com/triton-inference-server/vllm_backend (src/utils/request.py,
docs/additional_outputs.md), with its defaults: those of vLLM's SamplingParams, 16 tokens among
them, and the prompt before the answer unless streaming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gemma_serve.engine.pieces import Piece, TextPrompt
from gemma_serve.errors import RequestError
from gemma_serve.triton.contracts.chat import CHAT_PARAMETERS, read_prompt
from gemma_serve.triton.contracts.contract import (
    STRING,
    Call,
    Contract,
    Inputs,
    TensorSpec,
    text_output,
)
from gemma_serve.triton.contracts.tool_calls import TOOL_CALLS, tool_calls
from gemma_serve.triton.tensors import Tensor, numbers, strings

MAX_TOKENS = 16
RETURNS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)


class VllmBackend(Contract):
    """text_input and sampling_parameters -> text_output, and what the return_* flags ask for."""

    name = "vllm-backend"
    backend = "vllm"
    decoupled = True
    parameters = None
    inputs = (
        TensorSpec("text_input", STRING, optional=False),
        TensorSpec("image", STRING, (-1,)),
        TensorSpec("stream", "BOOL"),
        TensorSpec("sampling_parameters", STRING),
        TensorSpec("exclude_input_in_output", "BOOL"),
        *(TensorSpec(name, "BOOL") for name in RETURNS),
    )
    outputs = (
        TensorSpec("text_output", STRING, (-1,)),
        TensorSpec("finish_reason", STRING, (-1,)),
        TensorSpec("cumulative_logprob", "FP32", (-1,)),
        TensorSpec("logprobs", STRING, (-1,)),
        TensorSpec("num_input_tokens", "UINT32", (1,)),
        TensorSpec("num_output_tokens", "UINT32", (-1,)),
        TOOL_CALLS,
    )

    def defaults(
        self,
        values: Mapping[str, Tensor],
        sent: Mapping[str, Tensor],
        parameters: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Sampling may come as parameters; and the prompt before an answer excludes a stream."""
        left = super().defaults(values, sent, parameters)
        if any(name not in CHAT_PARAMETERS for name in parameters):
            left.pop("sampling_parameters", None)
        if Inputs(sent).flag("exclude_input_in_output") is False:
            left.pop("stream", None)
        if Inputs({**left, **sent}).flag("stream"):
            left.pop("exclude_input_in_output", None)
        return left

    def read(
        self,
        inputs: Inputs,
        parameters: Mapping[str, Any],
        generation_config: Mapping[str, Any],  # noqa: ARG002  # the backend does not read it
    ) -> Call:
        """Sampling comes from the tensor, or else from the request's parameters."""
        stream = bool(inputs.flag("stream"))
        sampling = _sampling(inputs.text("sampling_parameters"), parameters)
        adapter = sampling.pop("lora_name", None)
        prompt = read_prompt(inputs.text("text_input") or "", parameters, lists_are_chats=False)
        if images := inputs.texts("image"):
            prompt = _with_images(prompt, images)
        return Call(
            (prompt,),
            sampling,
            stream,
            prepends_prompt=_prepends(inputs.flag("exclude_input_in_output"), stream),
            adapter=None if adapter is None else str(adapter),
            wants=frozenset(name for name in RETURNS if inputs.flag(name)),
        )

    def write(self, call: Call, texts: Sequence[str], pieces: Sequence[Piece]) -> list[Tensor]:
        """Counts and log probabilities are those of this response alone."""
        (piece,) = pieces
        outputs = [text_output(texts)]
        # One by one: a response comes with every token, and most ask for few of these.
        for name in RETURNS:
            if name in call.wants:
                outputs.append(_output(name, piece))
        return [*outputs, *tool_calls(call, pieces)]


def _output(flag: str, piece: Piece) -> Tensor:
    """The output that a return_* flag asks for."""
    parts = piece.parts
    match flag:
        case "return_finish_reason":
            return strings("finish_reason", [str(part.finish_reason) for part in parts])
        case "return_cumulative_logprob":
            sums = [_known(part.cumulative_logprob) for part in parts]
            return numbers("cumulative_logprob", "FP32", sums)
        case "return_logprobs":
            return strings("logprobs", [json.dumps(part.logprobs) for part in parts])
        case "return_num_input_tokens":
            return numbers("num_input_tokens", "UINT32", [piece.num_prompt_tokens])
    return numbers("num_output_tokens", "UINT32", [part.num_tokens for part in parts])


def _known(logprob: float | None) -> float:
    # Without `logprobs` in the sampling parameters vLLM sums nothing up.
    return float("nan") if logprob is None else logprob


def _prepends(exclude: bool | None, stream: bool) -> bool:
    if stream and exclude is False:
        raise RequestError(
            "exclude_input_in_output false is not allowed when streaming; leave it out, or send "
            "stream false.",
            param="exclude_input_in_output",
        )
    return not stream and not exclude


def _sampling(tensor: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent, with the strings that a client writes numbers in left for vLLM's models."""
    if tensor is None:
        ours = {name: parameters[name] for name in parameters if name not in CHAT_PARAMETERS}
        return {"max_tokens": MAX_TOKENS, **ours, **_structured(ours)}
    try:
        sent = json.loads(tensor)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise RequestError(
            "sampling_parameters is no JSON object in a string; send for example "
            '"{\\"temperature\\": 0.1, \\"max_tokens\\": 100}".',
            param="sampling_parameters",
        )
    return {"max_tokens": MAX_TOKENS, **sent, **_structured(sent)}


def _structured(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The backend takes structured_outputs as JSON in a string."""
    value = sent.get("structured_outputs")
    if not isinstance(value, str):
        return {}
    try:
        return {"structured_outputs": json.loads(value)}
    except (ValueError, RecursionError):
        raise RequestError(
            "structured_outputs is no JSON in a string.", param="structured_outputs"
        ) from None


def _with_images(prompt: Any, images: Sequence[str]) -> TextPrompt:
    if not isinstance(prompt, TextPrompt):
        raise RequestError(
            "image goes with plain text; in a chat, send images as image_url parts.", param="image"
        )
    return TextPrompt(prompt.text, tuple(images))
