"""
The tensors of a python backend that runs `transformers.generate`.

What a request leaves out is what transformers would take: the checkpoint's generation_config.json,
then transformers' own defaults (GenerationConfig._get_default_generation_params, 5.19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gemma_serve.engine.pieces import ChatPrompt, Piece, TextPrompt
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
from gemma_serve.triton.tensors import Tensor

MAX_LENGTH = 20
MAX_TEXTS = 128
DEFAULTS = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
}


class PythonBackend(Contract):
    """text_input -> text_output, the generated text alone, stripped."""

    name = "python-backend"
    backend = "python"
    decoupled = False
    rivals = (frozenset({"max_length", "max_new_tokens"}),)
    inputs = (
        TensorSpec("text_input", STRING, (-1,), optional=False),
        TensorSpec("max_length", "INT32"),
        TensorSpec("max_new_tokens", "INT32"),
        TensorSpec("do_sample", "BOOL"),
        TensorSpec("top_k", "INT32"),
        TensorSpec("top_p", "FP32"),
        TensorSpec("temperature", "FP32"),
        TensorSpec("repetition_penalty", "FP32"),
        TensorSpec("stream", "BOOL"),
    )
    outputs = (TensorSpec("text_output", STRING, (-1,)), TOOL_CALLS)

    def read(
        self,
        inputs: Inputs,
        parameters: Mapping[str, Any],
        generation_config: Mapping[str, Any],
    ) -> Call:
        """One prompt a text; max_new_tokens wins over max_length, which counts the prompt too."""
        texts = inputs.texts("text_input")
        stream = bool(inputs.flag("stream"))
        _check_texts(texts, stream)
        prompts = tuple(read_prompt(text, parameters, lists_are_chats=True) for text in texts)
        max_new_tokens = at_least("max_new_tokens", inputs.integer("max_new_tokens"), 1)
        max_length = None
        if max_new_tokens is None:
            _check_countable(prompts)
            asked = inputs.integer("max_length")
            max_length = at_least("max_length", MAX_LENGTH if asked is None else asked, 1)
        return Call(
            prompts,
            _sampling(inputs, generation_config) | given(max_tokens=max_new_tokens),
            stream,
            max_total_tokens=max_length,
            strips=True,
        )

    def write(self, call: Call, texts: Sequence[str], pieces: Sequence[Piece]) -> list[Tensor]:
        """The texts, and tool calls where the request had tools."""
        return [text_output(texts), *tool_calls(call, pieces)]


def _check_texts(texts: Sequence[str], stream: bool) -> None:
    most = 1 if stream else MAX_TEXTS
    if not 1 <= len(texts) <= most:
        raise RequestError(
            f"text_input has {len(texts)} texts; send at least 1 and at most {most}"
            f"{' when streaming' if stream else ''}.",
            param="text_input",
        )


def _check_countable(prompts: Sequence[TextPrompt | ChatPrompt]) -> None:
    """vLLM's chat, which parses tool calls, takes the answer's length and not the sum."""
    if any(isinstance(prompt, ChatPrompt) and prompt.is_parsed for prompt in prompts):
        raise RequestError(
            "max_length can't be counted with tools or chat_template_kwargs; send max_new_tokens.",
            param="max_new_tokens",
        )


def _sampling(inputs: Inputs, generation_config: Mapping[str, Any]) -> dict[str, Any]:
    sent = given(
        do_sample=inputs.flag("do_sample"),
        temperature=inputs.number("temperature"),
        top_k=inputs.integer("top_k"),
        top_p=inputs.number("top_p"),
        repetition_penalty=inputs.number("repetition_penalty"),
    )
    known = {name: generation_config[name] for name in DEFAULTS if generation_config.get(name)}
    values = {**DEFAULTS, **known, **sent}
    _check(values)
    penalty = {"repetition_penalty": values["repetition_penalty"]}
    if not values["do_sample"]:
        return penalty | {"temperature": 0.0}
    sampling = {"temperature": values["temperature"], "top_k": values["top_k"]}
    # transformers keeps at least one token for top_p 0; vLLM has another way to say so.
    sampling |= {"top_p": values["top_p"]} if values["top_p"] else {"top_k": 1}
    return penalty | sampling


def _check(values: Mapping[str, Any]) -> None:
    """What transformers raises ValueError for; sampling values count only when sampling."""
    rules = [("repetition_penalty", values["repetition_penalty"] > 0, "greater than 0")]
    if values["do_sample"]:
        rules += [
            ("temperature", values["temperature"] > 0, "greater than 0; do_sample false is greedy"),
            ("top_k", values["top_k"] >= 0, "0 or more"),
            ("top_p", 0 <= values["top_p"] <= 1, "from 0 to 1"),
        ]
    for name, holds, allowed in rules:
        if not holds:
            raise RequestError(f"{name} is {values[name]:g}; it must be {allowed}.", param=name)
