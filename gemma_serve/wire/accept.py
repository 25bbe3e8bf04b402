"""
Accepts connections, as many as are allowed at a time: others wait in the kernel's backlog.

uvicorn's limit_concurrency would answer them 503, probes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable

from gemma_serve import metrics
from gemma_serve.profile.schema import Limits
from gemma_serve.wire.protocol import LimitedProtocol

# After a refusal of the kernel's, such as for want of file descriptors: asyncio waits as long.
RETRY_S = 1.0
# For all that are no connections: files, vLLM's sockets, images that are fetched.
OTHER_DESCRIPTORS = 1024


def allow_descriptors(num_connections: int) -> None:
    """Raise the soft limit of open files to what so many connections need, if the hard one lets."""
    needed = num_connections + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def limit_writes(listening: socket.socket, timeout_s: float) -> None:
    """
    End connections whose client takes nothing for so long; accepted sockets inherit it.

    Source: tcp(7), TCP_USER_TIMEOUT, which is for windows that stay closed too; Linux has it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        timeout_ms = int(timeout_s * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


class Acceptor:
    """One listening socket at work; to uvicorn, what asyncio's `create_server` returns."""

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], LimitedProtocol],
        limits: Limits,
        *,
        port: str,
        context: ssl.SSLContext | None,
    ) -> None:
        listening.setblocking(False)
        limit_writes(listening, limits.write_timeout_s)
        self._listening, self._make_protocol, self._context = listening, make_protocol, context
        self._handshake_s = limits.header_timeout_s if context else None
        self._free = asyncio.Semaphore(limits.max_connections)
        self._open = metrics.CONNECTIONS.labels(port)
        self._connections: set[asyncio.Task[None]] = set()
        self._loop, self._readable = asyncio.get_running_loop(), asyncio.Event()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more than what the kernel has taken: closing the socket would reset those."""
        self._loop.remove_reader(self._listening)
        self._accepting.cancel()
        with contextlib.suppress(OSError):
            while True:
                self._begin(self._listening.accept()[0])

    async def wait_closed(self) -> None:
        """Wait for the connections to end."""
        await asyncio.gather(self._accepting, *self._connections, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            await self._free.acquire()
            self._begin(await self._next())

    async def _next(self) -> socket.socket:
        # asyncio's sock_accept would lose the connection that comes while it is cancelled.
        while True:
            try:
                return self._listening.accept()[0]
            except BlockingIOError:
                self._readable.clear()
                self._loop.add_reader(self._listening, self._on_readable)
                await self._readable.wait()
            except ConnectionAbortedError:  # it left while it waited
                continue
            except OSError:
                await asyncio.sleep(RETRY_S)

    def _on_readable(self) -> None:
        # Else it is called again and again until the connection is accepted.
        self._loop.remove_reader(self._listening)
        self._readable.set()

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = asyncio.create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """One connection, from accept to its end."""
        self._open.inc()
        try:
            _, protocol = await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
            )
            await protocol.lost
        except OSError:  # ssl.SSLError too: no handshake, or none in time
            connection.close()
        finally:
            self._open.dec()
            self._free.release()
