"""A running AsyncLLMEngine, and vLLM's serving objects on it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import typing
from argparse import Namespace
from collections.abc import Awaitable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.datastructures import State
from vllm import AsyncEngineArgs
from vllm import __version__ as vllm_version
from vllm.config import VllmConfig
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.models.protocol import LoRAModulePath
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser

from gemma_serve.chat.prompts import PromptLayer
from gemma_serve.engine.request_limits import RequestLimits
from gemma_serve.engine.timeline import Timeline
from gemma_serve.engine.vllm.children import tie_children
from gemma_serve.engine.vllm.endings import let_failures_out, translated
from gemma_serve.engine.vllm.errors import ClientFaults, refusal
from gemma_serve.engine.vllm.grammars import CheckedEngine, install_grammar_checks
from gemma_serve.engine.vllm.renderer import install_renderer
from gemma_serve.engine.vllm.steps import Steps, request_shape
from gemma_serve.errors import GemmaServeError, NotFoundError

if TYPE_CHECKING:
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.schema import Profile

# The serving objects that generate.
GENERATING = (
    "openai_serving_chat",
    "openai_serving_completion",
    "openai_serving_responses",
    "anthropic_serving_messages",
)


class Engine:
    """A running AsyncLLMEngine and the serving objects that vLLM wired to it."""

    def __init__(self, client: CheckedEngine, steps: Steps) -> None:
        self.client = client
        self.steps = steps
        self.serving = State()
        self._stopping: set[asyncio.Future[None]] = set()  # asyncio alone would forget them
        # What a request may set in the chat template; `wire` finds out.
        self.template_variables: frozenset[str] = frozenset()
        # What the checkpoint says of sampling, by transformers' names.
        self.generation_config = client.vllm_config.model_config.try_get_generation_config()

    @property
    def prompts(self) -> PromptLayer:
        """The prompt layer that vLLM's renderer goes through."""
        layer: PromptLayer = self.client.renderer.prompts
        return layer

    @cached_property
    def request_limits(self) -> RequestLimits:
        """How much a request's fields may hold."""
        config = self.client.vllm_config
        return RequestLimits.of(
            self.prompts.limits,
            max_num_seqs=config.scheduler_config.max_num_seqs,
            max_logprobs=config.model_config.max_logprobs,
            stop_token_ids=self.prompts.stop_token_ids,
        )

    @property
    def max_model_len(self) -> int:
        """The context's length in tokens."""
        length: int = self.client.vllm_config.model_config.max_model_len
        return length

    @property
    def max_num_seqs(self) -> int:
        """Sequences that all replicas together run at once."""
        batch: int = self.client.vllm_config.scheduler_config.max_num_seqs
        return batch * self.num_replicas

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens that all replicas together compute in one step."""
        step: int = self.client.vllm_config.scheduler_config.max_num_batched_tokens
        return step * self.num_replicas

    @property
    def num_replicas(self) -> int:
        """Engine cores, each of which takes steps of its own."""
        return int(self.client.vllm_config.parallel_config.data_parallel_size)

    def num_prefill_tokens(self) -> int:
        """Prompt tokens of all requests without a first token yet."""
        return int(self.client.get_num_queued_tokens())

    @property
    def dead(self) -> bool:
        """Whether the engine's processes are gone or failed."""
        return bool(self.client.errored)

    def served_model_names(self) -> list[str]:
        """The names that clients may use as `model`, adapters included."""
        models = self.serving.openai_serving_models
        return [path.name for path in models.base_model_paths] + list(models.lora_requests)

    def adapter_names(self) -> list[str]:
        """The names of the LoRA adapters that are loaded."""
        return list(self.serving.openai_serving_models.lora_requests)

    @property
    def has_priorities(self) -> bool:
        """Whether a request's priority decides when it runs."""
        return bool(self.client.vllm_config.scheduler_config.policy == "priority")

    def check_model(self, name: str | None) -> None:
        """
        Refuse a `model` that is not served; none at all means the first.

        Raises:
            NotFoundError: there is no such name.
        """
        names = self.served_model_names()
        if name and name not in names:
            raise NotFoundError(
                f"The model {name[:200]!r} is not served here; use {' or '.join(names)}.",
                code="model_not_found",
                param="model",
            )

    def facts(self) -> dict[str, Any]:
        """What vLLM made of the arguments, as it says itself."""
        config: VllmConfig = self.client.vllm_config
        return {
            "vllm_version": vllm_version,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "quantization": config.model_config.quantization,
            "kv_cache_dtype": config.cache_config.cache_dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "kv_cache_tokens": config.cache_config.kv_cache_size_tokens,
            "kv_cache_max_concurrency": config.cache_config.kv_cache_max_concurrency,
            "num_kv_cache_blocks": config.cache_config.num_gpu_blocks,
            "kv_cache_block_tokens": config.cache_config.block_size,
            "images_per_prompt": self.prompts.max_images if self.prompts.images else 0,
            "template_variables": sorted(self.template_variables),
        }

    async def answer(self, call: Awaitable[Any]) -> Any:
        """
        Await a serving object.

        Returns:
            A pydantic response, or an async generator of server-sent events.

        Raises:
            GemmaServeError: vLLM refused the request or failed on it.
        """
        with translated():
            result = await call
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # vLLM answers a cancelled request with an error; nobody is left to read it.
            raise asyncio.CancelledError
        if isinstance(result, ErrorResponse):
            raise refusal(result)
        return result

    def give_up_requests(self, error: GemmaServeError) -> None:
        """End every request that is in the engine's hands with this error, whatever its API."""
        self.client.output_processor.propagate_error(error)

    async def ping(self) -> None:
        """Return when every engine core has answered, which each does between two steps."""
        await self.client.get_weight_version()

    def num_requests(self) -> int:
        """Requests in the engine's hands, waiting and running."""
        return int(self.client.get_num_unfinished_requests())

    def open_requests(self) -> list[dict[str, Any]]:
        """The shapes of the requests in the engine's hands, oldest first; never what they say."""
        states = list(self.client.output_processor.request_states.values())
        return [request_shape(state) for state in states]

    def stop(self, request_id: str) -> None:
        """End a request; whoever awaits its outputs gets a last one, with finish reason abort."""
        stopping = asyncio.ensure_future(self.client.abort(request_id))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def log_stats(self) -> None:
        """Log throughput since the last call (at INFO), and forget what was collected for it."""
        await self.client.do_log_stats()

    async def aclose(self) -> None:
        """Let go of what was opened beside the engine's own processes."""
        await self.prompts.aclose()
        if self.client.grammars is not None:
            await self.client.grammars.aclose()

    def shutdown(self, timeout_s: float) -> None:
        """Stop the engine's processes; what still runs after `timeout_s` is killed."""
        self.client.shutdown(timeout=timeout_s)


