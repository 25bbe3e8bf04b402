"""The HTTP port: bound before anything slow, served by uvicorn, closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import uvicorn
from prometheus_client import make_asgi_app

from gemma_serve.errors import StartupError
from gemma_serve.profile.schema import Server as ServerSettings

KEEP_ALIVE_S = 75
# A request that has outlived the drain is cut off after this.
CLOSE_S = 1


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """
    A bound socket, closed again at the end.

    Raises:
        StartupError: the port is taken or not allowed, or there is no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise StartupError(_why_not(host, port, error)) from error
    with bound:
        yield bound


def _why_not(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"server.host {host!r} is no address of this machine; use 127.0.0.1 or 0.0.0.0."
    if isinstance(error, PermissionError):
        return f"Port {port} needs more rights than this user has; use server.port 1024 or higher."
    owner = _owner_of(port)
    return (
        f"Port {port} on {host} is taken{owner}; stop that program or choose another server.port."
    )


def _owner_of(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            local_port = connection.laddr.port if connection.laddr else None
            if connection.status == psutil.CONN_LISTEN and local_port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


class _QuietServer(uvicorn.Server):
    """Leaves signals to the launcher, which has more to end than HTTP."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """uvicorn on the bound socket, and the metrics port beside it when the profile wants one."""

    def __init__(self, app: Any, bound: socket.socket, settings: ServerSettings) -> None:
        self.app, self.settings = app, settings
        self.port = bound.getsockname()[1]
        tls = settings.tls
        self._servers = [
            (
                _server(
                    app,
                    ssl_certfile=tls.certfile if tls else None,
                    ssl_keyfile=tls.keyfile if tls else None,
                ),
                bound,
            )
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.ExitStack()
        if settings.metrics_port is not None:
            metrics_socket = self._stack.enter_context(listen(settings.host, settings.metrics_port))
            self._servers.append((_server(make_asgi_app()), metrics_socket))

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.settings.tls else 'http'}://{host}:{self.port}"

    async def start(self) -> None:
        """Accept connections from now on."""
        for server, bound in self._servers:
            self._tasks.append(asyncio.create_task(server.serve(sockets=[bound])))
        while not all(server.started for server, _ in self._servers):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close the ports; what is still being answered is cut off."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stack.close()


def _server(app: Any, **options: Any) -> _QuietServer:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_S,
        **options,
    )
    return _QuietServer(config)
