"""
From a prompt to the engine's own outputs, for protocols that vLLM has no serving object for.

The prompt goes through vLLM's renderer, and so through ours; sampling goes through the request
models of the completions and chat APIs, so that one set of checks holds for every protocol.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import PIL.Image
from pydantic import ValidationError
from starlette.requests import Request
from vllm import SamplingParams
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens

from gemma_serve.engine.pieces import Ask, ChatPrompt, Part, Piece, TextPrompt, Times
from gemma_serve.engine.vllm.endings import raise_if_unfinished
from gemma_serve.engine.vllm.errors import refusal, translate
from gemma_serve.engine.vllm.protocol import ChatRequest, CompletionRequest
from gemma_serve.engine.vllm.sampling import check_sampling
from gemma_serve.errors import RequestError

if TYPE_CHECKING:
    from gemma_serve.engine.vllm.engine import Engine

# Where vLLM's chat would take what is left out from generation_config.json.
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


async def generate(engine: Engine, ask: Ask) -> AsyncGenerator[Piece, None]:
    """
    Generate, piece by piece when streaming, else in one.

    Raises:
        GemmaServeError: the request was refused or failed, perhaps after the first pieces.
    """
    try:
        request = _request(engine, ask)
        engine.request_limits.check(request)
        engine.check_model(ask.model)
        if isinstance(ask.prompt, ChatPrompt) and ask.prompt.is_parsed:
            async with ask.deadline.enforced():
                piece = await _parsed(engine, ask, request)
            yield piece
            return
        # For the renderer a length beyond the context would be an error; Triton's backends stop
        # where the context ends.
        wanted, request.max_tokens = request.max_tokens, None
        async with ask.deadline.enforced():
            engine_input = await _rendered(engine, ask, request)
        request.max_tokens = wanted
        async with aclosing(_outputs(engine, ask, request, engine_input)) as pieces:
            async for piece in pieces:
                yield piece
    except ValidationError as error:
        raise _invalid(error) from None
    except Exception as error:
        raise translate(error) from error


def _invalid(error: ValidationError) -> RequestError:
    """The first mistake in one sentence, which does not repeat what was sent as pydantic's does."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    # What another branch of a union would have needed is no mistake of the client's.
    first = next((one for one in mistakes if one["type"] != "missing"), mistakes[0])
    fields = [str(part) for part in first["loc"] if "[" not in str(part)]
    problem = first["msg"].removeprefix("Value error, ").rstrip(".")
    param = ".".join(fields) or None
    return RequestError(f"{param or 'The request'!r}: {problem}.", param=param)


def _request(engine: Engine, ask: Ask) -> CompletionRequest | ChatRequest:
    check_sampling(ask.sampling)
    shared = {**ask.sampling, "model": ask.model, "stream": ask.stream, "priority": ask.priority}
    prompt = ask.prompt
    if isinstance(prompt, TextPrompt):
        # No text at all is a lone BOS, as for every tokenizer; vLLM's request takes no empty text.
        text_or_ids = prompt.text or engine.prompts.guard.one_bos([])
        completion: CompletionRequest = CompletionRequest.model_validate(
            {**shared, "prompt": text_or_ids}
        )
        return completion
    if (logprobs := shared.pop("logprobs", None)) is not None:
        shared |= {"logprobs": True, "top_logprobs": logprobs}
    shared |= {"messages": prompt.messages, "request_id": ask.request_id}
    for name, value in (
        ("tools", prompt.tools),
        ("tool_choice", prompt.tool_choice),
        ("chat_template_kwargs", prompt.template_kwargs),
    ):
        if value is not None:
            shared[name] = value
    if prompt.is_parsed:
        # A call is known when it is complete.
        shared = {**NEUTRAL, **shared, "stream": False}
    chat: ChatRequest = ChatRequest.model_validate(shared)
    return chat


async def _parsed(engine: Engine, ask: Ask, request: CompletionRequest | ChatRequest) -> Piece:
    """Tool calls and thinking are for vLLM's chat to take apart."""
    chat, began_s = engine.serving.openai_serving_chat, time.perf_counter()
    traced = _with_headers(ask.trace_headers)
    response = await engine.answer(chat.create_chat_completion(request, traced))
    return Piece(
        parts=tuple(
            Part(
                choice.message.content or "",
                # Of several answers, the usage has only the sum.
                response.usage.completion_tokens // len(response.choices),
                choice.finish_reason,
                tool_calls=[call.model_dump() for call in choice.message.tool_calls] or None,
                index=choice.index,
            )
            for choice in response.choices
        ),
        prompt="",
        num_prompt_tokens=response.usage.prompt_tokens,
        finished=True,
        # vLLM's chat keeps to itself what of this was the queue.
        times=Times(0.0, time.perf_counter() - began_s),
    )


