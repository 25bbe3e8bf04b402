"""What systemd is told, on a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemma_serve import follower
from gemma_serve.notify import notify, watchdog, watchdog_interval_s
from gemma_serve.profile.load import load_profile
from gemma_serve.progress import Progress

WAIT_S = 10


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd listens for its service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_assignments_come_in_one_message(manager: socket.socket) -> None:
    """What belongs together is one datagram, a line each."""
    notify("READY=1", "STATUS=Serving tiny")

    assert manager.recv(1024) == b"READY=1\nSTATUS=Serving tiny"


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ has no file: containers and older systemd use such."""
    name = f"gemma-serve-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        notify("STOPPING=1")

        assert listening.recv(1024) == b"STOPPING=1"


@pytest.mark.parametrize("address", [None, "", "/no/such/socket", "@nobody-listens-here"])
def test_without_a_manager_nothing_happens(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by hand, or by a manager that is gone, the server serves all the same."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify("READY=1")


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        pytest.param({}, None, id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "60000000"}, 30.0, id="half of WatchdogSec"),
        pytest.param(
            {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0, id="ours"
        ),
        pytest.param({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None, id="another's"),
        pytest.param({"WATCHDOG_USEC": "soon"}, None, id="no number"),
    ],
)
def test_watchdog_interval(environ: dict[str, str], interval_s: float | None) -> None:
    """A sign of life twice in WatchdogSec, if this process is the one that is watched."""
    assert watchdog_interval_s(environ) == interval_s


def test_signs_of_life(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come while the event loop runs, and no more after the block."""
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def live() -> None:
        async with watchdog():
            for _ in range(3):
                assert await asyncio.to_thread(manager.recv, 1024) == b"WATCHDOG=1"
        manager.setblocking(False)
        while True:
            try:
                manager.recv(1024)
            except BlockingIOError:
                break
        await asyncio.sleep(0.01)
        with pytest.raises(BlockingIOError):
            manager.recv(1024)

    asyncio.run(live())


def test_a_node_after_the_first(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ready when its workers are, alive while it looks for node 0, and stops without that."""
    looks = iter([True, False, False, False])
    ended = threading.Event()
    monkeypatch.setattr(follower, "POLL_S", 0.01)
    monkeypatch.setattr(follower, "is_connected_to_store", lambda _port: next(looks))
    monkeypatch.setattr(follower, "end_children", lambda _seconds: ended.set())

    def work(on_ready: Callable[[], None]) -> None:
        on_ready()
        ended.wait(WAIT_S)

    loaded = load_profile("gemma-3-270m", ["engine.nnodes=2", "engine.node_rank=1"])
    why = follower._follow(work, loaded, Progress())

    assert why == "Node 0 at 127.0.0.1:29501 is gone."
    assert [manager.recv(1024) for _ in range(6)] == [
        b"READY=1\nSTATUS=Node 1 of 2 is ready",
        *[b"WATCHDOG=1"] * 4,
        b"STOPPING=1\nSTATUS=Shutting down",
    ]
