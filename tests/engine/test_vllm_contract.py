"""
One check for each thing of vLLM's that `gemma_serve/engine/vllm.py` and the routes call.

A vLLM that moved one of them fails here, by name, before any server does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
from copy import copy
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.engine import request_limits
from gemma_serve.engine import vllm as door
from gemma_serve.engine.capacity import _GPU_MEMORY_UTILIZATION
from gemma_serve.engine.nodes import MASTER_PORT
from gemma_serve.engine.requirements import _PLUGINS
from gemma_serve.engine.vllm import (
    children,
    endings,
    engine,
    errors,
    fields,
    grammars,
    logprobs,
    protocol,
    render,
    renderer,
    steps,
    work,
    workers,
)
from gemma_serve.errors import (
    GemmaServeError,
    InternalError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from gemma_serve.gemma.family import REASONING_PARSERS, TOOL_CALL_PARSERS
from gemma_serve.profile.schema import Limits

# What engine/args.py and its siblings set, in the words of AsyncEngineArgs.
ENGINE_ARGS = [
    *("model", "served_model_name", "revision", "tokenizer", "trust_remote_code", "dtype"),
    *("quantization", "quantization_config", "kv_cache_dtype", "kv_cache_memory_bytes"),
    *("max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    *("distributed_executor_backend", "attention_config", "attention_backend"),
    *("language_model_only", "limit_mm_per_prompt", "speculative_config", "reasoning_parser"),
    *("enable_lora", "max_loras", "max_lora_rank"),
    *("max_num_queued_reqs", "scheduling_policy"),
    *("mm_processor_kwargs", "override_generation_config", "structured_outputs_config"),
]
# What engine/serving.py sets for the serving objects, and what `wire` sets itself.
FRONTEND_ARGS = [
    *("chat_template", "tool_call_parser", "enable_auto_tool_choice", "lora_modules"),
    *("default_chat_template_kwargs", "structured_outputs_config", "served_model_name", "model"),
    "exclude_tools_when_tool_choice_none",
]
# Attribute of the state -> its class, and the coroutines that routes await.
SERVING = {
    "openai_serving_chat": (
        "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat",
        ["create_chat_completion"],
    ),
    "openai_serving_completion": (
        "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion",
        ["create_completion"],
    ),
    "openai_serving_responses": (
        "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses",
        ["create_responses"],
    ),
    "anthropic_serving_messages": (
        "vllm.entrypoints.anthropic.serving:AnthropicServingMessages",
        ["create_messages", "count_tokens"],
    ),
    "serving_tokenization": (
        "vllm.entrypoints.serve.tokenize.serving:ServingTokenization",
        ["create_tokenize", "create_detokenize"],
    ),
    "openai_serving_models": (
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels",
        ["show_available_models"],
    ),
}


def of_vllm(name: str) -> Any:
    """A thing of vLLM's by `module:name`, where only the contract needs it."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def parameters(function: Any) -> list[str]:
    """Names of a function's parameters, without self."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def vllm_source(*parts: str) -> str:
    """The text of one of vLLM's files."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts).read_text(encoding="utf-8")


def test_version() -> None:
    """The door is written against this minor release; another one needs a look at all of this."""
    assert door.vllm_version.startswith("0.32.")


# --- the engine


def test_engine_is_made_from_engine_args() -> None:
    """AsyncLLMEngine.from_engine_args takes the arguments and the usage context."""
    assert {"engine_args", "usage_context"} <= {
        *parameters(grammars.AsyncLLMEngine.from_engine_args)
    }
    assert engine.UsageContext.OPENAI_API_SERVER.value == "OPENAI_API_SERVER"


def test_engine_config_is_made_by_a_method() -> None:
    """The timeline times create_engine_config, which from_engine_args calls."""
    assert "engine_args.create_engine_config(" in inspect.getsource(
        grammars.AsyncLLMEngine.from_engine_args
    )


@pytest.mark.parametrize("name", ENGINE_ARGS)
def test_engine_argument(name: str) -> None:
    """Each argument that a profile can become is a field of AsyncEngineArgs."""
    assert name in fields.engine_fields()


def test_share_of_a_gpu() -> None:
    """Of a GPU's memory vLLM takes what our check of the weights counts with."""
    assert engine.AsyncEngineArgs.gpu_memory_utilization == _GPU_MEMORY_UTILIZATION


