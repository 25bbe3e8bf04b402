"""
llama-cpp-python's own server, and two things that a measurement needs and its API lacks.

`ignore_eos` in a request gives answers of exactly max_tokens, and a stream asked for its usage ends
with it. Runs in the environment of `llamacpp`, which has nothing of ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
DONE = b"data: [DONE]"


@dataclass
class Asked:
    """One request: what its body asks for, and what its generation came to."""

    ignore_eos: bool = False
    include_usage: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, body: bytes) -> Asked:
        """Read a body; one that is no JSON is the server's to refuse."""
        try:
            said = json.loads(body)
            options = said.get("stream_options") or {}
            return cls(bool(said.get("ignore_eos")), bool(options.get("include_usage")))
        except (ValueError, AttributeError):
            return cls()

    def usage_event(self) -> bytes:
        """The event before [DONE]."""
        counts = {name: getattr(self, name) for name in ("prompt_tokens", "completion_tokens")}
        usage = counts | {"total_tokens": sum(counts.values())}
        return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


# Threads in which the server generates get a copy of the request's context.
_asked: ContextVar[Asked] = ContextVar("asked")


class Additions:
    """ASGI middleware: reads what a request asks for, and puts the usage before [DONE]."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = Asked.of(body)
        _asked.set(asked)
        await self.app(scope, _replay(body, receive), _with_usage(asked, send))


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, and then what comes after it: the client's leaving."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


def _with_usage(asked: Asked, send: Send) -> Send:
    async def send_with_usage(message: Message) -> None:
        if asked.include_usage and message.get("body", b"").startswith(DONE):
            message["body"] = asked.usage_event() + message["body"]
        await send(message)

    return send_with_usage


def patch_generation() -> None:
    """Count the tokens of each request, and let its end-of-text tokens pass where it asks so."""
    import llama_cpp.llama as module  # type: ignore[import-not-found]

    generate, is_end = module.Llama.generate, module.llama_cpp.llama_vocab_is_eog

    def counted(self: Any, tokens: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        asked = _asked.get(Asked())
        asked.prompt_tokens = len(tokens)
        for token in generate(self, tokens, *args, **kwargs):
            asked.completion_tokens += 1
            yield token

    def is_end_where_asked(vocab: Any, token: Any) -> bool:
        return not _asked.get(Asked()).ignore_eos and bool(is_end(vocab, token))

    module.Llama.generate = counted
    module.llama_cpp.llama_vocab_is_eog = is_end_where_asked


def main() -> None:
    """Its own command line; without its access log, as no other server here has one."""
    import uvicorn
    from llama_cpp.server.app import create_app  # type: ignore[import-not-found]
    from llama_cpp.server.cli import (  # type: ignore[import-not-found]
        add_args_from_model,
        parse_model_from_args,
    )
    from llama_cpp.server.settings import (  # type: ignore[import-not-found]
        ModelSettings,
        ServerSettings,
        Settings,
    )

    parser = argparse.ArgumentParser(description=__doc__)
    add_args_from_model(parser, Settings)
    options = parser.parse_args()
    server = parse_model_from_args(ServerSettings, options)
    patch_generation()
    app = create_app(
        server_settings=server, model_settings=[parse_model_from_args(ModelSettings, options)]
    )
    app.add_middleware(Additions)
    uvicorn.run(app, host=server.host, port=server.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
