"""
A server that gives each request the answer of a script, over real HTTP.

It generates nothing; it plays what a Triton has said, or what no honest server says.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Said:
    """An answer; with `cut`, the connection is closed before its announced end."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    cut: bool = False


Script = Callable[[Asked], Said]


@dataclass
class Scripted:
    """A running server, and what it was asked."""

    url: str
    asked: list[Asked]
    close: Callable[[], None]


def json_said(body: Any, status: int = 200) -> Said:
    """An answer in JSON."""
    return Said(json.dumps(body).encode(), status)


def sse_said(*events: Any) -> Said:
    """Server-sent events, as Triton writes them."""
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return Said(data, headers={"content-type": "text/event-stream; charset=utf-8"})


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """A server on the loopback that answers by the script."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Asked(self.command, self.path, headers, self.rfile.read(length))
            asked.append(request)
            said = script(request)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(said.body) + said.cut))
            self.end_headers()
            self.wfile.write(said.body)
            self.close_connection = True

        do_GET = do_POST  # noqa: N815  # the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that leave are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield Scripted(f"http://127.0.0.1:{server.server_port}", asked, close)
    finally:
        close()
        thread.join(30)