def test_engine_client() -> None:
    """The running engine says whether it is dead, what it can do, and can be stopped in time."""
    client = grammars.AsyncLLMEngine

    assert isinstance(client.errored, property)
    assert inspect.iscoroutinefunction(client.get_supported_tasks)
    assert "timeout" in parameters(client.shutdown)
    assert callable(client.do_log_stats)
    assert "self.renderer = " in inspect.getsource(client.__init__)
    assert "self.vllm_config = " in inspect.getsource(client.__init__)


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("model_config", ["dtype", "quantization", "max_model_len"]),
        ("cache_config", ["cache_dtype", "num_gpu_blocks", "block_size"]),
        ("scheduler_config", ["max_num_seqs", "max_num_batched_tokens"]),
        ("structured_outputs_config", ["reasoning_parser"]),
    ],
)
def test_facts_of_the_config(section: str, names: list[str]) -> None:
    """What /v1/info says of the engine, and `wire` takes from it, stands in VllmConfig."""
    config = engine.VllmConfig.__dataclass_fields__[section].type
    classes = {"model_config": "ModelConfig", "cache_config": "CacheConfig"} | {
        "scheduler_config": "SchedulerConfig",
        "structured_outputs_config": "StructuredOutputsConfig",
    }

    assert classes[section] in str(config)
    assert {*names} <= {*of_vllm(f"vllm.config:{classes[section]}").__dataclass_fields__}


# --- the serving objects


def test_init_app_state() -> None:
    """init_app_state takes engine, state, arguments and tasks in this order."""
    order = ["engine_client", "state", "args", "supported_tasks"]
    assert parameters(engine.init_app_state) == order
    assert inspect.iscoroutinefunction(engine.init_app_state)


@pytest.mark.parametrize("name", FRONTEND_ARGS)
def test_frontend_argument(name: str) -> None:
    """Each argument that we set for the serving objects is one of vLLM's command line."""
    args = engine.make_arg_parser(engine.FlexibleArgumentParser()).parse_args([])

    assert name in args


@pytest.mark.parametrize("attribute", SERVING)
def test_serving_object(attribute: str) -> None:
    """vLLM puts each serving object where a route looks for it, with the coroutine it awaits."""
    name, coroutines = SERVING[attribute]
    wiring = vllm_source("entrypoints", "launchers", "api_server", "app_state.py")
    wiring += vllm_source("entrypoints", "generate", "api_router.py")

    assert f"state.{attribute} = " in wiring
    for coroutine in coroutines:
        assert inspect.iscoroutinefunction(getattr(of_vllm(name), coroutine))


def test_models_and_adapters_have_names() -> None:
    """The served names are the base models' paths' and the adapters'."""
    made = inspect.getsource(of_vllm(SERVING["openai_serving_models"][0]).__init__)

    assert "self.base_model_paths" in made
    assert "self.lora_requests" in made
    assert (
        "name" in of_vllm("vllm.entrypoints.openai.models.protocol:BaseModelPath").__annotations__
    )
    assert {"name", "path"} <= {*engine.LoRAModulePath.__dataclass_fields__}


def test_rendering_is_a_coroutine_of_the_renderer() -> None:
    """The seconds of a chat template are those of render_messages_async."""
    base = of_vllm("vllm.renderers.base:BaseRenderer")

    assert inspect.iscoroutinefunction(base.render_messages_async)


# --- the renderer


def test_renderer_is_looked_up_by_name() -> None:
    """vLLM builds the renderer that stands under "hf" in its registry."""
    assert set(renderer.RENDERER_REGISTRY.renderers["hf"]) == {
        "vllm.renderers.hf",
        "HfRenderer",
    } or renderer.RENDERER_REGISTRY.renderers["hf"] == (renderer.__name__, "GemmaRenderer")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("render_messages_async", ["messages", "params"]),
        ("render_cmpl_async", ["prompts", "tok_params", "prompt_extras", "skip_mm_cache"]),
        ("_tokenize_prompt", ["prompt", "params"]),
        ("_tokenize_singleton_prompt_async", ["prompt", "params"]),
        ("_build_tokens_prompt", ["token_ids", "prompt", "offset_mapping"]),
    ],
)
def test_what_our_renderer_overrides_and_calls(name: str, expected: list[str]) -> None:
    """The methods around which the prompt layer stands are vLLM's, with these parameters."""
    assert parameters(getattr(renderer.HfRenderer, name)) == expected


