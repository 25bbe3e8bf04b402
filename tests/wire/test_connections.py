"""Connections: so many at a time, each given back, over TLS too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme
import uvloop

from gemma_serve import metrics
from gemma_serve.listen import HttpServer, Ports, open_ports
from gemma_serve.profile.schema import Limits, Server, Tls
from tests.wire.cases import request
from tests.wire.serving import App, serve_app
from tests.wire.sockets import TIMEOUT_S, read_answer, until_closed

LAST = request(b"Connection: close")


def num_open() -> float:
    """Connections that are open, by our own series."""
    value: float = metrics.CONNECTIONS.labels("http")._value.get()
    return value


def wait_for_none() -> None:
    """Until every connection has ended."""
    deadline_s = time.monotonic() + 10
    while num_open():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_more_connections_than_allowed() -> None:
    """They wait, unanswered and unrefused, until one of the others ends."""
    with serve_app(max_connections=2) as side, contextlib.ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_connection(side.address, timeout=TIMEOUT_S))
            for _ in range(3)
        )
        for client in (first, second):
            client.sendall(request())
            assert read_answer(client).status == 200
        third.sendall(request())
        third.settimeout(0.5)
        with pytest.raises(TimeoutError):
            third.recv(1)
        assert num_open() == 2

        first.close()
        third.settimeout(TIMEOUT_S)
        assert read_answer(third).status == 200
    wait_for_none()


def test_more_connections_than_descriptors() -> None:
    """Without a free descriptor nothing dies; who waits is answered when there is one."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serve_app() as side, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(20)]
        num_used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (num_used + 5, limits[1]))
        try:
            for client in clients:
                client.settimeout(TIMEOUT_S)
                client.connect(side.address)
                client.sendall(LAST)
            time.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for client in clients:
            assert until_closed(client).startswith(b"HTTP/1.1 200 ")
    wait_for_none()


def test_tokens_do_not_wait_for_one_another() -> None:
    """Accepted sockets have TCP_NODELAY, as uvicorn's own have: small events leave at once."""
    with serve_app() as side, socket.create_connection(side.address) as client:
        client.sendall(request())
        read_answer(client)
        here = client.getsockname()
        theirs = [
            socket.socket(fileno=os.dup(int(name)))
            for name in os.listdir("/proc/self/fd")
            if _peer(int(name)) == here
        ]
        [accepted] = theirs
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        accepted.close()


def _peer(descriptor: int) -> object:
    with contextlib.suppress(OSError):
        copy = socket.socket(fileno=os.dup(descriptor))
        try:
            return copy.getpeername()
        finally:
            copy.close()
    return None


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tls, ssl.SSLContext]:
    """A certificate of 127.0.0.1, and who trusts it."""
    folder, authority = Path(tmp_path_factory.mktemp("tls")), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Tls(certfile=f"{folder}/cert.pem", keyfile=f"{folder}/key.pem"), context


def test_over_tls(tls: tuple[Tls, ssl.SSLContext]) -> None:
    """The same holds over TLS: answers, refusals, deadlines, and that of a handshake."""
    settings, context = tls
    with serve_app(settings, header_timeout_s=0.5, max_connections=1) as side:
        for sent, status in ((LAST, b"200"), (b"GET / HTTP/1.1\r\n\r\n", b"400"), (b"GET", b"408")):
            with context.wrap_socket(
                socket.create_connection(side.address, timeout=TIMEOUT_S),
                server_hostname="127.0.0.1",
            ) as client:
                client.sendall(sent)
                assert until_closed(client).startswith(b"HTTP/1.1 " + status)
        for stranger in (b"", b"\x16\x03\x01", request()):
            with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
                client.sendall(stranger)
                until_closed(client)
        wait_for_none()


def test_one_connection_for_many_requests() -> None:
    """Two hundred requests share a connection, and nothing is left of it after its end."""
    with serve_app() as side:
        with socket.create_connection(side.address, timeout=TIMEOUT_S) as client:
            for _ in range(200):
                client.sendall(request())
                assert read_answer(client).status == 200
            assert num_open() == 1
        wait_for_none()


@pytest.mark.parametrize("connecting", range(3))
def test_connections_made_as_the_server_ends(connecting: int) -> None:
    """Whoever could still connect is answered; nobody is reset."""
    del connecting  # the moment differs, within the loop that ends
    settings = Server(port=0)
    with contextlib.ExitStack() as stack, open_ports(settings) as ports:
        clients = uvloop.run(connect_until_refused(ports, settings, stack))
        assert len(clients) > 2


async def connect_until_refused(
    ports: Ports, settings: Server, stack: contextlib.ExitStack
) -> list[socket.socket]:
    """From this loop's own thread: between two of its steps a connection is in the backlog."""
    address = ports.http.getsockname()
    server = HttpServer(App(), None, ports, settings, Limits())
    await server.start()
    clients: list[socket.socket] = []
    stopping = asyncio.create_task(server.stop())
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            client = stack.enter_context(socket.create_connection(address, timeout=TIMEOUT_S))
            client.sendall(LAST)
            clients.append(client)
            await asyncio.sleep(0)
    for client in clients:
        answer = await asyncio.to_thread(until_closed, client)
        assert answer.startswith(b"HTTP/1.1 200 ")
    await stopping
    return clients
