"""From what vLLM's serving objects return to an HTTP answer: JSON, or server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from gemma_serve import metrics
from gemma_serve.api.state import ServerState
from gemma_serve.chat.prompts import applied_rules
from gemma_serve.engine.vllm import Engine, refusal_in_event, response_events
from gemma_serve.errors import MediaTypeError


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
        GemmaServeError: vLLM refused or failed, also when it says so in the stream's first event:
            nothing has been sent by then, so the client gets a real status.
    """
    engine = engine_of(request)
    result = await engine.answer(call)
    if isinstance(result, BaseModel):
        _count(request, engine, model, getattr(result, "usage", None))
        text = result.model_dump_json(**dump)
        return Response(text, headers=prompt_header(), media_type="application/json")
    events = result if _is_text(request) else response_events(result, request.state)
    try:
        first = await anext(events)
    except StopAsyncIteration:
        first = ""
    if refusal := refusal_in_event(first):
        await events.aclose()
        raise refusal
    return EventStream(request, engine, model, first, events)


def prompt_header() -> dict[str, str]:
    """The rules that changed this request's prompt, by name, as x-gemma-serve-prompt."""
    rules = applied_rules.get()
    return {"x-gemma-serve-prompt": ", ".join(rules)} if rules else {}


def _is_text(request: Request) -> bool:
    # Only the Responses API yields objects; the other protocols come as ready text.
    return str(request.scope["path"]) != "/v1/responses"


class EventStream(StreamingResponse):
    """Server-sent events, the first of which is already here; counts the tokens at the end."""

    def __init__(
        self,
        request: Request,
        engine: Engine,
        model: str | None,
        first: str,
        rest: AsyncIterator[str],
    ) -> None:
        super().__init__(rest, headers=prompt_header(), media_type="text/event-stream")
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold events back
        self.request, self.engine, self.model, self.first = request, engine, model, first

    async def stream_response(self, send: Send) -> None:
        """Send the head, the events as they come, and the end; Starlette watches for a leaver."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_body(self.first))
        async for event in self.body_iterator:
            await send(_body(event))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        _count(self.request, self.engine, self.model, None)


def _body(event: Any) -> dict[str, Any]:
    return {"type": "http.response.body", "body": event.encode(), "more_body": True}


def _count(request: Request, engine: Engine, model: str | None, usage: Any) -> None:
    """Count tokens by the usage that vLLM reports, in the answer or beside it."""
    metadata = getattr(request.state, "request_metadata", None)
    usage = getattr(metadata, "final_usage_info", None) or usage
    if usage is None:
        return
    names = engine.served_model_names()
    metrics.count_tokens(
        model if model in names else names[0],
        # The Anthropic and Responses APIs say input and output.
        _first(usage, "prompt_tokens", "input_tokens"),
        _first(usage, "completion_tokens", "output_tokens"),
    )


def _first(usage: Any, *names: str) -> int:
    return next((int(getattr(usage, name) or 0) for name in names if hasattr(usage, name)), 0)
