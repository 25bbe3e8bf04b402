"""The HTTP port: bound before anything slow, served by uvicorn, closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import uvicorn
import uvloop
from prometheus_client import make_asgi_app

from gemma_serve.api.request_id import with_request_id
from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.profile.schema import Limits, Tls
from gemma_serve.profile.schema import Server as ServerSettings
from gemma_serve.wire.accept import Acceptor, allow_descriptors
from gemma_serve.wire.protocol import LimitedProtocol

# A request that has outlived the drain is cut off after this.
CLOSE_S = 1
BACKLOG = 2048


@dataclass(frozen=True)
class Ports:
    """Listening sockets: connections wait in them until we accept."""

    http: socket.socket
    metrics: socket.socket | None
    probe: socket.socket | None

    def copy(self) -> Ports:
        """The same sockets, to be closed by somebody else."""
        metrics, probe = (bound and bound.dup() for bound in (self.metrics, self.probe))
        return Ports(self.http.dup(), metrics, probe)


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
        metrics = probe = None
        if (port := settings.grpc_port) is not None:
            # gRPC binds by itself, a moment later; what it would say of a taken port is no help.
            listen(settings.host, port, "server.grpc_port").close()
        if (port := settings.metrics_port) is not None:
            metrics = stack.enter_context(listen(settings.host, port, "server.metrics_port"))
        if (port := settings.probe_port) is not None:
            probe = stack.enter_context(listen(settings.host, port, "server.probe_port"))
        yield Ports(http, metrics, probe)


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


def reached_at(host: str) -> str:
    """Under which host a client on this machine reaches a `server.host`, as a URL has it."""
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """uvicorn on connections that we accept; signals are the launcher's, who has more to end."""

    def __init__(self, config: uvicorn.Config, limits: Limits, port: str) -> None:
        super().__init__(config)
        self.limits, self.port = limits, port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on the sockets from now on."""
        make_protocol = partial(
            LimitedProtocol,
            limits=self.limits,
            config=self.config,
            server_state=self.server_state,
            app_state={},
        )
        context = self.config.ssl
        # Of an asyncio server uvicorn calls close and wait_closed, which these have.
        self.servers = [
            Acceptor(bound, make_protocol, self.limits, port=self.port, context=context)  # type: ignore[misc]
            for bound in sockets or ()
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class HttpServer:
    """
    uvicorn on the bound socket, and on the ports beside it that the profile wants.

    Args:
        app: The whole ASGI application.
        probes: The one of the probe port.
    """

    def __init__(
        self, app: Any, probes: Any, ports: Ports, settings: ServerSettings, limits: Limits
    ) -> None:
        self.app, self.settings = app, settings
        self.port = ports.http.getsockname()[1]
        tls = settings.tls
        certificate = {"ssl_certfile": tls.certfile, "ssl_keyfile": tls.keyfile} if tls else {}
        self._servers = [(_server("http", app, limits, **certificate), ports.http)]
        if ports.metrics is not None:
            shown = with_request_id(make_asgi_app())
            self._servers.append((_server("metrics", shown, limits), ports.metrics))
        if ports.probe is not None:
            self._servers.append((_server("probe", probes, limits), ports.probe))
        allow_descriptors(len(self._servers) * limits.max_connections)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        scheme = "https" if self.settings.tls else "http"
        return f"{scheme}://{reached_at(self.settings.host)}:{self.port}"

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


@contextlib.contextmanager
def answered_meanwhile(
    app: Any, ports: Ports, settings: ServerSettings, limits: Limits
) -> Iterator[None]:
    """
    Answer from a thread while a with block is at work in this one; the ports stay open after it.

    Args:
        app: The ASGI application of all ports but that of the metrics.
    """
    server = HttpServer(app, app, ports.copy(), settings, limits)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="answer-meanwhile", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_all(server: HttpServer) -> None:
    await server.stop()
    slow = asyncio.all_tasks() - {asyncio.current_task()}  # connections that took too long
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


def _server(port: str, app: Any, limits: Limits, **options: Any) -> _Server:
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # `logs.py` has uvicorn's loggers too
        access_log=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]  # goes to call_later
        timeout_graceful_shutdown=CLOSE_S,
        **options,
    )
    return _Server(config, limits, port)
