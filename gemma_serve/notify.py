"""
Tells systemd how the service is, where a unit of Type=notify has started it.

Source of the protocol: sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
_MICROSECONDS = 1_000_000


def notify(*assignments: str) -> None:
    """
    Send assignments, such as READY=1, in one message; nothing happens where nobody listens.

    A manager that can't be told is no reason to stop serving: systemd itself ends a service that
    it never hears of, after TimeoutStartSec.
    """
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        return
    if address.startswith("@"):  # a socket in Linux's abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        sending.sendto("\n".join(assignments).encode(), address)


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life, half of WatchdogSec; None where none is asked of us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / _MICROSECONDS / 2 if microseconds.isdigit() else None


@contextlib.asynccontextmanager
async def watchdog() -> AsyncIterator[None]:
    """Within the block, say WATCHDOG=1 from the event loop, so that its standstill is noticed."""
    interval_s = watchdog_interval_s()
    if interval_s is None:
        yield
        return
    signs = asyncio.create_task(_signs_of_life(interval_s))
    try:
        yield
    finally:
        signs.cancel()


async def _signs_of_life(interval_s: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
