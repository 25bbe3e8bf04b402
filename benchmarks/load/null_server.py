"""
A server without a model: paced events at known times, to find out what the client itself can do.

    python -m benchmarks nullserver --port 9000 --ttft-ms 20 --itl-ms 5

It answers OpenAI's streaming chat and completions with `max_tokens` tokens, at times that are
computed when the request is read; nothing that is measured against it is a result about a model.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
TOKEN_ID = 1000
NAME = "null"


@dataclass(frozen=True)
class Pace:
    """When tokens come: the first after `ttft_s`, each next `itl_s` later, in events of `chunk`."""

    ttft_s: float = 0.02
    itl_s: float = 0.005
    chunk_tokens: int = 1


class NullServer(asyncio.Protocol):
    """One connection."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.transport: asyncio.Transport | None = None
        self.body = b""
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    def on_message_begin(self) -> None:
        """A new request."""
        self.body = self.url = b""

    def on_url(self, url: bytes) -> None:
        """The path."""
        self.url += url

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer: a stream to a POST, the model list to anything else."""
        if self.parser.get_method() != b"POST":
            self._json({"object": "list", "data": [{"id": NAME, "object": "model"}]})
            return
        try:
            asked = json.loads(self.body)
            # Chats have either name: OpenAI's newer one, as vLLM's client sends it, or the older.
            tokens = int(asked.get("max_completion_tokens") or asked["max_tokens"])
        except (ValueError, KeyError, TypeError, AttributeError):
            self._json({"error": {"message": "a JSON object with max_tokens is needed"}}, 400)
            return
        self._stream(asked, tokens, chat=b"chat" in self.url)

    def _json(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Length: {len(body)}\r\n"
        self._write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)

    def _stream(self, asked: dict[str, Any], tokens: int, *, chat: bool) -> None:
        """Everything is written out now; only the times are to come."""
        loop, pace = asyncio.get_running_loop(), self.pace
        began_s = loop.time()
        starts = range(0, tokens, pace.chunk_tokens)
        ids = bool(asked.get("return_token_ids"))
        for number, start in enumerate(starts):
            size = min(pace.chunk_tokens, tokens - start)
            last = start + size == tokens
            data = _token_event(chat=chat, size=size, last=last, ids=ids)
            if number == 0:
                data = HEAD + data
            if last:
                data += _event(_usage(tokens)) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
            due_s = began_s + pace.ttft_s + number * pace.itl_s * pace.chunk_tokens
            self._at(loop, due_s, data)

    def _at(self, loop: asyncio.AbstractEventLoop, due_s: float, data: bytes) -> None:
        if due_s <= loop.time():
            self._write(data)
        else:
            loop.call_at(due_s, self._write, data)

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()


@functools.cache  # the server must be faster than what it measures
def _token_event(*, chat: bool, size: int, last: bool, ids: bool) -> bytes:
    return _event(_choice(chat=chat, size=size, last=last, ids=ids))


def _choice(*, chat: bool, size: int, last: bool, ids: bool) -> dict[str, Any]:
    text = " x" * size
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if last else None}
    choice |= {"delta": {"content": text}} if chat else {"text": text}
    if ids:
        choice["token_ids"] = [TOKEN_ID] * size
    return {"id": "null", "object": "chunk", "model": NAME, "choices": [choice]}


def _usage(tokens: int) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    return {"id": "null", "object": "chunk", "model": NAME, "choices": [], "usage": usage}


def _event(said: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(said).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def serve_null(
    pace: Pace, host: str, port: int, on_ready: Callable[[str], None] = lambda _url: None
) -> None:
    """Serve until interrupted; `on_ready` gets the address, with the port that was free for 0."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: NullServer(pace), host, port
        )
        async with server:
            on_ready(f"http://{host}:{server.sockets[0].getsockname()[1]}")
            await server.serve_forever()

    uvloop.run(serve())
