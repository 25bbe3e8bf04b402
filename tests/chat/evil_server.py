"""An https server that misbehaves by path, and the network that stands between it and a fetch."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpcore
import trustme

PUBLIC = "93.184.215.14"
HOST = "images.example"
Answer = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Detour(httpcore.AsyncNetworkBackend):
    """Leads every connection to one local port and notes the address that was asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, int]] = []
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *args: Any) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        return await self._network.connect_tcp("127.0.0.1", self.port, *args)


@dataclass
class EvilServer:
    """Answers each path with what `paths` holds for it; notes the heads of the requests."""

    paths: dict[str, Answer]
    port: int = 0
    heads: list[str] = field(default_factory=list)
    client_context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            await self.paths[head.split()[1]](writer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def evil_server(paths: dict[str, Answer], *names: str) -> AsyncIterator[EvilServer]:
    """Runs on a free port of loopback, with a certificate for `names` (default: `HOST`)."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or (HOST,))).configure_cert(context)
    evil = EvilServer(paths)
    authority.configure_trust(evil.client_context)
    server = await asyncio.start_server(evil.answer, "127.0.0.1", 0, ssl=context)
    evil.port = server.sockets[0].getsockname()[1]
    try:
        yield evil
    finally:
        server.close()


def raw(data: bytes) -> Answer:
    """Sends these bytes and closes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def respond(body: bytes = b"", *headers: str, status: str = "200 OK") -> Answer:
    """An ordinary answer, with Content-Length unless `headers` say otherwise."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def redirect(location: str, status: str = "302 Found") -> Answer:
    """Sends the client elsewhere."""
    return respond(b"", f"Location: {location}", status=status)


def gzip_bomb(size: int) -> Answer:
    """Zeroes that a client would unpack to a thousand times the bytes."""
    return respond(gzip.compress(bytes(size)), "Content-Encoding: gzip", "Content-Type: image/png")


async def endless(writer: asyncio.StreamWriter) -> None:
    """A body without end, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def endless_chunks(writer: asyncio.StreamWriter) -> None:
    """A chunked body without end, one byte a chunk."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n" * 4096)
        await writer.drain()


async def endless_interim(writer: asyncio.StreamWriter) -> None:
    """Interim answers without end, never the real one."""
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 64)
        await writer.drain()


async def endless_head(writer: asyncio.StreamWriter) -> None:
    """Header lines without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def drip(writer: asyncio.StreamWriter) -> None:
    """One byte at a time, slower than any patience."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"\x89")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(writer: asyncio.StreamWriter) -> None:
    """Accepts, and says nothing."""
    await asyncio.sleep(60)
