"""The output that no backend of Triton's has: the tool calls of a chat with tools."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gemma_serve.engine.pieces import ChatPrompt, Piece
from gemma_serve.triton.contracts.contract import STRING, Call, TensorSpec
from gemma_serve.triton.tensors import Tensor, strings

TOOL_CALLS = TensorSpec("tool_calls", STRING, (-1,))


def tool_calls(call: Call, pieces: Sequence[Piece]) -> list[Tensor]:
    """One JSON list an answer, as OpenAI writes tool calls; nothing where there are no tools."""
    has_tools = any(isinstance(prompt, ChatPrompt) and prompt.tools for prompt in call.prompts)
    if not has_tools:
        return []
    parts = [part for piece in pieces for part in piece.parts]
    return [strings(TOOL_CALLS.name, [json.dumps(part.tool_calls or []) for part in parts])]
