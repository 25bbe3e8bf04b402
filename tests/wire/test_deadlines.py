"""Deadlines: what a client may take is bounded; what we take is not counted against it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from gemma_serve import metrics
from tests.wire.cases import HOST, request, sized
from tests.wire.serving import Side, serve_app
from tests.wire.sockets import TIMEOUT_S, answers, read_answer, send_all, until_closed

SOON_S = 10  # where the promise is a third of a second, on a machine with other things to do
HALF = request(b"Content-Length: 3", method=b"POST", body=b"a")


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    """A server that is impatient."""
    with serve_app(
        header_timeout_s=0.3,
        body_timeout_s=0.3,
        min_body_bytes_per_s=1000,
        keep_alive_s=0.3,
        write_timeout_s=1.0,
    ) as served:
        yield served


def connect(side: Side) -> socket.socket:
    """A connection that gives up before the test does."""
    client = socket.create_connection(side.address, timeout=TIMEOUT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def refused(reason: str) -> float:
    """How often connections were closed for this reason."""
    value: float = metrics.CONNECTIONS_REFUSED.labels(reason)._value.get()
    return value


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"GET", [408]),
        (b"GET / HTTP/1.1\r\n", [408]),
        (request()[:-2], [408]),
        (b"GET /\r\n", [408]),
        (HALF, [408]),
        (request(b"Transfer-Encoding: chunked", method=b"POST", body=b"3\r\na"), [408]),
        (request(b"Transfer-Encoding: chunked", method=b"POST", body=b"0\r\nA: b\r\n"), [408]),
        (request() + b"GET / HT", [200, 408]),
        (request() + HALF, [200, 408]),
        (request(), [200]),
        (sized(b"3") + b"\r\n", [200]),
    ],
    ids=[
        "nothing", "an empty line", "a method", "a line", "a head but its end", "HTTP/0.9",
        "half a body", "half a chunk", "a trailer but its end", "a request and half a head",
        "a request and half a body", "idle after it", "idle after a line end",
    ],
)  # fmt: skip
def test_client_that_stops(side: Side, sent: bytes, statuses: list[int]) -> None:
    """Whatever it has begun is 408, with the key; where it asked for nothing it is just closed."""
    with connect(side) as client:
        client.sendall(sent)
        began_s = time.monotonic()
        came = answers(until_closed(client))
        assert time.monotonic() - began_s < SOON_S

    assert [answer.status for answer in came] == statuses
    if 408 in statuses:
        assert "_timeout_s); send it faster." in came[-1].error()["message"]


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"GET / HTTP/1.1\r\nA: ", b"a"),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
        (b"", b"\r\n"),
        (request(b"Content-Length: 1000", method=b"POST"), b"a" * 20),
        (request(b"Transfer-Encoding: chunked", method=b"POST", body=b"1;"), b"a" * 2000),
    ],
    ids=["a header", "headers", "empty lines", "a body", "a chunk extension"],
)
def test_client_that_dribbles(side: Side, head: bytes, drop: bytes) -> None:
    """What comes and comes, and too slowly or without sense, is over in time too."""
    began_s = time.monotonic()
    with connect(side) as client:
        client.sendall(head)
        client.settimeout(0.1)
        came = b"still open"
        while came == b"still open":
            assert time.monotonic() - began_s < SOON_S
            send_all(client, drop)
            with contextlib.suppress(TimeoutError):
                came = until_closed(client)
    assert came.startswith(b"HTTP/1.1 408") or (came == b"" and head == b"")


def test_body_that_takes_its_time(side: Side) -> None:
    """A body may take longer than its deadline as long as the rate is kept."""
    with connect(side) as client:
        client.sendall(request(b"Content-Length: 4000", method=b"POST"))
        for _ in range(10):
            client.sendall(b"a" * 400)
            time.sleep(0.1)
        assert read_answer(client).body.startswith(b"4000 ")


def test_our_time_is_not_the_clients(side: Side) -> None:
    """An answer that takes longer than every deadline comes, whatever was sent meanwhile."""
    for meanwhile, statuses in ((b"", [200]), (b"\r\n", [200]), (b"GET / HT", [200, 408])):
        with connect(side) as client:
            client.sendall(request(target=b"/slow/1") + meanwhile)
            assert [answer.status for answer in answers(until_closed(client))] == statuses


def test_pipelined_while_we_work(side: Side) -> None:
    """A body that waits behind an earlier answer is not slow, and is answered."""
    body = b"a" * 300_000
    with connect(side) as client:
        client.sendall(request(target=b"/slow/1"))
        client.sendall(request(b"Content-Length: 300000", method=b"POST", body=body))
        assert [answer.status for answer in answers(until_closed(client))] == [200, 200]


def test_asking_before_a_body(side: Side) -> None:
    """While a client waits for our 100 Continue, its deadline does not run."""
    head = request(b"Content-Length: 3", b"Expect: 100-continue", method=b"POST")
    with connect(side) as client:
        client.sendall(request(target=b"/slow/1") + head)
        assert read_answer(client).status == 200
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_answer(client).status == 200


def test_answered_before_its_body(side: Side) -> None:
    """Who has an answer and goes on sending is listened to for a moment, and no longer."""
    with connect(side) as client:
        client.sendall(request(b"Content-Length: 90000", method=b"POST", target=b"/early"))
        assert read_answer(client).body == b"early"
        began_s = time.monotonic()
        until_closed(client)
        assert time.monotonic() - began_s < SOON_S


def eventually(holds: Callable[[], bool], within_s: float) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_stalled_reader(side: Side) -> None:
    """A client that takes nothing has left: its request ends, and the connection."""
    before = refused("write_timeout")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(side.address)
        client.sendall(request(target=b"/stream"))
        eventually(lambda: "/stream" in side.app.ended, SOON_S)
    assert refused("write_timeout") == before + 1
    side.app.ended.remove("/stream")


def test_slow_reader(side: Side) -> None:
    """A client that takes less than there is, but takes it, is left alone."""
    with connect(side) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(request(target=b"/stream"))
        for _ in range(25):
            assert client.recv(65536)
            time.sleep(0.1)
        assert "/stream" not in side.app.ended


def test_end_of_the_server() -> None:
    """Half a head, half a body and a reader that has stalled hold up no shutdown."""
    with contextlib.ExitStack() as clients, serve_app() as side:
        for sent in (b"GET / HT", b"GET / HTTP/1.1\r\n" + HOST, HALF, request(target=b"/stream")):
            clients.enter_context(connect(side)).sendall(sent)
        time.sleep(0.3)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < SOON_S
