"""
transformers.generate behind OpenAI's API, one request at a time: what a plain Python backend does.

Run it as `python -m benchmarks.servers.transformers_server CHECKPOINT --port N`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.servers.transformers_model import Model, Sampling, Step

MAX_TOKENS = 16  # OpenAI's own default for completions
TokenIds = list[int]


class StreamOptions(BaseModel):
    """OpenAI's, and vLLM's continuous usage, which clients ask for and this server has not."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Body(BaseModel):
    """What both routes take; a key that is not here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    ignore_eos: bool = False
    return_token_ids: bool = False
    cache_salt: str | None = None  # nothing is kept from one request to the next
    user: str | None = None
    # Taken only with the value that changes nothing.
    n: Literal[1] = 1
    logprobs: Literal[False] | None = None
    stop: None = None
    repetition_penalty: Literal[1] = 1

    def sampling(self) -> Sampling:
        """What it asks of the generation."""
        return Sampling(
            self.max_tokens or MAX_TOKENS, self.temperature, self.top_p, self.ignore_eos
        )


class CompletionBody(_Body):
    """POST /v1/completions."""

    prompt: str | TokenIds


class ChatBody(_Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    def sampling(self) -> Sampling:
        """Either name of the limit."""
        limit = self.max_completion_tokens or self.max_tokens
        return _Body.sampling(self.model_copy(update={"max_tokens": limit}))


@dataclass
class Answer:
    """One generation under way: steps come in from the model's thread, the end as a reason."""

    steps: asyncio.Queue[Step | str | Exception] = field(default_factory=asyncio.Queue)
    left: threading.Event = field(default_factory=threading.Event)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None

    async def __aiter__(self) -> AsyncIterator[Step]:
        while True:
            came = await self.steps.get()
            if isinstance(came, Exception):
                raise came
            if isinstance(came, str):
                self.finish_reason = came
                return
            self.completion_tokens += 1
            yield came

    def usage(self) -> dict[str, int]:
        """The counts."""
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


class Backend:
    """The model and the one thread that it runs on: requests wait in line before it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._thread = ThreadPoolExecutor(1, "generate")

    def begin(self, body: _Body) -> Answer:
        """Stand in line."""
        answer, loop = Answer(), asyncio.get_running_loop()

        def tell(came: Step | str | Exception) -> None:
            loop.call_soon_threadsafe(answer.steps.put_nowait, came)

        def work() -> None:
            if answer.left.is_set():
                return
            try:
                ids = self._prompt_ids(body)
                answer.prompt_tokens = len(ids)
                tell(self.model.generate(ids, body.sampling(), tell, answer.left))
            except Exception as error:
                tell(error)

        self._thread.submit(work)
        return answer

    def _prompt_ids(self, body: _Body) -> Sequence[int]:
        if isinstance(body, ChatBody):
            return self.model.chat_ids(body.messages)
        assert isinstance(body, CompletionBody)
        return body.prompt if isinstance(body.prompt, list) else self.model.text_ids(body.prompt)


def build_app(backend: Backend) -> FastAPI:
    """The routes."""
    app = FastAPI()
    app.add_exception_handler(RequestValidationError, _refuse)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": backend.model.name, "object": "model"}]}

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionBody) -> StreamingResponse | JSONResponse:
        return await _answer(backend, body)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatBody) -> StreamingResponse | JSONResponse:
        return await _answer(backend, body)

    return app


async def _answer(backend: Backend, body: _Body) -> StreamingResponse | JSONResponse:
    answer, writer = backend.begin(body), _Writer(backend.model.name, body)
    if body.stream:
        return StreamingResponse(writer.events(answer), media_type="text/event-stream")
    try:
        steps = [step async for step in answer]
    except Exception as error:
        return _error(500, str(error))
    finally:
        answer.left.set()
    return JSONResponse(writer.whole(steps, answer))


class _Writer:
    """Answers as JSON: in one piece or as events."""

    def __init__(self, model: str, body: _Body) -> None:
        self._body, self._chat = body, isinstance(body, ChatBody)
        number = time.monotonic_ns()
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{number}" if self._chat else f"cmpl-{number}",
            "object": "chat.completion" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    async def events(self, answer: Answer) -> AsyncIterator[bytes]:
        """One event a token, one with the finish reason, the usage if asked for, [DONE]."""
        head = dict(self._head)
        if self._chat:
            head["object"] = "chat.completion.chunk"
        try:
            async for step in answer:
                yield _event({**head, "choices": [self._choice(step.text, [step.token_id])]})
            yield _event({**head, "choices": [self._choice("", [], answer.finish_reason)]})
            if self._body.stream_options.include_usage:
                yield _event({**head, "choices": [], "usage": answer.usage()})
            yield b"data: [DONE]\n\n"
        except Exception as error:
            yield _event({"error": {"message": str(error), "type": "server_error"}})
        finally:
            answer.left.set()

    def _choice(self, text: str, ids: TokenIds, finish: str | None = None) -> dict[str, Any]:
        said = {"delta": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return choice | ({"token_ids": ids} if self._body.return_token_ids else {})

    def whole(self, steps: Sequence[Step], answer: Answer) -> dict[str, Any]:
        """Everything at once."""
        text = "".join(step.text for step in steps)
        choice = self._choice(text, [step.token_id for step in steps], answer.finish_reason)
        if "delta" in choice:
            choice["message"] = choice.pop("delta")
        return {**self._head, "choices": [choice], "usage": answer.usage()}


def _event(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return _error(400, f"{where}: {first['msg']}")


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind}}, status)


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="a directory that transformers loads")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = build_app(Backend(Model(options.checkpoint)))
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
