"""
The one door to vLLM: start its engine, wire its serving objects, render its prompts.

Import this package only after the environment is set (`launcher.py` does): vLLM reads much of its
environment while it is imported. Written against vLLM 0.32; tests/engine/test_vllm_contract.py
holds one check for each thing that is called here.
"""

from vllm import __version__ as vllm_version
from vllm.utils.gc_utils import freeze_gc_heap

from gemma_serve.engine.vllm.endings import translated
from gemma_serve.engine.vllm.engine import Engine, start, wire
from gemma_serve.engine.vllm.errors import PARSE_ERRORS, translate
from gemma_serve.engine.vllm.generate import generate
from gemma_serve.engine.vllm.logprobs import (
    PromptScores,
    bos_token_id,
    continue_greedily,
    encode,
    score_prompt,
)
from gemma_serve.engine.vllm.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    ResponsesRequest,
    TokenizeRequest,
    response_events,
    with_cancellation,
)
from gemma_serve.engine.vllm.render import RenderedPrompt, render_chat, renderer_without_engine
from gemma_serve.engine.vllm.sampling import SAMPLING, check_values
from gemma_serve.engine.vllm.workers import follow

__all__ = [
    "PARSE_ERRORS",
    "SAMPLING",
    "AnthropicCountTokensRequest",
    "AnthropicMessagesRequest",
    "ChatRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "Engine",
    "PromptScores",
    "RenderedPrompt",
    "ResponsesRequest",
    "TokenizeRequest",
    "bos_token_id",
    "check_values",
    "continue_greedily",
    "encode",
    "follow",
    "freeze_gc_heap",
    "generate",
    "render_chat",
    "renderer_without_engine",
    "response_events",
    "score_prompt",
    "start",
    "translate",
    "translated",
    "vllm_version",
    "wire",
    "with_cancellation",
]