def start(
    engine_kwargs: Mapping[str, Any], timeline: Timeline, profile: Profile, checkpoint: Checkpoint
) -> Engine:
    """
    Start vLLM's processes and load the model; blocks until the KV cache stands.

    Raises:
        Exception: whatever vLLM raises; `launcher.py` makes one sentence of it.
    """

    class TimedEngineArgs(AsyncEngineArgs):  # type: ignore[misc]  # vllm is not typed for us
        def create_engine_config(self, *args: Any, **kwargs: Any) -> VllmConfig:
            with timeline.phase("config"):
                return super().create_engine_config(*args, **kwargs)

    tie_children()
    install_renderer(profile, checkpoint)
    args = TimedEngineArgs(**with_config_objects(engine_kwargs))
    context = UsageContext.OPENAI_API_SERVER
    steps = Steps()
    # A recorder would turn statistics on again where the profile has turned them off.
    recorders = None if args.disable_log_stats else [steps.recorder]
    client = CheckedEngine.from_engine_args(args, usage_context=context, stat_loggers=recorders)
    install_grammar_checks(client, profile.limits.max_grammar_compile_s)
    return Engine(client, steps)


def with_config_objects(engine_kwargs: Mapping[str, Any]) -> dict[str, Any]:
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
) -> None:
    """Build vLLM's serving objects (chat, completions, responses, messages, ...) on the engine."""
    args = serving_arguments(engine_kwargs, frontend_kwargs)
    # create_engine_config has put the reasoning parser there; serving objects read it from args.
    args.structured_outputs_config = engine.client.vllm_config.structured_outputs_config
    for handler in logging.getLogger("vllm").handlers:
        handler.addFilter(ClientFaults())
    # vLLM would stop only at what generation_config.json names, and converted ones name too few.
    stops = engine.client.input_processor.generation_config_fields
    stops["eos_token_id"] = engine.prompts.stop_token_ids
    tasks = await engine.client.get_supported_tasks()
    await init_app_state(engine.client, engine.serving, args, tasks)
    for name in GENERATING:
        let_failures_out(getattr(engine.serving, name))
    online = engine.serving.online_renderer
    engine.template_variables = online.renderer.variables(online.chat_template)
    online.renderer.forces_tools = forces_tools(online.parser)


def forces_tools(parser: Any) -> bool:
    """Whether vLLM can make the model call a tool: its grammar for that must suit the parser."""
    tool_parser = parser.tool_parser_cls if parser else None
    return (
        tool_parser is None
        or tool_parser.supports_required_and_named
        or tool_parser.structural_tag_model is not None
    )


def serving_arguments(
    engine_kwargs: Mapping[str, Any], frontend_kwargs: Mapping[str, Any]
) -> Namespace:
    """All arguments of vLLM's own server, ours in place of its defaults."""
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    for name, value in (dict(engine_kwargs) | dict(frontend_kwargs)).items():
        setattr(args, name, value)
    if isinstance(args.served_model_name, str):
        args.served_model_name = [args.served_model_name]
    if args.lora_modules:
        args.lora_modules = [LoRAModulePath(**module) for module in args.lora_modules]
    return args
