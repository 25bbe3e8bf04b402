"""From what vLLM's serving objects return to an HTTP answer: JSON, or server-sent events."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import ExitStack, closing
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gemma_serve import logs, metrics
from gemma_serve.api.admission import Slot, demand_of
from gemma_serve.api.auth import KEY
from gemma_serve.api.budget import body_seconds, header_seconds
from gemma_serve.api.error_body import FAILED_STATUS, error_event
from gemma_serve.api.state import ServerState
from gemma_serve.chat.prompts import applied_rules, on_tokenised
from gemma_serve.engine.deadline import Deadline
from gemma_serve.engine.vllm import Engine, response_events, translated
from gemma_serve.engine.work import on_work
from gemma_serve.errors import GemmaServeError, InternalError, MediaTypeError

logger = logging.getLogger("gemma_serve.api")


def server_state(request: Request) -> ServerState:
    """The state of the server that this request came to."""
    state: ServerState = request.app.state.server
    return state


async def takes_requests(request: Request) -> None:  # async: FastAPI gives others a thread each
    """Dependency of every inference route: the server is ready and the body claims to be JSON."""
    state = server_state(request)
    if not (state.ready or request.scope.get("gemma_serve.warm_up")):
        raise state.unavailable()
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise MediaTypeError(
            f"The content type is {content_type[:100]!r}; send JSON as application/json."
        )
    applied_rules.set([])


def engine_of(request: Request) -> Engine:
    """The running engine."""
    return server_state(request).running_engine()


async def respond_in_turn(
    request: Request, call: Coroutine[Any, Any, Any], asked: Any, **dump: Any
) -> Response:
    """
    Answer with what the engine generates: when its turn has come, and in its time.

    Args:
        call: The serving object's coroutine.
        asked: The parsed request.
        dump: As of `respond`.

    Raises:
        GemmaServeError: the request was not admitted, its time is over, or vLLM refused or failed.
    """
    with closing(call), ExitStack() as held:
        admission, body = server_state(request).admission, await request.json()
        deadline, text = _deadline(request, body), body if admission.bounds.counts_tokens else None
        demand = demand_of(asked, text, deadline, request.scope.get(KEY))
        slot = held.enter_context(await admission.enter(demand))
        on_tokenised.set(slot.tokenised)
        on_work.set(slot.begun)
        async with deadline.enforced(first_token=demand.stream):
            response = await respond(request, call, model=asked.model, **dump)
        if isinstance(response, EventStream):
            if _is_text(request):  # the Responses API announces an answer before it begins
                slot.first_token()
            response.keep(slot, held.pop_all(), deadline)
    return response


def _deadline(request: Request, body: Any) -> Deadline:
    if request.scope.get("gemma_serve.warm_up"):
        return Deadline()
    timeout = body.get("timeout") if isinstance(body, dict) else None
    asked_s = header_seconds(request.headers), body_seconds(timeout)
    return Deadline.of(server_state(request).profile.limits, *asked_s)


async def respond(
    request: Request,
    call: Awaitable[Any],
    *,
    model: str | None,
    **dump: Any,
) -> Response:
    """
    Answer with what a serving object returns.

    Args:
        call: The serving object's coroutine.
        model: The request's `model`, under which its tokens are counted.
        dump: Options of pydantic's model_dump_json for an answer that is not streamed.

    Raises:
        GemmaServeError: vLLM refused or failed, also where it would say so in the stream's first
            event: nothing has been sent by then, so the client gets a real status.
    """
    engine = engine_of(request)
    result = await engine.answer(call)
    if isinstance(result, BaseModel):
        _count(request, engine, model, getattr(result, "usage", None))
        text = result.model_dump_json(**dump)
        return Response(text, headers=prompt_header(), media_type="application/json")
    events = result if _is_text(request) else response_events(result, request.state)
    with translated():
        first = await anext(events, "")
    return EventStream(request, engine, model, first, events)


def prompt_header() -> dict[str, str]:
    """The rules that changed this request's prompt, by name, as x-gemma-serve-prompt."""
    rules = applied_rules.get()
    return {"x-gemma-serve-prompt": ", ".join(rules)} if rules else {}


def _is_text(request: Request) -> bool:
    # Only the Responses API yields objects; the other protocols come as ready text.
    return str(request.scope["path"]) != "/v1/responses"


class EventStream(StreamingResponse):
    """
    Server-sent events, the first of which is already here; counts the tokens at the end.

    What fails on the way is the last event, an error in the shape of its API: nothing that says
    `done` follows.
    """

    def __init__(
        self,
        request: Request,
        engine: Engine,
        model: str | None,
        first: str,
        rest: AsyncGenerator[str, None],
    ) -> None:
        super().__init__(rest, headers=prompt_header(), media_type="text/event-stream")
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold events back
        self.request, self.engine, self.model, self.first = request, engine, model, first
        self.rest, self.place, self.deadline = rest, ExitStack(), Deadline()
        self.slot: Slot | None = None

    def keep(self, slot: Slot, place: ExitStack, deadline: Deadline) -> None:
        """Keep the request's place with the engine, and to its deadline, until the last event."""
        self.slot, self.place, self.deadline = slot, place, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.place:
            if self.slot is not None:
                # Another task than the handler's, and responses come to the engine only here.
                on_work.set(self.slot.begun)
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the head, the events as they come, and the end; Starlette watches for a leaver."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        event = self.first
        await send(_body(event))
        try:
            with translated():
                async with self.deadline.enforced():
                    async for event in self.rest:
                        await send(_body(event))
        except GemmaServeError as error:
            # Whoever reads too slowly may keep this waiting: not the engine.
            await self.rest.aclose()
            _log_fault(error)
            self.request.scope[FAILED_STATUS] = error.status
            await send(_body(error_event(error, self.request.scope["path"], str(event))))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        _count(self.request, self.engine, self.model, None)


def _log_fault(error: GemmaServeError) -> None:
    """Where a fault of ours comes from; not its message, which may quote a prompt."""
    cause = error.__cause__
    if isinstance(error, InternalError) and cause is not None:
        where = "".join(traceback.format_tb(cause.__traceback__))
        logger.error("A stream failed with %s:\n%s", type(cause).__name__, where)


def _body(event: Any) -> dict[str, Any]:
    return {"type": "http.response.body", "body": event.encode(), "more_body": True}


def _count(request: Request, engine: Engine, model: str | None, usage: Any) -> None:
    """Count tokens by the usage that vLLM reports, in the answer or beside it."""
    metadata = getattr(request.state, "request_metadata", None)
    usage = getattr(metadata, "final_usage_info", None) or usage
    if usage is None:
        return
    names = engine.served_model_names()
    # The Anthropic and Responses APIs say input and output.
    prompt_tokens = _first(usage, "prompt_tokens", "input_tokens")
    answer_tokens = _first(usage, "completion_tokens", "output_tokens")
    metrics.count_tokens(model if model in names else names[0], prompt_tokens, answer_tokens)
    logs.note(prompt_tokens=prompt_tokens, answer_tokens=answer_tokens)


def _first(usage: Any, *names: str) -> int:
    return next((int(getattr(usage, name) or 0) for name in names if hasattr(usage, name)), 0)
