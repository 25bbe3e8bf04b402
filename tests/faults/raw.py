"""Clients by hand: they leave with a reset, read a byte a second, or send half a body."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

# The least that the kernel gives: an answer soon waits on the server's side.
NARROW_BYTES = 2048


class RawClient:
    """One connection with one request; `id` is its x-request-id."""

    def __init__(
        self, url: str, id_: str, headers: Mapping[str, str], *, narrow: bool = False
    ) -> None:
        where = urlsplit(url)
        self.id, self.headers, self.received = id_, headers, b""
        self.socket = socket.socket()
        if narrow:  # before there is a window
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
        self.socket.settimeout(60)
        self.socket.connect((where.hostname or "", where.port or 80))

    def post(self, path: str, body: dict[str, Any], sent_share: float = 1.0) -> None:
        """Send a JSON request, or only the first part of its body."""
        content = json.dumps(body).encode()
        head = {
            "host": "tiny",
            "content-type": "application/json",
            "content-length": str(len(content)),
            "x-request-id": self.id,
            **self.headers,
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        text = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self.socket.sendall(text + content[: int(len(content) * sent_share)])

    def read_until(self, mark: bytes) -> None:
        """
        Read until this has come.

        Raises:
            ConnectionError: the server has closed before.
        """
        while mark not in self.received:
            if not (piece := self.socket.recv(4096)):
                raise ConnectionError(f"closed after {self.received[-200:]!r}")
            self.received += piece

    def read_byte(self) -> bool:
        """Take a byte if there is one; whether the connection is still there."""
        try:
            if select.select([self.socket], [], [], 0)[0]:
                return bool(self.socket.recv(1))
        except OSError:
            return False
        return True

    def read_all(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        with contextlib.suppress(OSError):
            while piece := self.socket.recv(65_536):
                self.received += piece
        return self.received

    def reset(self) -> float:
        """Leave as a client does that crashes; return when, in seconds of the epoch."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        return time.time()

    def close(self) -> None:
        """Let go of the connection."""
        self.socket.close()
