"""
One HTTP/1.1 connection that stamps what it reads at the socket, and the pool of them.

Nothing is parsed but HTTP's own framing: while requests run, the client costs as little as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import httptools

from benchmarks.records import ErrorKind


class Read(NamedTuple):
    """One read of the socket: when, and how far the answer's body was complete after it."""

    at_s: float  # time.perf_counter
    body_end: int


@dataclass(slots=True)
class Exchange:
    """One request and its answer as bytes."""

    send_s: float = 0.0  # time.perf_counter
    end_s: float = 0.0
    last_read_s: float = 0.0
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    reads: list[Read] = field(default_factory=list)
    error: ErrorKind | None = None
    error_message: str | None = None


class Carrier(Protocol):
    """A connection of any kind that carries one exchange at a time."""

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow on it."""

    async def exchange(self, request: bytes, exchange: Exchange) -> None:
        """Write a request, and wait until its answer is complete or broken."""

    def fail(self, error: ErrorKind, message: str) -> None:
        """End the open exchange with an error, and the connection with it."""

    async def close(self) -> None:
        """Close at once."""


class Connection(asyncio.Protocol):
    """HTTP/1.1, one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._framed = False  # the head says where the body ends

    async def exchange(self, request: bytes, exchange: Exchange) -> None:
        """Write a request, and wait until its answer is complete or broken."""
        assert self.transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange = exchange
        self._ended = asyncio.get_running_loop().create_future()
        exchange.send_s = exchange.last_read_s = time.perf_counter()
        self.transport.write(request)
        try:
            await self._ended
        finally:
            exchange.end_s = exchange.last_read_s if exchange.error is None else time.perf_counter()
            if self._exchange is not None:
                self.abort()

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow on it."""
        return self.transport is not None and not self.transport.is_closing() and not self._exchange

    def abort(self) -> None:
        """Close at once; an open exchange ends with it."""
        self._exchange = None
        if self.transport is not None:
            self.transport.abort()

    def fail(self, error: ErrorKind, message: str) -> None:
        """End the open exchange with an error, and the connection with it."""
        if self._exchange is not None:
            self._exchange.error, self._exchange.error_message = error, message
        self._finish()
        self.abort()

    async def close(self) -> None:
        """Close at once."""
        self.abort()

    def _finish(self) -> None:
        self._exchange = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transport has the methods and not the base class.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Stamp the read, then take HTTP's framing off."""
        now_s = time.perf_counter()
        exchange = self._exchange
        if exchange is None or self._parser is None:
            self.abort()
            return
        exchange.last_read_s = now_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail("bad_answer", f"no HTTP/1.1 answer: {error}")
            return
        exchange.reads.append(Read(now_s, len(exchange.body)))

    def connection_lost(self, exc: Exception | None) -> None:
        """An end in the middle of an answer is a failure of its own kind."""
        exchange = self._exchange
        if exchange is None:
            return
        why = str(exc) or type(exc).__name__ if exc else "the server closed the connection"
        if exchange.status is None:
            self.fail("connect", f"no answer: {why}")
        elif not self._framed:
            self._finish()  # HTTP/1.0's way to end a body
        else:
            self.fail("early_close", f"in the middle of an answer: {why}")

    # --- httptools' callbacks

    def on_message_begin(self) -> None:
        """A new head."""
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Content-Length or chunks: without them the answer ends with the connection."""
        lower = name.lower()
        if lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value):
            self._framed = True

    def on_headers_complete(self) -> None:
        """The status."""
        if self._parser is not None and self._exchange is not None:
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep the bytes."""
        if self._exchange is not None:
            self._exchange.body += body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        keep = self._parser is not None and self._parser.should_keep_alive()
        self._finish()
        if not keep and self.transport is not None:
            self.transport.close()


