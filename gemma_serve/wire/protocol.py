"""
uvicorn's HTTP/1.1 protocol, with bounds on what a client may send and how long it may take.

Writing costs nothing more: a reader that takes nothing is the kernel's to notice (`accept.py`). A
connection has one timer, which looks at the deadline when it fires; reads move only the deadline.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from enum import Enum
from typing import Any

from httptools import HttpParserCallbackError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gemma_serve import metrics
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Limits
from gemma_serve.wire.head import check_head, malformed
from gemma_serve.wire.refusal import (
    body_too_slow,
    head_too_slow,
    headers_too_large,
    raw_answer,
    too_many_chunks,
    too_many_headers,
    url_too_long,
)

# After a refusal the client may still be sending: a socket that is closed over unread bytes takes
# the answer with it. So does nginx (lingering_close).
LINGER_S = 2.0
# What a new connection gets to ask when the server ends: the request may be on its way.
LAST_REQUEST_S = 0.5
# Of each header line, beside its name and value: colon, space, end of line.
LINE_BYTES = 4
# Of each chunk, beside its data: its size in hexadecimal digits, and two ends of line.
CHUNK_BYTES = 32


class Reading(Enum):
    """What is awaited of the client."""

    NOTHING = "a request has come whole, and is ours to answer"
    REQUEST = "no byte of a head has come"
    HEAD = "a head has begun"
    BODY = "a body is coming"


class LimitedProtocol(HttpToolsProtocol):
    """One connection; `lost` is done when it has ended."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits
        self.lost: asyncio.Future[None] = self.loop.create_future()
        self.url = b""
        self._reading = Reading.NOTHING
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: RequestError | None = None
        self._is_refused = False
        # Of the request that is being read: of header lines that are whole; of all that is neither
        # them nor body, an endless line among it; chunks.
        self._header_bytes = self._framing_bytes = self._num_chunks = 0

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Await a request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await(Reading.REQUEST, self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is left of it, and say so to who counts connections."""
        if isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT:
            metrics.CONNECTIONS_REFUSED.labels("write_timeout").inc()
        self._reading = Reading.NOTHING
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def shutdown(self) -> None:
        """End with the request that is being answered, or else now; the first may still come."""
        if self.cycle is not None or self._is_refused:
            super().shutdown()
        elif self._reading is Reading.REQUEST:
            self._await(Reading.REQUEST, LAST_REQUEST_S)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection is about to close."""
        if self._is_refused:
            return
        if self._reading is Reading.NOTHING:
            # Also for an empty line before a head, which no callback tells of.
            self._await(Reading.REQUEST, self.limits.header_timeout_s)
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > self._most_framing_bytes() and not self._is_refused:
            self._refuse(headers_too_large(self.limits))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # ours says more
        """Refuse what the parser would not take, or one of our checks above it."""
        error = sys.exception()
        reason = "malformed" if isinstance(error, HttpParserCallbackError) else error
        self._refuse(
            self._refusal or malformed(f"This is no request of HTTP/1.1 ({reason}); mend the head.")
        )

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: uvicorn would ask the operator for a WebSocket library."""

    # --- what the parser finds

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._header_bytes = self._framing_bytes = self._num_chunks = 0
        self._await(Reading.HEAD, self.limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Refuse a URL that is too long."""
        super().on_url(url)
        if len(self.url) > self.limits.max_url_bytes:
            self._stop(url_too_long(self.limits))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse headers that are too many or too long; drop those that follow a body."""
        self._header_bytes += len(name) + len(value) + LINE_BYTES
        if self._header_bytes > self.limits.max_header_bytes:
            self._stop(headers_too_large(self.limits))
        if self._reading is Reading.BODY:
            return  # uvicorn would put them among those that the keys were read from
        if len(self.headers) >= self.limits.max_headers:
            self._stop(too_many_headers(self.limits))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, and await the body."""
        version, upgrades = self.parser.get_http_version(), self.parser.should_upgrade()
        try:
            check_head(version, self.headers, upgrades=upgrades)
        except RequestError as error:
            self._stop(error)
        super().on_headers_complete()
        self._framing_bytes = 0
        self._await(Reading.BODY, self.limits.body_timeout_s)

    def on_chunk_header(self) -> None:
        """Refuse a body in too many chunks: each costs more than its bytes."""
        self._num_chunks += 1
        if self._num_chunks > self.limits.max_chunks:
            self._stop(too_many_chunks(self.limits))

    def on_body(self, body: bytes) -> None:
        """Give the rest of the body more time: at least `min_body_bytes_per_s` must come."""
        self._framing_bytes -= len(body)
        if not self.cycle.response_complete:
            self._deadline_s += len(body) / self.limits.min_body_bytes_per_s
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: what follows is our time."""
        super().on_message_complete()
        self._reading = Reading.NOTHING
        self._framing_bytes = 0
        if self.cycle.response_complete:
            # The body of a request that was answered before; it has ended uvicorn's own keep-alive.
            self._await(Reading.REQUEST, self.limits.keep_alive_s)

    def on_response_complete(self) -> None:
        """Start the clock anew for what of the next request has come meanwhile."""
        was_last = self._is_refused and not self.pipeline
        super().on_response_complete()
        if was_last and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._linger()  # behind it was what is refused
            return
        if self._reading is Reading.NOTHING:
            return
        self._unset_keepalive_if_required()
        # Nobody will read the rest of a body that has its answer.
        self._await(self._reading, LINGER_S if self._has_answer() else self._timeout_s())

    # --- deadlines

    def _await(self, reading: Reading, timeout_s: float) -> None:
        self._reading, self._deadline_s = reading, self.loop.time() + timeout_s
        if self._timer is not None and self._timer.when() > self._deadline_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._reading is Reading.NOTHING or self.transport.is_closing():
            return
        if self._waits_for_us():
            self._deadline_s = self.loop.time() + self._timeout_s()
        if self._deadline_s > self.loop.time():
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)
        else:
            self._on_timeout()

    def _timeout_s(self) -> float:
        is_body = self._reading is Reading.BODY
        return self.limits.body_timeout_s if is_body else self.limits.header_timeout_s

    def _waits_for_us(self) -> bool:
        """Whether the client could not have sent more, or need not have before we answer."""
        if self._is_refused:
            return False
        if self.flow.read_paused or self.pipeline:
            return True
        if self._reading is Reading.BODY:
            return bool(self.cycle.waiting_for_100_continue)
        return self._is_answering()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _has_answer(self) -> bool:
        """Whether the request whose body is coming was answered before its end."""
        return self._reading is Reading.BODY and not self._is_answering()

    def _on_timeout(self) -> None:
        if self._is_refused or self._has_answer():
            self.transport.abort()
        elif self._reading is Reading.REQUEST:
            self.transport.close()  # nobody asked for anything
        else:
            is_head = self._reading is Reading.HEAD
            self._refuse(head_too_slow(self.limits) if is_head else body_too_slow(self.limits))

    # --- refusals

    def _stop(self, error: RequestError) -> None:
        """Refuse from within a callback of the parser, which stops with the exception."""
        self._refusal = error
        raise error

    def _refuse(self, error: RequestError) -> None:
        """Answer and close; first finish what was asked before, in whole requests."""
        self._is_refused = True
        metrics.CONNECTIONS_REFUSED.labels(error.code).inc()
        cycle = self.cycle
        if self.pipeline and cycle.more_body:
            self.pipeline.popleft()  # others are before it, and its turn never comes
            self._ignore_the_rest()
            return
        if self._is_answering():
            if not cycle.more_body:
                cycle.keep_alive = False
                self._ignore_the_rest()
                return
            if cycle.response_started:
                self.transport.abort()
                return
            # Nobody will read what the application says of a body that it did not get.
            cycle.disconnected = True
            cycle.message_event.set()
        if not self._has_answer():
            path = self.url.decode("ascii", "replace")
            self.transport.write(raw_answer(error, path, self.server_state.default_headers))
        self._linger()

    def _ignore_the_rest(self) -> None:
        """Throw away what comes while requests before it are answered, rather than not read it."""
        self._reading = Reading.NOTHING
        self.flow.resume_reading()

    def _linger(self) -> None:
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._await(Reading.BODY, LINGER_S)

    def _most_framing_bytes(self) -> int:
        return self.limits.max_header_bytes + CHUNK_BYTES * self._num_chunks