def _with_headers(headers: Mapping[str, str]) -> Request:
    """All that vLLM's chat reads of a request beside its body."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


async def _rendered(engine: Engine, ask: Ask, request: CompletionRequest | ChatRequest) -> Any:
    """The prompt as the engine takes it."""
    online = engine.serving.online_renderer
    prompt = ask.prompt
    if isinstance(prompt, ChatPrompt):
        result = await online.render_chat(request)
        inputs = result if isinstance(result, ErrorResponse) else result[1]
    elif prompt.images:
        media = await _media(engine, prompt)
        text = {"prompt": prompt.text, "multi_modal_data": media}
        inputs = await online.preprocess_cmpl(request, [text])
    else:
        inputs = await online.render_completion(request)
    if isinstance(inputs, ErrorResponse):
        raise refusal(inputs)
    return inputs[0]


async def _media(engine: Engine, prompt: TextPrompt) -> dict[str, list[PIL.Image.Image]]:
    urls = await engine.prompts.load_images(prompt.images)
    # Our own BMP of checked pixels, whatever the client has sent.
    return {"image": [PIL.Image.open(io.BytesIO(_bytes(url))) for url in urls]}


def _bytes(data_url: str) -> bytes:
    return base64.b64decode(data_url.partition(",")[2])


# --- the engine


async def _outputs(
    engine: Engine, ask: Ask, request: CompletionRequest | ChatRequest, engine_input: Any
) -> AsyncGenerator[Piece, None]:
    num_prompt_tokens = len(engine_input["prompt_token_ids"])
    params = _sampling_params(engine, ask, request, num_prompt_tokens)
    prompt = str(engine_input.get("prompt") or "")
    lora = engine.serving.openai_serving_models.lora_requests.get(ask.model)
    outputs = engine.client.generate(
        engine_input,
        params,
        ask.request_id,
        lora_request=lora,
        trace_headers=ask.trace_headers or None,
        priority=ask.priority,
    )

    def piece(output: Any) -> Piece:
        return Piece(
            parts=tuple(_part(part) for part in output.outputs),
            prompt=prompt,
            num_prompt_tokens=num_prompt_tokens,
            finished=output.finished,
            times=_times(output.metrics) if output.finished else None,
        )

    stop = partial(engine.stop, ask.request_id)
    async with aclosing(outputs):
        with ask.deadline.alarm(stop, first_token=ask.stream):
            first = piece(await anext(outputs))
        yield first
        with ask.deadline.alarm(stop):
            async for output in outputs:
                yield piece(output)


def _sampling_params(
    engine: Engine, ask: Ask, request: CompletionRequest | ChatRequest, num_prompt_tokens: int
) -> SamplingParams:
    wanted = request.max_tokens
    if ask.max_total_tokens is not None:
        wanted = _room(ask.max_total_tokens, num_prompt_tokens)
    at_most = engine.serving.openai_serving_completion.override_max_tokens
    max_tokens = get_max_tokens(engine.max_model_len, wanted, num_prompt_tokens, {}, at_most)
    return request.to_sampling_params(max_tokens, {})


def _room(max_length: int, num_prompt_tokens: int) -> int:
    """What `max_length`, which counts the prompt too, leaves for the answer."""
    if num_prompt_tokens >= max_length:
        raise RequestError(
            f"The prompt has {num_prompt_tokens} tokens and max_length {max_length} counts prompt "
            "and answer; send a larger max_length, or max_new_tokens.",
            param="max_length",
        )
    return max_length - num_prompt_tokens


def _part(output: Any) -> Part:
    raise_if_unfinished(output.finish_reason)
    return Part(
        output.text,
        len(output.token_ids),
        output.finish_reason,
        output.cumulative_logprob,
        None if output.logprobs is None else [_logprobs(at) for at in output.logprobs],
        index=output.index,
    )


def _logprobs(position: Mapping[int, Any]) -> dict[str, Any]:
    return {str(token_id): dataclasses.asdict(one) for token_id, one in position.items()}


def _times(stats: Any) -> Times | None:
    if stats is None:
        return None
    return Times(
        max(stats.scheduled_ts - stats.queued_ts, 0.0),
        max(stats.last_token_ts - stats.scheduled_ts, 0.0),
    )
