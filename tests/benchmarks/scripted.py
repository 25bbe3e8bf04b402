"""
A server that does to each request what its script says: for behaviour that no honest server shows.

It generates nothing; each test writes the bytes, and when they come, itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Script = Callable[["Answer", dict[str, Any]], Awaitable[None]]


class Answer:
    """What a script writes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def head(self, status: int = 200, *, extra: str = "") -> None:
        """A head whose body comes in HTTP chunks."""
        await self.raw(
            f"HTTP/1.1 {status} X\r\nContent-Type: text/event-stream\r\n{extra}"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """One HTTP chunk."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, said: Any) -> None:
        """One event."""
        await self.chunk(sse(said))

    async def token(self, number: int, *, finish: str | None = None, text: str = " x") -> None:
        """A completion's event of one token, with its id."""
        choice = {"index": 0, "text": text, "token_ids": [number], "finish_reason": finish}
        await self.event({"choices": [choice]})

    async def end(self) -> None:
        """[DONE] and HTTP's last chunk."""
        await self.chunk(b"data: [DONE]\n\n")
        await self.raw(b"0\r\n\r\n")


def sse(said: Any) -> bytes:
    """An event's bytes."""
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The usage event at a stream's end."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


async def honest(answer: Answer, asked: dict[str, Any]) -> None:
    """A complete answer of max_tokens tokens, one an event."""
    await answer.head()
    tokens = asked["max_tokens"]
    for number in range(tokens):
        await answer.token(number, finish="length" if number + 1 == tokens else None)
    await answer.event(usage(3, tokens))
    await answer.end()


@contextlib.asynccontextmanager
async def scripted(script: Script, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The address of a server that answers every POST by the script, and a GET with its model."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if head.startswith("GET"):
                    await _model_list(writer)
                    continue
                length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
                await script(Answer(writer), json.loads(await reader.readexactly(length)))
                if writer.is_closing():
                    break
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    name = f"[{host}]" if ":" in host else host
    async with server:
        yield f"http://{name}:{server.sockets[0].getsockname()[1]}"


async def _model_list(writer: asyncio.StreamWriter) -> None:
    body = json.dumps({"data": [{"id": "scripted"}]}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
