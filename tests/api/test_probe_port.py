"""The probe port: probes and nothing else, answered while the main port's connections are held."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from gemma_serve.api.app import OPEN_PATHS
from tests.http_side import http_side

NUM_IDLE, NUM_HALF_HEADS, NUM_HALF_BODIES = 1000, 100, 100
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
HALF_BODY = HALF_HEAD + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def test_probes_alone() -> None:
    """It needs no key for them, and has nothing else, whoever asks."""
    with http_side({"probe_port": 0}, key="correct-horse") as side:
        assert side.probe_url is not None
        with httpx.Client(base_url=side.probe_url, headers={"x-api-key": "correct-horse"}) as http:
            other = http.get("/v1/models")
        for path in OPEN_PATHS:
            here, there = (httpx.get(url + path).status_code for url in (side.probe_url, side.url))
            assert here == there
    assert other.status_code == 404
    assert other.json()["error"]["message"] == (
        "This port has /health, /livez, /readyz, /startupz, /v2/health/live, /v2/health/ready "
        "alone; use server.port."
    )


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The soft limit that most systems begin with."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def num_descriptors() -> int:
    """Open file descriptors of this process, which is server and clients."""
    return len(os.listdir("/proc/self/fd"))


def test_connections_are_exhausted(few_descriptors: None) -> None:
    """
    Fault F12: a thousand idle connections and two hundred that send half a request.

    Every connection of the main port is held, and probes are answered; then the deadlines have
    ended them all, and their descriptors are back. The server has raised the limit of those.
    """
    limits = {"max_connections": 1000, "header_timeout_s": 2.0, "body_timeout_s": 2.0}
    with http_side({"probe_port": 0}, limits=limits) as side, contextlib.ExitStack() as stack:
        assert side.probe_url is not None
        address = urlsplit(side.url)
        before = num_descriptors()
        clients = [
            socket.create_connection((address.hostname, address.port), timeout=30)
            for _ in range(NUM_IDLE + NUM_HALF_HEADS + NUM_HALF_BODIES)
        ]
        for client in clients:
            stack.callback(client.close)
        for client in clients[NUM_IDLE:]:
            client.sendall(HALF_HEAD)
        for client in clients[-NUM_HALF_BODIES:]:
            client.sendall(HALF_BODY[len(HALF_HEAD) :])
        slowest_s = 0.0
        for _ in range(20):
            began_s = time.monotonic()
            assert httpx.get(f"{side.probe_url}/livez", timeout=30).status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert slowest_s < 5  # the promise is 1 s, on a machine of its own

        deadline_s = time.monotonic() + 30
        while num_descriptors() > before + len(clients):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert httpx.get(f"{side.url}/livez", timeout=30).status_code == 200