@dataclass(slots=True)
class Endpoint:
    """Where requests go: scheme, host, port and the path before the API's own; gRPC's address."""

    url: str
    api_key: str | None = None
    grpc: str | None = None  # HOST:PORT
    host: str = field(init=False)
    port: int = field(init=False)
    prefix: str = field(init=False)
    tls: ssl.SSLContext | None = field(init=False)

    def __post_init__(self) -> None:
        parts = _split(self.url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.prefix = parts.path.rstrip("/")
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None

    @property
    def authority(self) -> str:
        """HOST:PORT as in a URL: the colons of an IPv6 address stand in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def request(self, path: str, body: bytes) -> bytes:
        """A POST of JSON, ready to be written."""
        key = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        head = (
            f"POST {self.prefix}{path} HTTP/1.1\r\nHost: {self.authority}\r\n"
            f"Content-Type: application/json\r\nAccept: text/event-stream\r\n{key}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _split(url: str) -> SplitResult:
    # urlsplit and its port have errors of their own, for brackets and ports that are none.
    with contextlib.suppress(ValueError):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise ValueError(f"'{url}' is no server's address; write it like http://127.0.0.1:8000")


def unreachable(endpoint: Endpoint, error: OSError) -> ConnectionError:
    """Why there is no connection, and what to do: start a server, or let more files be open."""
    if no_more_files(error):
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ConnectionError(
            f"no more connections to {endpoint.url} can be opened: this process has the {most} "
            "open files that it may have; raise that with ulimit -n, or offer a lower load"
        )
    return ConnectionError(
        f"no server answers at {endpoint.url} ({error.strerror or error}); start one, or give "
        "its address as the target"
    )


def no_more_files(error: OSError) -> bool:
    """Whether the server has no part in it: this process has as many open as it may."""
    return error.errno == errno.EMFILE


Connect = Callable[[Endpoint], Awaitable[Carrier]]


async def connect_http(endpoint: Endpoint) -> Carrier:
    """
    A connection to the endpoint's HTTP port.

    Raises:
        OSError: nobody listens there.
    """
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, endpoint.host, endpoint.port, ssl=endpoint.tls
    )
    return connection


class Pool:
    """Connections to one endpoint, kept open between requests."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        stall_s: float,
        timeout_s: float,
        connect: Connect = connect_http,
    ) -> None:
        self.endpoint = endpoint
        self.stall_s, self.timeout_s = stall_s, timeout_s
        self._connect = connect
        self._idle: list[Carrier] = []
        self._busy: dict[Carrier, Exchange] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pool:
        self._watch = asyncio.create_task(self._watch_limits())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for connection in (*self._idle, *self._busy):
            await connection.close()

    async def open(self, count: int) -> None:
        """Connect ahead of time, so that no request waits for it."""
        ready = (self._connect(self.endpoint) for _ in range(count))
        self._idle += await asyncio.gather(*ready)

    async def send(self, request: bytes) -> Exchange:
        """One exchange; whatever goes wrong stands in it."""
        exchange = Exchange()
        try:
            connection = self._take() or await self._connect(self.endpoint)
        except OSError as error:
            now_s = time.perf_counter()
            message = f"{self.endpoint.authority}: {error.strerror or error}"
            if no_more_files(error):
                message = str(unreachable(self.endpoint, error))
            return Exchange(now_s, now_s, now_s, error="connect", error_message=message)
        self._busy[connection] = exchange
        try:
            await connection.exchange(request, exchange)
        finally:
            del self._busy[connection]
            if connection.reusable:
                self._idle.append(connection)
            else:
                await connection.close()
        return exchange

    def _take(self) -> Carrier | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _watch_limits(self) -> None:
        """One look at all open requests now and then, instead of timers for each."""
        pause_s = max(0.02, min(0.5, self.stall_s / 4, self.timeout_s / 4))
        while True:
            await asyncio.sleep(pause_s)
            now_s = time.perf_counter()
            for connection, exchange in list(self._busy.items()):
                if now_s - exchange.send_s > self.timeout_s:
                    connection.fail("timeout", f"not finished after {self.timeout_s:g} s")
                elif now_s - exchange.last_read_s > self.stall_s:
                    connection.fail("stall", f"no byte for {self.stall_s:g} s")
