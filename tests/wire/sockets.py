"""A client that is nothing but a socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 20


@dataclass(frozen=True)
class Answer:
    """A raw answer: its status, the names and values of its head, its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """The error in its body, which has OpenAI's shape and ends the connection."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["connection"] == "close"
        assert self.headers["x-request-id"]
        assert len(self.body) == int(self.headers["content-length"]) <= 4096
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


def send_all(client: socket.socket, data: bytes) -> None:
    """Send, as long as the server takes it."""
    with contextlib.suppress(ConnectionError):
        client.sendall(data)


def until_closed(client: socket.socket) -> bytes:
    """All that comes until the server closes; a reset after it is no matter."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            came += data
    return came


def answers(came: bytes) -> list[Answer]:
    """The answers in what came, each with a Content-Length."""
    found = []
    while came:
        head, _, rest = came.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers["content-length"])
        found.append(Answer(int(status.split()[1]), headers, rest[:length]))
        came = rest[length:]
    return found


def ask(address: tuple[str, int], data: bytes) -> list[Answer]:
    """Send in one go while reading, and read the answers until the server closes."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as client:
        sending = threading.Thread(target=send_all, args=(client, data))
        sending.start()
        came = until_closed(client)
        sending.join(TIMEOUT_S)
    return answers(came)


def ask_once(address: tuple[str, int], data: bytes) -> Answer:
    """The one answer to a request, on a connection that may live on."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as client:
        client.sendall(data)
        return read_answer(client)


def read_answer(client: socket.socket) -> Answer:
    """The next answer on a connection."""
    came = b""
    while b"\r\n\r\n" not in came:
        data = client.recv(1)
        assert data, f"closed after {came!r}"
        came += data
    length = next(
        int(line.split(b":")[1])
        for line in came.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while length:
        data = client.recv(length)
        assert data, f"closed after {came!r}"
        came, length = came + data, length - len(data)
    [answer] = answers(came)
    return answer
