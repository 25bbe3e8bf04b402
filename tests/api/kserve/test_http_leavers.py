"""Clients of KServe's HTTP that leave in the middle: nothing of theirs is left running."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

import httpx
import pytest

from tests.api.kserve.http_requests import GENERATE, INFER, STREAM
from tests.api.kserve.refusals import MARKER, Witness
from tests.servers import Server

# Far more than the tiny model writes before its client has left.
LONG = {"text_input": MARKER, "max_new_tokens": 4000, "stream": True, "do_sample": False}
LEAVERS = 20
READ_S = 60


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


def test_a_stream_closed_after_its_first_event(witness: Witness) -> None:
    """The engine stops, and the request counts as failed."""
    before = witness.failures()
    with witness.http.stream("POST", STREAM, json=LONG) as answer:
        assert next(answer.iter_lines()).startswith("data: {")
    witness.await_failures(before + 1)


@pytest.mark.parametrize("path", [INFER, GENERATE])
def test_an_answer_not_waited_for(tiny_server: Server, witness: Witness, path: str) -> None:
    """So it is when the client of a whole answer leaves."""
    before = witness.failures()
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1], "data": [LONG[name]]}
        for name, datatype in (("text_input", "BYTES"), ("max_new_tokens", "INT32"))
    ]
    body = {"inputs": inputs} if path == INFER else LONG
    with _connection(tiny_server) as connection:
        connection.sendall(_request(path, json.dumps(body).encode()))
        witness.await_running()
    witness.await_failures(before + 1)


def test_many_that_reset_their_streams(tiny_server: Server, witness: Witness) -> None:
    """Twenty at once, whose connections are reset and not closed."""
    before = witness.failures()
    body = json.dumps(LONG).encode()
    connections = [_connection(tiny_server) for _ in range(LEAVERS)]
    for connection in connections:
        connection.sendall(_request(STREAM, body))
    for connection in connections:
        assert connection.recv(12) == b"HTTP/1.1 200"
        linger = struct.pack("ii", 1, 0)  # close sends RST
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
    witness.await_failures(before + LEAVERS)


HALVES = {
    "head": b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Le",
    "no body": b"Content-Length: 1000\r\n\r\n",
    "half a body": b'Content-Length: 1000\r\n\r\n{"inputs": [',
    "all but a byte": b'Content-Length: 3\r\n\r\n{"',
    "half a chunk": b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"inp',
    "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "half of gzip": b"Content-Encoding: gzip\r\nContent-Length: 100\r\n\r\n\x1f\x8b\x08\0\0\0\0\0",
    "half of the tensors": (
        b'Inference-Header-Content-Length: 14\r\nContent-Length: 100\r\n\r\n{"inputs": []}\x05\0'
    ),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("path", [INFER, GENERATE, STREAM, "/v2/repository/index"])
def test_half_a_request(tiny_server: Server, path: str, half: bytes) -> None:
    """A client that leaves before its request is whole leaves nothing behind, nor in the log."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode()
    with _connection(tiny_server) as connection:
        connection.sendall(half if half.startswith(b"POST") else head + half)


def test_half_a_request_that_waits(tiny_server: Server, witness: Witness) -> None:
    """While twenty half-sent bodies are waited for, others are answered."""
    head = f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".encode()
    connections = [_connection(tiny_server) for _ in range(LEAVERS)]
    for connection in connections:
        connection.sendall(head + b'{"inputs"')
    answer = witness.http.post(GENERATE, json={"text_input": "Rome is", "max_new_tokens": 1})
    assert answer.status_code == 200
    for connection in connections:
        connection.close()


def _connection(server: Server) -> socket.socket:
    url = httpx.URL(server.base_url)
    return socket.create_connection((url.host, url.port), timeout=READ_S)


def _request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
