"""One inference of KServe v2, whatever carries it: check, read, generate, write, count."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from gemma_serve import logs, metrics
from gemma_serve.api.admission import Demand, Slot
from gemma_serve.api.budget import parameter_seconds
from gemma_serve.api.fields import check_template_variables
from gemma_serve.api.keys import Key
from gemma_serve.api.kserve import describe
from gemma_serve.api.kserve.statistics import ModelStatistics, Took
from gemma_serve.api.request_id import harmless_id
from gemma_serve.api.state import ServerState
from gemma_serve.chat.prompts import applied_rules, on_tokenised
from gemma_serve.chat.size import text_chars
from gemma_serve.engine.deadline import Deadline
from gemma_serve.engine.pieces import Ask, ChatPrompt, Piece, TextPrompt
from gemma_serve.engine.vllm import Engine, generate
from gemma_serve.engine.work import on_work
from gemma_serve.errors import GemmaServeError, NotFoundError, RequestError
from gemma_serve.triton.contracts import CONTRACTS, Call, Inputs
from gemma_serve.triton.contracts.check import check_inputs, check_outputs, default_tensors
from gemma_serve.triton.stripping import Stripper
from gemma_serve.triton.tensors import Tensor

logger = logging.getLogger("gemma_serve.triton")
# A parameter's name that can stand in the log: no sentence of a prompt's.
SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TRACE_HEADERS = ("traceparent", "tracestate")
# Parameters of the protocol itself; the rest is the contract's.
OF_PROTOCOL = frozenset(
    {
        "binary_data_output",
        "headers",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
    }
)


@dataclass(frozen=True)
class InferRequest:
    """An inference request, read from JSON, bytes or protobuf."""

    model: str
    version: str
    tensors: Sequence[Tensor]
    outputs: Sequence[str] = ()  # none: all there are
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    may_stream: bool = True
    timeout_s: float | None = None  # what the carrier leaves: gRPC's deadline, a header
    request_id: str = ""  # the carrier's; the log's and the engine's if `id` can't be
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # W3C's
    key: Key | None = None  # that it came with


@dataclass(frozen=True)
class InferResponse:
    """A response; of a stream, one of several."""

    model: str
    version: str
    id: str
    outputs: list[Tensor]
    final: bool


class KServe:
    """The v2 side of one server."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.settings = state.profile.triton
        self.contract = CONTRACTS[self.settings.contract]
        self.version = self.settings.model_version
        self.defaults = default_tensors(self.contract, self.settings.default_inputs)
        self.statistics: dict[str, ModelStatistics] = {}

    # --- what there is

    def models(self) -> list[str]:
        """The served names; none while the engine starts."""
        engine = self.state.engine
        return engine.served_model_names() if engine and self.state.ready else []

    def check_model(self, model: str, version: str = "") -> None:
        """
        Refuse a model or a version that is not there.

        Raises:
            UnavailableError: the server takes no requests.
            NotFoundError: there is no such model or version.
        """
        if not self.state.ready:
            raise self.state.unavailable()
        self.state.running_engine().check_model(model or "-")
        if version not in ("", self.version):
            raise NotFoundError(
                f"The model {model[:200]!r} has no version {version[:20]!r} here; use "
                f"{self.version}, or leave it out.",
                param="model_version",
            )

    def model_metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """The model's inputs and outputs."""
        self.check_model(model, version)
        return describe.model_metadata(self.contract, model, self.version)

    def model_config(self, model: str, version: str = "") -> dict[str, Any]:
        """The model configuration."""
        self.check_model(model, version)
        return describe.model_config(self.contract, model, self.settings)

    def model_statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """The statistics of one model, or of all."""
        if model:
            self.check_model(model, version)
        names = [model] if model else self.models()
        stats = [self._of(name).as_dict(name, self.version) for name in names]
        return {"model_stats": stats}

    def repository_index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """What is served, or will be."""
        names = self.models()
        if names or ready:
            return [{"name": name, "version": self.version, "state": "READY"} for name in names]
        profile = self.state.profile
        asked = profile.served_model_name or profile.model
        names = [asked] if isinstance(asked, str) else asked
        reason = self.state.condition
        return [
            {"name": name, "version": self.version, "state": "UNAVAILABLE", "reason": reason}
            for name in names
        ]

    def _of(self, model: str) -> ModelStatistics:
        return self.statistics.setdefault(model, ModelStatistics())

    # --- inference

    async def infer(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """
        The responses of one request: one, or as they come where it asks for a stream.

        Raises:
            GemmaServeError: the request was refused or failed, perhaps after the first responses.
        """
        self.check_model(request.model, request.version)
        run = _Run(self, request)
        try:
            async with aclosing(run.responses()) as responses:
                async for response in responses:
                    yield response
        finally:
            self._record(run)

    def _record(self, run: _Run) -> None:
        """Count a request, once it is over."""
        statistics, took = self._of(run.request.model), run.took()
        logs.note(prompt_tokens=run.prompt_tokens, answer_tokens=run.answer_tokens)
        if run.ok:
            statistics.succeeded(took, run.num_prompts)
            metrics.count_tokens(run.request.model, run.prompt_tokens, run.answer_tokens)
        else:
            statistics.failed(took.total_s)
        if self.settings.inference_trace:
            logger.info("%s", run.trace(took))


class _Run:
    """One request on its way, and what is to be counted of it."""

    def __init__(self, service: KServe, request: InferRequest) -> None:
        self.service, self.request = service, request
        self.engine: Engine = service.state.running_engine()
        self.began_s = time.perf_counter()
        self.first_ask_s = self.began_s
        self.waited_s = self.queue_s = self.infer_s = 0.0
        self.prompt_tokens = self.answer_tokens = self.num_prompts = 0
        self.ignored: list[str] = []  # parameters that the contract does not read
        self.ok = False
        self.request_id = harmless_id(request.id, request.request_id)
        self.deadline = Deadline()
        self.slot: Slot | None = None

    async def responses(self) -> AsyncGenerator[InferResponse, None]:
        """Read the request, generate, and write each response."""
        applied_rules.set([])
        state, request = self.service.state, self.request
        asked_s = parameter_seconds(request.parameters.get("timeout")), request.timeout_s
        self.deadline = Deadline.of(state.profile.limits, *asked_s)
        call = self._read()
        asks = self._asks(call)
        self.num_prompts, read_s = len(asks), time.perf_counter()
        stripper = Stripper() if call.strips else None
        with await state.admission.enter(self._demand(call)) as self.slot:
            on_tokenised.set(self.slot.tokenised)
            on_work.set(self.slot.begun)
            self.first_ask_s = time.perf_counter()
            self.waited_s = self.first_ask_s - read_s
            async for pieces in self._pieces(asks):
                texts = [_text(call, piece, part.text) for piece in pieces for part in piece.parts]
                final = all(piece.finished for piece in pieces)
                if stripper is not None:
                    texts = [stripper.add(text) for text in texts] if call.stream else _strip(texts)
                self._count(call, pieces)
                self.ok = final  # nothing is read of a whole answer after it
                if final or not call.strips or any(texts):
                    for response in self._responses(call, texts, pieces, final=final):
                        yield response

    def _demand(self, call: Call) -> Demand:
        num_answers = call.sampling.get("n")
        texts = [_words(prompt) for prompt in call.prompts]
        counts_tokens = self.service.state.admission.bounds.counts_tokens
        return Demand(
            num_sequences=len(texts) * (num_answers if isinstance(num_answers, int) else 1),
            num_chars=text_chars(texts) if counts_tokens else 0,
            priority=self._priority(),
            stream=call.stream,
            deadline=self.deadline,
            key=self.request.key,
        )

    def _read(self) -> Call:
        service, request = self.service, self.request
        parameters = {
            name: value
            for name, value in request.parameters.items()
            if name not in OF_PROTOCOL and not name.startswith("triton_")
        }
        known = service.contract.parameters
        self.ignored = [] if known is None else sorted(parameters.keys() - known)
        found = check_inputs(service.contract, request.tensors, service.defaults, parameters)
        check_outputs(service.contract, request.outputs)
        call = service.contract.read(Inputs(found), parameters, self.engine.generation_config)
        for prompt in call.prompts:
            if isinstance(prompt, ChatPrompt) and prompt.template_kwargs:
                check_template_variables(self.engine.template_variables, prompt.template_kwargs)
        return call if request.may_stream else replace(call, stream=False)

    def _asks(self, call: Call) -> list[Ask]:
        # Clients give many requests one id, and to end one would end all that vLLM has of it.
        engine_id = f"v2-{self.request_id}-{uuid.uuid4().hex[:8]}"
        return [
            Ask(
                prompt,
                call.sampling,
                call.stream,
                f"{engine_id}-{index}",
                self._adapter(call) or self.request.model,
                call.max_total_tokens,
                self._priority(),
                self.request.trace_headers,
                self.deadline,
            )
            for index, prompt in enumerate(call.prompts)
        ]

    def _adapter(self, call: Call) -> str | None:
        if call.adapter is None:
            return None
        adapters = self.engine.adapter_names()
        if call.adapter not in adapters:
            raise RequestError(
                f"The adapter {call.adapter[:100]!r} is not loaded; "
                f"{'use ' + ' or '.join(adapters) if adapters else 'this server has none'}.",
                param="lora_name",
            )
        return call.adapter

    def _priority(self) -> int:
        """Triton's priority as vLLM's; 0 and none are the default level."""
        sent = self.request.parameters.get("priority")
        level = 0 if sent is None else sent
        default = self.service.settings.default_priority_level
        if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level < 2**31:
            raise RequestError(
                "The parameter 'priority' must be an integer of 0 (the default level) or more; "
                "lower ones go first.",
                param="priority",
            )
        if level and not self.engine.has_priorities:
            raise RequestError(
                "The parameter 'priority' has no effect here; leave it out, or the operator may "
                "set engine.scheduling_policy to priority.",
                param="priority",
            )
        return level - default if level else 0

    async def _pieces(self, asks: Sequence[Ask]) -> AsyncGenerator[Sequence[Piece], None]:
        if len(asks) == 1:
            async with aclosing(generate(self.engine, asks[0])) as pieces:
                async for piece in pieces:
                    yield [piece]
            return
        yield await self._all(asks)

    async def _all(self, asks: Sequence[Ask]) -> list[Piece]:
        """The whole answers of several prompts; one failure ends the rest."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_whole(self.engine, ask)) for ask in asks]
        except BaseExceptionGroup as errors:
            raise next(
                (error for error in errors.exceptions if isinstance(error, GemmaServeError)),
                errors.exceptions[0],
            ) from None
        return [task.result() for task in tasks]

    def _responses(
        self, call: Call, texts: Sequence[str], pieces: Sequence[Piece], *, final: bool
    ) -> Iterator[InferResponse]:
        """One; or one for each of several answers, where the contract's clients expect that."""
        num_answers = len(texts)
        splits = self.service.contract.splits_answers and self.request.may_stream
        if num_answers < 2 or not splits:
            yield self._response(call, texts, pieces, final=final)
            return
        (piece,) = pieces
        for at, part in enumerate(piece.parts, start=1):
            one = replace(piece, parts=(part,))
            is_last = final and at == num_answers
            yield self._response(call, texts[at - 1 : at], [one], final=is_last)

    def _response(
        self, call: Call, texts: Sequence[str], pieces: Sequence[Piece], *, final: bool
    ) -> InferResponse:
        outputs = self.service.contract.write(call, texts, pieces)
        wanted = self.request.outputs
        if wanted:
            outputs = [output for output in outputs if output.name in wanted]
        request, service = self.request, self.service
        return InferResponse(request.model, service.version, request.id, outputs, final)

    def _count(self, call: Call, pieces: Sequence[Piece]) -> None:
        if call.stream and self.slot is not None and not self.answer_tokens:
            self.slot.first_token()
        for piece in pieces:
            self.answer_tokens += sum(part.num_tokens for part in piece.parts)
            if piece.finished:
                self.prompt_tokens += piece.num_prompt_tokens
            if piece.times:
                self.queue_s = max(self.queue_s, piece.times.queue_s)
                self.infer_s = max(self.infer_s, piece.times.infer_s)

    def took(self) -> Took:
        """The seconds of the request, by stage."""
        total_s = time.perf_counter() - self.began_s
        input_s = self.first_ask_s - self.began_s - self.waited_s
        return Took(total_s, self.waited_s + self.queue_s, input_s, self.infer_s)

    def trace(self, took: Took) -> str:
        """One line for the log: what it was, never what it said."""
        return (
            f"request {self.request_id}: model {self.request.model}, "
            f"{'answered' if self.ok else 'not answered'}, {self.prompt_tokens} prompt and "
            f"{self.answer_tokens} answer tokens, {took.total_s * 1e3:.1f} ms (queue "
            f"{took.queue_s * 1e3:.1f}, engine {took.infer_s * 1e3:.1f}){_ignored(self.ignored)}"
        )


def _ignored(names: Sequence[str]) -> str:
    """What a trace says of parameters that had no effect."""
    shown = [name for name in names if SAFE_NAME.fullmatch(name)][:8]
    return f"; without effect: {', '.join(shown)}" if shown else ""


async def _whole(engine: Engine, ask: Ask) -> Piece:
    async with aclosing(generate(engine, ask)) as pieces:
        return await anext(pieces)


def _words(prompt: TextPrompt | ChatPrompt) -> Any:
    """What of a prompt is tokenised."""
    return prompt.text if isinstance(prompt, TextPrompt) else [prompt.messages, prompt.tools]


def _text(call: Call, piece: Piece, text: str) -> str:
    return piece.prompt + text if call.prepends_prompt else text


def _strip(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts]
