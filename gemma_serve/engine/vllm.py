"""
The one door to vLLM: start its engine, wire its serving objects, translate its errors.

Import this module only after the environment is set (`launcher.py` does): vLLM reads much of its
environment while it is imported. Written against vLLM 0.32; tests/engine/test_vllm_contract.py
holds one check for each thing that is called here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import logging
import time
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from starlette.datastructures import State
from vllm import AsyncEngineArgs, AsyncLLMEngine
from vllm import __version__ as vllm_version
from vllm.config import VllmConfig
from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.models.protocol import LoRAModulePath
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.entrypoints.serve.utils.api_utils import with_cancellation as vllm_with_cancellation
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.engine.exceptions import EngineDeadError

from gemma_serve.engine.timeline import Timeline
from gemma_serve.errors import (
    GemmaServeError,
    InternalError,
    NotFoundError,
    RequestError,
    UnavailableError,
)

# What vLLM's request models raise while a body is parsed, beside pydantic's own error.
PARSE_ERRORS = (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError)

# vLLM's advice for its own command line, in our words.
ADVICE = {
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set': (
        "This server has no tool parser for its model; "
        "set chat.tool_call_parser in the profile, or send tool_choice 'none'."
    ),
    'tool_choice="required" requires --tool-call-parser to be set': (
        "This server has no tool parser for its model; set chat.tool_call_parser in the profile."
    ),
}

__all__ = [
    "PARSE_ERRORS",
    "AnthropicCountTokensRequest",
    "AnthropicMessagesRequest",
    "ChatCompletionRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "Engine",
    "ResponsesRequest",
    "TokenizeRequest",
    "engine_fields",
    "freeze_gc_heap",
    "refusal_in_event",
    "response_events",
    "start",
    "translate",
    "vllm_version",
    "wire",
    "with_cancellation",
]


Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def with_cancellation(
    handler: Callable[Parameters, Awaitable[Answer]],
) -> Callable[Parameters, Awaitable[Answer]]:
    """Cancel a route's handler, and with it the engine's work, when the client leaves."""
    wrapped: Callable[Parameters, Awaitable[Answer]] = vllm_with_cancellation(handler)
    return wrapped


class Engine:
    """A running AsyncLLMEngine and the serving objects that vLLM wired to it."""

    def __init__(self, client: AsyncLLMEngine) -> None:
        self.client = client
        self.serving = State()

    @property
    def dead(self) -> bool:
        """Whether the engine's processes are gone or failed."""
        return bool(self.client.errored)

    def served_model_names(self) -> list[str]:
        """The names that clients may use as `model`, adapters included."""
        models = self.serving.openai_serving_models
        return [path.name for path in models.base_model_paths] + list(models.lora_requests)

    def facts(self) -> dict[str, Any]:
        """What vLLM made of the arguments, as it says itself."""
        config: VllmConfig = self.client.vllm_config
        return {
            "vllm_version": vllm_version,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization,
            "kv_cache_dtype": config.cache_config.cache_dtype,
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "num_kv_cache_blocks": config.cache_config.num_gpu_blocks,
            "kv_cache_block_tokens": config.cache_config.block_size,
        }

    async def answer(self, call: Awaitable[Any]) -> Any:
        """
        Await a serving object.

        Returns:
            A pydantic response, or an async generator of server-sent events.

        Raises:
            GemmaServeError: vLLM refused the request or failed on it.
        """
        try:
            result = await call
        except Exception as error:
            raise translate(error) from error
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # vLLM answers a cancelled request with an error; nobody is left to read it.
            raise asyncio.CancelledError
        if isinstance(result, ErrorResponse):
            raise _refusal(result)
        return result

    async def log_stats(self) -> None:
        """Log throughput since the last call (at INFO), and forget what was collected for it."""
        await self.client.do_log_stats()

    def shutdown(self, timeout_s: float) -> None:
        """Stop the engine's processes; what still runs after `timeout_s` is killed."""
        self.client.shutdown(timeout=timeout_s)


def start(engine_kwargs: Mapping[str, Any], timeline: Timeline) -> Engine:
    """
    Start vLLM's processes and load the model; blocks until the KV cache stands.

    Raises:
        Exception: whatever vLLM raises; `launcher.py` makes one sentence of it.
    """

    class TimedEngineArgs(AsyncEngineArgs):  # type: ignore[misc]  # vllm is not typed for us
        def create_engine_config(self, *args: Any, **kwargs: Any) -> VllmConfig:
            with timeline.phase("config"):
                return super().create_engine_config(*args, **kwargs)

    args = TimedEngineArgs(**_with_config_objects(engine_kwargs))
    context = UsageContext.OPENAI_API_SERVER
    return Engine(AsyncLLMEngine.from_engine_args(args, usage_context=context))


