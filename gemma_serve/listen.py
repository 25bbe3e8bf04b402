"""The HTTP port: bound before anything slow, served by uvicorn, closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from prometheus_client import make_asgi_app

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.profile.schema import Server as ServerSettings
from gemma_serve.profile.schema import Tls

KEEP_ALIVE_S = 75
# A request that has outlived the drain is cut off after this.
CLOSE_S = 1
BACKLOG = 2048


@dataclass(frozen=True)
class Ports:
    """Listening sockets: connections wait in them until uvicorn accepts."""

    http: socket.socket
    metrics: socket.socket | None


@contextlib.contextmanager
def open_ports(settings: ServerSettings) -> Iterator[Ports]:
    """
    The ports that a profile asks for, closed again at the end.

    Raises:
        StartupError: a port is taken or not allowed, or there is no such address.
        ProfileError: the certificate or its key can't be used.
    """
    if settings.tls:
        check_tls(settings.tls)
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(listen(settings.host, settings.port, "server.port"))
        metrics = None
        if (port := settings.grpc_port) is not None:
            # gRPC binds by itself, a moment later; what it would say of a taken port is no help.
            listen(settings.host, port, "server.grpc_port").close()
        if (port := settings.metrics_port) is not None:
            metrics = stack.enter_context(listen(settings.host, port, "server.metrics_port"))
        yield Ports(http, metrics)


def listen(host: str, port: int, key: str) -> socket.socket:
    """
    A listening socket: from here on no other program gets the port.

    Args:
        key: Where the profile says the port.

    Raises:
        StartupError: the port is taken or not allowed, or there is no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(listening.close)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            # Two programs may bind one port with SO_REUSEADDR; only one may listen.
            listening.listen(BACKLOG)
            undo.pop_all()
    except (OSError, UnicodeError) as error:
        raise StartupError(_why_not(host, port, key, error)) from error
    return listening


def _why_not(host: str, port: int, key: str, error: OSError | UnicodeError) -> str:
    if isinstance(error, PermissionError):
        return f"Port {port} needs more rights than this user has; use {key} 1024 or higher."
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        owner = _owner_of(port)
        return f"Port {port} on {host} is taken{owner}; stop that program or choose another {key}."
    return f"server.host {host!r} is no address of this machine; use 127.0.0.1 or 0.0.0.0."


def check_tls(tls: Tls) -> None:
    """
    Refuse a certificate that uvicorn would fail on later.

    Raises:
        ProfileError: a file can't be read, or the two are no pair.
    """
    for key in ("certfile", "keyfile"):
        file = getattr(tls, key)
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise ProfileError(
                f"server.tls.{key} {file!r} can't be read ({error.strerror}); give a PEM file."
            ) from error
    try:
        # The empty password: OpenSSL would ask the terminal for that of an encrypted key.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certfile, tls.keyfile, password="")
    except ssl.SSLError as error:
        raise ProfileError(
            f"server.tls.certfile {tls.certfile!r} and server.tls.keyfile {tls.keyfile!r} are no "
            f"certificate with its unencrypted key ({error.reason or 'not PEM'}); "
            "give PEM files that belong together."
        ) from error


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

    def __init__(self, app: Any, ports: Ports, settings: ServerSettings) -> None:
        self.app, self.settings = app, settings
        self.port = ports.http.getsockname()[1]
        tls = settings.tls
        self._servers = [
            (
                _server(
                    app,
                    ssl_certfile=tls.certfile if tls else None,
                    ssl_keyfile=tls.keyfile if tls else None,
                ),
                ports.http,
            )
        ]
        if ports.metrics is not None:
            self._servers.append((_server(make_asgi_app()), ports.metrics))
        self._tasks: list[asyncio.Task[None]] = []

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
        # The launcher has said how many; uvicorn would add a stack trace for each.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)


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