def test_every_text_is_tokenised_by_the_method_that_we_override() -> None:
    """The asynchronous path wraps _tokenize_prompt, so that overriding that one is enough."""
    made = inspect.getsource(of_vllm("vllm.renderers.base:BaseRenderer").__init__)

    assert re.search(r"_tokenize_prompt_async = make_async\(\s*self\._tokenize_prompt", made)


def test_every_protocol_goes_through_the_renderer() -> None:
    """OnlineRenderer renders for every protocol, and calls render_chat_async of the renderer."""
    online = inspect.getsource(render.OnlineRenderer)

    assert "renderer.render_chat_async(" in online
    assert "renderer.render_cmpl_async(" in online
    for name in ("openai_serving_chat", "anthropic_serving_messages", "openai_serving_responses"):
        module = SERVING[name][0].partition(":")[0]
        assert "render_chat" in inspect.getsource(importlib.import_module(module)) or (
            "render_responses" in inspect.getsource(importlib.import_module(module))
        )


def test_only_tokenize_skips_the_cache() -> None:
    """That is how the renderer tells a piece of text of /tokenize from a prompt."""
    completion = vllm_source("entrypoints", "openai", "completion", "serving.py")
    tokenize = vllm_source("entrypoints", "serve", "tokenize", "serving.py")

    assert "skip_mm_cache=True" in tokenize
    assert "skip_mm_cache=True" not in completion


def test_stop_ids_are_read_from_the_input_processor() -> None:
    """Each request's stop ids come from `generation_config_fields`, which `wire` completes."""
    source = vllm_source("v1", "engine", "input_processor.py")

    assert "self.generation_config_fields = " in source
    assert re.search(r"update_from_generation_config\(\s*self\.generation_config_fields", source)
    assert "self.input_processor = " in inspect.getsource(grammars.AsyncLLMEngine.__init__)


def test_render_without_an_engine() -> None:
    """vLLM's render server is built from a config, and leaves its renderer in the state."""
    build = render.init_render_app_state

    assert parameters(build) == ["vllm_config", "state", "args"]
    assert "state.online_renderer = " in inspect.getsource(build)


def test_parsers_say_whether_a_call_can_be_forced() -> None:
    """The tool parser's class says whether vLLM's grammar for required calls suits it."""
    parser = of_vllm("vllm.tool_parsers.abstract_tool_parser:ToolParser")

    assert parser.supports_required_and_named is True
    assert parser.structural_tag_model is None
    assert "tool_parser_cls" in vllm_source("renderers", "online_renderer.py")


def test_with_cancellation_finds_the_request() -> None:
    """vLLM's decorator looks for the request under the name that our handlers give it."""
    assert 'kwargs["raw_request"]' in inspect.getsource(protocol.vllm_with_cancellation)


@pytest.mark.parametrize(
    "name",
    [
        "ChatRequest",
        "CompletionRequest",
        "ResponsesRequest",
        "AnthropicMessagesRequest",
        "AnthropicCountTokensRequest",
    ],
)
def test_request_names_its_model(name: str) -> None:
    """Each request is a pydantic model with the `model` that its tokens are counted under."""
    assert "model" in getattr(door, name).model_fields


def test_completion_without_max_tokens_gets_the_contexts() -> None:
    """vLLM puts its default of 16 where a client names none; ours is the whole context."""
    for named in ({}, {"max_tokens": None}):
        assert protocol.VllmCompletionRequest(prompt="a", **named).max_tokens == 16
        request = door.CompletionRequest(prompt="a", **named)
        request.allow_tokens(4096)
        assert request.max_tokens == 4096
    request = door.CompletionRequest(prompt="a", max_tokens=0, echo=True)
    request.allow_tokens(4096)
    assert request.max_tokens == 0


@pytest.mark.parametrize(
    ("parsers", "registry"),
    [
        (TOOL_CALL_PARSERS, ("tool_parsers", "__init__.py")),
        (REASONING_PARSERS, ("reasoning", "__init__.py")),
    ],
)
def test_parsers_of_a_generation_exist(parsers: dict[Any, str], registry: tuple[str, ...]) -> None:
    """The parsers that a generation gets are registered in vLLM."""
    registered = vllm_source(*registry)

    assert parsers
    assert all(f'"{parser}"' in registered for parser in parsers.values())


# --- structured outputs