def _with_config_objects(engine_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's maps as the config objects that AsyncEngineArgs wants; it converts only some."""
    return {
        field.name: _config_object(field.type, engine_kwargs[field.name])
        for field in dataclasses.fields(AsyncEngineArgs)
        if field.name in engine_kwargs
    }


def _config_object(type_: Any, value: Any) -> Any:
    options = [option for option in (type_, *typing.get_args(type_)) if isinstance(option, type)]
    config = next((option for option in options if dataclasses.is_dataclass(option)), None)
    return config(**value) if config and isinstance(value, dict) else value


async def wire(
    engine: Engine,
    engine_kwargs: Mapping[str, Any],
    frontend_kwargs: Mapping[str, Any],
    observe_render_s: Callable[[float], None],
) -> None:
    """Build vLLM's serving objects (chat, completions, responses, messages, ...) on the engine."""
    args = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    for name, value in (dict(engine_kwargs) | dict(frontend_kwargs)).items():
        setattr(args, name, value)
    if isinstance(args.served_model_name, str):
        args.served_model_name = [args.served_model_name]
    if args.lora_modules:
        args.lora_modules = [LoRAModulePath(**module) for module in args.lora_modules]
    # create_engine_config has put the reasoning parser there; serving objects read it from args.
    args.structured_outputs_config = engine.client.vllm_config.structured_outputs_config
    for handler in logging.getLogger("vllm").handlers:
        handler.addFilter(_ClientFaults())
    _time_rendering(engine.client.renderer, observe_render_s)
    tasks = await engine.client.get_supported_tasks()
    await init_app_state(engine.client, engine.serving, args, tasks)


def _time_rendering(renderer: Any, observe_s: Callable[[float], None]) -> None:
    render = renderer.render_messages_async

    async def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return await render(*args, **kwargs)
        finally:
            observe_s(time.perf_counter() - began)

    renderer.render_messages_async = timed


def translate(error: Exception) -> GemmaServeError:
    """An exception of vLLM's as one of ours."""
    if isinstance(error, GemmaServeError):
        return error
    if isinstance(error, EngineDeadError):
        return UnavailableError(
            "The engine is dead and the server is going down; retry on another instance.",
            code="engine_dead",
        )
    return _refusal(create_error_response(error))


def refusal_in_event(event: str) -> GemmaServeError | None:
    """The error that a server-sent event carries (`data: {"error": ...}`), if it carries one."""
    if not event.startswith('data: {"error"'):
        return None
    return _refusal(ErrorResponse.model_validate_json(event.removeprefix("data: ")))


def _refusal(response: ErrorResponse) -> GemmaServeError:
    error = response.error
    message = ADVICE.get(error.message, error.message)
    match error.code:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(message, code="model_not_found", param=error.param)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return UnavailableError(message, code="engine_overloaded", retry_after_s=1)
        case HTTPStatus.NOT_IMPLEMENTED:
            return RequestError(message, code="not_supported", param=error.param)
        case code if code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RequestError(message, param=error.param)
    return InternalError(message)


class _ClientFaults(logging.Filter):
    """Keeps what a client did wrong, and its words, out of the log: the client is told."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_refusal = str(record.msg).startswith("Error with model")
        return not (is_refusal or isinstance(error, VLLMClientError))


async def response_events(events: AsyncIterator[Any], state: State) -> AsyncGenerator[str, None]:
    """
    The Responses API's event objects as server-sent events; the other protocols come as text.

    The usage stands in the last event only; it is put where the other protocols leave it, in
    `state.request_metadata`.
    """
    async for event in events:
        if usage := getattr(getattr(event, "response", None), "usage", None):
            state.request_metadata.final_usage_info = usage
        yield f"event: {event.type}\ndata: {event.model_dump_json(by_alias=True)}\n\n"


def engine_fields() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each field of AsyncEngineArgs, to check a profile's `engine:` against."""
    return {
        field.name: _field_schema(field)
        for field in dataclasses.fields(AsyncEngineArgs)
        if not field.name.startswith("_")
    }


def _field_schema(field: dataclasses.Field[Any]) -> dict[str, Any]:
    schema = _type_schema(field.type)
    # Some fields say `int` and default to None.
    return {"anyOf": [schema, {"type": "null"}]} if schema and field.default is None else schema


_SIMPLE = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
}


def _type_schema(type_: Any) -> dict[str, Any]:
    """JSON Schema of a type annotation; {} where YAML could not say or vLLM checks it better."""
    if type_ in _SIMPLE:
        return dict(_SIMPLE[type_])
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        options = [_type_schema(argument) for argument in arguments]
        return {"anyOf": options} if all(options) else {}
    if origin in (list, set, tuple):
        return {"type": "array", "items": _type_schema(arguments[0])}
    if origin is dict or type_ is dict:
        return {"type": "object"}
    if dataclasses.is_dataclass(type_):
        names: dict[str, Any] = {field.name: {} for field in dataclasses.fields(type_)}
        return {"type": "object", "properties": names, "additionalProperties": False}
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return {"type": ["string", "integer"]}
    return {}


if __name__ == "__main__":
    # `engine/fields.py` asks in a process of its own, so that nothing is imported too early.
    print(json.dumps({"version": vllm_version, "fields": engine_fields()}))
