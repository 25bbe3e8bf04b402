"""A plain ASGI application behind our ports, in a thread of the tests: no engine, no vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop

from gemma_serve.listen import HttpServer, open_ports
from gemma_serve.profile.schema import Limits, Server, Tls


@dataclass
class App:
    """Answers with the number of bytes that came; by its path it is slow, early or endless."""

    ended: list[str] = field(default_factory=list)  # paths, in the order in which they were over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        try:
            if path == "/early":  # without a look at the body
                await _answer(send, b"early")
                return
            body = await _body(receive)
            if body is None:
                return
            if path.startswith("/slow"):
                await asyncio.sleep(float(path.removeprefix("/slow/")))
            if path == "/stream":
                await _stream(receive, send)
            else:
                names = b",".join(name for name, _ in scope["headers"])
                await _answer(send, b"%d %s" % (len(body), names))
        finally:
            self.ended.append(path)


async def _body(receive: Any) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(receive: Any, send: Any) -> None:
    """Chunks of 4 KiB until the client has left."""
    left = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not left.done():
        await send({"type": "http.response.body", "body": b"x" * 4096, "more_body": True})
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Side:
    """Where the application is reached."""

    app: App
    address: tuple[str, int]


@contextlib.contextmanager
def serve_app(tls: Tls | None = None, **limits: Any) -> Iterator[Side]:
    """The application on a free port, with these of the profile's `limits`."""
    app, settings = App(), Server(port=0, tls=tls)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with open_ports(settings) as ports:
            server = HttpServer(app, None, ports, settings, Limits(**limits))
            asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
            yield Side(app, ports.http.getsockname())
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