def test_structured_outputs_are_checked_by_the_function_that_we_replace() -> None:
    """Whoever checks one looks the function up when it is called, and compiles nothing besides."""
    line = "from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar"
    for parts in (
        ("sampling_params.py",),
        ("entrypoints", "generate", "base", "protocol.py"),
        ("parser", "abstract_parser.py"),
    ):
        source = vllm_source(*parts)
        assert f"        {line}\n" in source or f"    {line}\n" in source
        assert f"\n{line}\n" not in source
    replaced = grammars.backend_xgrammar.validate_xgrammar_grammar
    assert len(parameters(replaced)) == len(parameters(grammars.check_words)) == 1


def test_every_request_is_added_by_the_method_that_we_override() -> None:
    """`generate` adds a request with its id, prompt and parameters first."""
    vllm_engine = of_vllm("vllm:AsyncLLMEngine")
    assert parameters(vllm_engine.add_request)[:3] == ["request_id", "prompt", "params"]
    assert "await self.add_request(" in inspect.getsource(vllm_engine.generate)


def test_grammars_are_compiled_as_we_compile_them() -> None:
    """The engine's backend compiles each kind by the functions that our process calls."""
    backend = inspect.getsource(grammars.backend_xgrammar.XgrammarBackend.compile_grammar)
    for call in (
        *("compile_json_schema(", "compile_regex,", "compile_grammar(", "compile_lark("),
        *("compile_structural_tag(tags, ", "any_whitespace=not self.disable_any_whitespace"),
        'separators = (",", ":") if self.disable_any_whitespace else None',
    ):
        assert call in backend
    # It keeps what it has compiled, up to a bound that we set.
    made = inspect.getsource(grammars.backend_xgrammar.XgrammarBackend)
    assert "cache_limit_bytes=vllm.envs.VLLM_XGRAMMAR_CACHE_MB * 1024 * 1024" in made
    assert "VLLM_XGRAMMAR_CACHE_MB: int = " in vllm_source("envs.py")


def test_room_of_the_kernels() -> None:
    """More than these end the engine on a GPU, or are refused later."""
    keys = Limits.model_json_schema()["properties"]
    most = {key: value["maximum"] for key, value in keys.items() if "maximum" in value}
    biases = vllm_source("v1", "worker", "gpu", "sample", "logit_bias.py")
    for name, room in (
        ("MAX_NUM_ALLOWED_TOKEN_IDS", most["max_biased_token_ids"]),
        ("MAX_NUM_LOGIT_BIAS_TOKENS", most["max_biased_token_ids"]),
        ("MAX_NUM_STOP_TOKEN_IDS", most["max_stop_token_ids"]),
        ("MAX_NUM_STOP_TOKEN_IDS", request_limits.MAX_STOP_TOKEN_IDS),
    ):
        assert f"{name} = {room}\n" in biases
    params = of_vllm("vllm:sampling_params")
    assert most["max_logprob_token_ids"] == params.MAX_LOGPROB_TOKEN_IDS
    envs = vllm_source("envs.py")
    assert "VLLM_MAX_STOP_STRINGS: int = 4\n" in envs
    assert f"VLLM_MAX_NUM_BAD_WORDS: int = {most['max_bad_words']}\n" in envs


# --- errors


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (HTTPStatus.BAD_REQUEST, RequestError, None),
        (HTTPStatus.NOT_FOUND, NotFoundError, "model_not_found"),
        (HTTPStatus.NOT_IMPLEMENTED, RequestError, "not_supported"),
        (HTTPStatus.SERVICE_UNAVAILABLE, UnavailableError, "engine_overloaded"),
        (HTTPStatus.INTERNAL_SERVER_ERROR, InternalError, "internal_error"),
    ],
)
def test_error_response(status: HTTPStatus, kind: type[Exception], code: str | None) -> None:
    """vLLM's error answer, alone or in a stream, becomes an error of ours with its message."""
    answer = errors.create_error_response("It is so.", "SomeError", status, param="top_p")
    serving = of_vllm("vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat")
    chat = object.__new__(serving)
    endings.let_failures_out(chat)
    with pytest.raises(GemmaServeError) as raised, door.translated():
        chat.create_streaming_error_response("It is so.", "SomeError", status, param="top_p")
    error = raised.value

    assert isinstance(answer, errors.ErrorResponse)
    assert type(error) is kind
    # What failed inside is for the log.
    inside = "The engine failed on this request; its log has the details."
    assert (error.message, error.code) == (inside if kind is InternalError else "It is so.", code)


