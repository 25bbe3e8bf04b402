"""A server behind the real page that does what a test says: no engine could be told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from gemma_serve.api import playground

TEXT = "Half an answer"
DOWN = "Nothing works today."
BOUND_S = 60


@dataclass
class Script:
    """What it does from now on."""

    is_down: bool = False
    ending: str = "done"  # of each answer: done, unfinished or broken
    may_end: threading.Event = field(default_factory=threading.Event)

    async def answer(self) -> AsyncIterator[str]:
        """The events of a stream, and its end once it may."""
        event = {"choices": [{"delta": {"content": TEXT}}]}
        yield f"data: {json.dumps(event)}\n\n"
        await asyncio.to_thread(self.may_end.wait, BOUND_S)
        if self.ending == "broken":
            raise ConnectionError("broken off, as the test says")
        if self.ending == "done":
            yield "data: [DONE]\n\n"


def scripted(script: Script) -> FastAPI:
    """The page, and the three routes that it needs for a chat."""
    app = FastAPI()
    app.include_router(playground.router)

    @app.get("/v1/info")
    async def info() -> JSONResponse:
        if script.is_down:
            return JSONResponse({"error": {"message": DOWN}}, 503)
        engine = {"images_per_prompt": 4, "max_model_len": 4096}
        return JSONResponse({"status": "ready", "model": "scripted", "engine": engine})

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"data": [{"id": "scripted"}]})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(script.answer(), media_type="text/event-stream")

    return app