@pytest.mark.parametrize("name", engine.GENERATING)
def test_failures_leave_vllms_streams(name: str) -> None:
    """Each serving object looks for failures, and writes them, through the methods we replace."""
    serving = of_vllm(SERVING[name][0])
    text = "".join(
        inspect.getsource(sys.modules[base.__module__])
        for base in serving.__mro__
        if base.__module__.startswith("vllm.entrypoints")
    )
    assert "self._raise_if_error(output.finish_reason, " in text
    assert "self.create_streaming_error_response(" in text
    assert parameters(serving._raise_if_error) == ["finish_reason", "request_id"]
    assert parameters(serving.create_streaming_error_response)[0] == "message"


def test_aborted_request() -> None:
    """An abort in the engine is the server's fault, and so is a failure: neither is a finish."""
    with pytest.raises(UnavailableError) as gone:
        endings.raise_if_unfinished("abort")
    assert gone.value.code == "engine_dead"
    with pytest.raises(InternalError):
        endings.raise_if_unfinished("error")
    for reason in (None, "stop", "length"):
        endings.raise_if_unfinished(reason)


def test_requests_are_given_up() -> None:
    """The launcher ends requests as a dead engine does; vLLM wraps what it does not know."""
    processor = of_vllm("vllm.v1.engine.output_processor:OutputProcessor")
    assert parameters(processor.propagate_error) == ["e"]
    wrapped = errors.EngineGenerateError()
    wrapped.__cause__ = UnavailableError("It drains.", code="draining")
    assert door.translate(wrapped) is wrapped.__cause__


@pytest.mark.parametrize("n", [1, 2])
def test_work_of_a_request(n: int) -> None:
    """What waits of a prompt, and what is made of its answers, also when it was ended early."""
    output_processor = "vllm.v1.engine.output_processor"
    params = of_vllm("vllm:SamplingParams")(n=n)
    asked = (None, params, None, 0.0, None, None, None)
    request = of_vllm("vllm.v1.engine:EngineCoreRequest")("a", [1, 2, 3], *asked)
    request.external_req_id = "its client's"
    processor = of_vllm(f"{output_processor}:OutputProcessor")(None, log_stats=False)
    queue = of_vllm(f"{output_processor}:RequestOutputCollector")(params.output_kind, "a")
    parent, ids = None, ["a"]
    if n > 1:  # as AsyncLLM.add_request does
        parent = of_vllm("vllm.v1.engine.parallel_sampling:ParentRequest")(request)
        ids = [parent.get_child_info(at)[0] for at in range(n)]
    for at, id_ in enumerate(ids):
        one = copy(request)
        one.request_id = id_
        processor.add_request(one, None, parent, at, queue)

    found = work.work_of(processor, queue.request_id)

    assert (found.num_prefill_tokens, found.num_answer_tokens) == (3 * n, 0)
    made = of_vllm("vllm.v1.engine:EngineCoreOutput")
    processor.process_outputs([made(id_, [5, 6]) for id_ in ids])
    assert (found.num_prefill_tokens, found.num_answer_tokens) == (0, 2 * n)
    processor.abort_requests([queue.request_id], internal=True)
    assert found.num_answer_tokens == 2 * n


@pytest.mark.parametrize("name", children.STARTED)
def test_started_processes(name: str) -> None:
    """vLLM starts its processes with these functions, found on their class at that moment."""
    module, _, function = name.partition(":")
    assert inspect.isfunction(pkgutil.resolve_name(name))
    starts = [vllm_source("v1", "engine", file) for file in ("utils.py", "coordinator.py")]
    assert any(f"target={function}," in text for text in starts), module


def test_workers_of_another_node() -> None:
    """An executor without an engine runs a node's workers, and can be waited for."""
    assert "headless" in parameters(engine.AsyncEngineArgs.create_engine_config)
    assert "monitor_workers" in parameters(workers.MultiprocExecutor.__init__)
    assert "inline" in parameters(workers.MultiprocExecutor.start_worker_monitor)
    assert of_vllm("vllm.config:ParallelConfig").master_port == MASTER_PORT


def test_waiting_is_a_call_that_we_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine and its workers wait for one another by os.sched_yield, looked up at each call."""
    calls: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: calls.append(None))
    broadcast = importlib.import_module("vllm.distributed.device_communicators.shm_broadcast")
    broadcast.sched_yield()
    assert len(calls) == 1
    assert "sched_yield()" in inspect.getsource(broadcast.SpinCondition.wait)


def test_signs_of_life() -> None:
    """The watchdog pings by a call that each engine core answers, and hears of its steps."""
    client = of_vllm("vllm:AsyncLLMEngine")
    assert 'call_utility_consensus_async("get_weight_version")' in vllm_source(
        "v1", "engine", "core_client.py"
    )
    assert inspect.iscoroutinefunction(client.get_weight_version)
    assert callable(client.get_num_unfinished_requests)
    assert "stat_loggers" in parameters(client.from_engine_args)
    recorder = steps.Steps().recorder(None, 3)
    assert isinstance(recorder, of_vllm("vllm.v1.metrics.loggers:StatLoggerBase"))
    assert parameters(type(recorder).record) == parameters(
        of_vllm("vllm.v1.metrics.loggers:StatLoggerBase").record
    )
    recorder.record(None, None)
    assert recorder.as_dict()["waiting"] == 0


def test_step_times() -> None:
    """A step's time is the shortest gap between tokens in it; steps with prompts do not count."""
    stats = of_vllm("vllm.v1.metrics.stats:IterationStats")
    schedulers = of_vllm("vllm.v1.metrics.stats:SchedulerStats")
    kept = steps.Steps()
    recorder = kept.recorder(None, 0)

    def step(*gaps_s: float, num_running: int, num_prompt_tokens: int = 0) -> None:
        iteration = stats()
        iteration.inter_token_latencies_iter += gaps_s
        iteration.prompt_token_stats.total = num_prompt_tokens
        recorder.record(schedulers(num_running_reqs=num_running), iteration)

    with kept.times.round():
        for _ in range(10):
            step(0.05, num_running=1)
            step(0.9, 0.06, num_running=2)  # one was put off for a while
            step(0.06, num_running=0)  # the other has ended with it
            step(num_running=1)
            step(0.5, num_running=2)  # the other one's prompt takes several steps
            step(0.5, num_running=2, num_prompt_tokens=7)
    assert (kept.times.alone_s, kept.times.each_s) == pytest.approx((0.055, 0.005))
    assert "self.inter_token_latencies_iter.append(itl)" in inspect.getsource(stats)


def test_dead_engine() -> None:
    """The error that a request gets from a dead engine says to go elsewhere."""
    error = door.translate(errors.EngineDeadError())

    assert isinstance(error, UnavailableError)
    assert error.code == "engine_dead"


def test_clients_mistake_is_a_client_error() -> None:
    """A value that vLLM refuses is the client's fault, never a 5xx."""
    error = door.translate(ValueError("temperature must be non-negative"))

    assert (error.status, error.message) == (400, "temperature must be non-negative")


def test_exceptions_have_the_class_of_who_is_at_fault() -> None:
    """vLLM divides its exceptions into the client's and the server's fault."""
    assert issubclass(errors.VLLMClientError, errors.VLLMError)
    assert not issubclass(errors.EngineDeadError, errors.VLLMClientError)


def test_plugins_stay_out_of_the_core() -> None:
    """What needs a plugin is not a quantization method of vLLM's core."""
    methods = vllm_source("model_executor", "layers", "quantization", "__init__.py")
    core = re.search(r"QuantizationMethods = Literal\[(.*?)\]", methods, re.DOTALL)

    assert core is not None
    assert not any(f'"{method}"' in core[1] for method in _PLUGINS)


# --- scoring a text


def test_prompt_logprobs() -> None:
    """A prompt's scores come flat: each position's own token first, then the most likely ones."""
    params = logprobs.SamplingParams(
        prompt_logprobs=64,
        flat_logprobs=True,
        detokenize=False,
        output_kind=logprobs.RequestOutputKind.FINAL_ONLY,
    )
    flat = of_vllm("vllm.logprobs:create_prompt_logprobs")(params.flat_logprobs)
    of_vllm("vllm.logprobs:append_logprobs_for_next_position")(
        flat, [7, 5, 6], [-3.0, -1.0, -2.0], [None] * 3, 9, 2
    )

    assert params.skip_reading_prefix_cache
    assert (flat.token_ids, flat.logprobs) == ([7, 5, 6], [-3.0, -1.0, -2.0])


def test_bound_of_logprobs_is_held_where_requests_come_in() -> None:
    """`max_logprobs` is read when sampling parameters are checked, and by no runner."""
    assert "model_config.max_logprobs" in vllm_source("sampling_params.py")
    runner = vllm_source("v1", "worker", "gpu_model_runner.py")
    assert "max_logprobs" not in runner
    assert "max_logprobs" not in vllm_source("v1", "worker", "gpu", "sample", "prompt_logprob.py")
