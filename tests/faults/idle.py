"""F12: a thousand connections that say nothing, and two hundred that stop half-way (slowloris)."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil

from tests.faults.figures import Figures, figures, percentiles
from tests.faults.probes import watching
from tests.faults.site import IDLE_S, Scale, Site
from tests.reliability.trends import Check

HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
HALF_BODY = HALF_HEAD + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
LIVEZ_S, SOON_S = 1.0, 1.0
# What a test waits longer than promised.
IN_TESTS_S = 20.0
# Descriptors that may come and go by themselves.
FEW = 5


def connections_say_nothing(site: Site, scale: Scale) -> Figures:
    """
    /livez is answered within a second all the time, and so are requests; each connection is closed
    by its deadline, and its descriptor is free.
    """
    process = psutil.Process(site.pid)
    descriptors = process.num_fds()
    with (
        room_for_descriptors(),
        site.loaded("F12", **scale.load) as load,
        watching(site.url, "/livez") as seen,
        contextlib.ExitStack() as open_until_the_end,
    ):
        silent = connect(site, scale.idle, b"", open_until_the_end)
        heads = connect(site, scale.half, HALF_HEAD, open_until_the_end)
        bodies = connect(site, scale.half, HALF_BODY, open_until_the_end)
        header_s, body_s = site.limit("header_timeout_s"), site.limit("body_timeout_s")
        longest_s = max(header_s, body_s) + IN_TESTS_S
        ages_s = closed_after_s(silent | heads | bodies, longest_s)
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert {one.status for one in seen} == {200}
    deadline_s = time.monotonic() + IDLE_S
    while (left := process.num_fds() - descriptors) > FEW:
        assert time.monotonic() < deadline_s, f"{left} descriptors are not back"
        time.sleep(0.1)
    took_s = [one.took_s for one in seen]
    of_heads = max(ages_s[client] for client in [*silent, *heads])
    of_bodies = max(ages_s[client] for client in bodies)
    checks = [
        Check("s of the slowest /livez", max(took_s), scale.most(LIVEZ_S, 5 * LIVEZ_S)),
        within("s until those without headers were closed", of_heads, header_s, scale),
        within("s until those without a body were closed", of_bodies, body_s, scale),
    ]
    return figures(
        load.ledger.entries,
        checks=checks,
        connections=len(ages_s),
        livez_s=percentiles(took_s),
        descriptors_more=left,
    )


def within(name: str, seconds: float, deadline_s: float, scale: Scale) -> Check:
    """A time, and the deadline that it is held to."""
    return Check(name, seconds, deadline_s + scale.most(SOON_S, IN_TESTS_S))


@contextmanager
def room_for_descriptors() -> Iterator[None]:
    """As many as this process may have at all: the clients are all here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(
    site: Site, count: int, said: bytes, stack: contextlib.ExitStack
) -> dict[socket.socket, float]:
    """So many connections that send this and no more; when each was opened."""
    where, opened_s = urlsplit(site.url), {}
    for _ in range(count):
        client = socket.create_connection((where.hostname or "", where.port or 80), timeout=30)
        stack.callback(client.close)
        opened_s[client] = time.monotonic()
        client.sendall(said)
        client.setblocking(False)
    return opened_s


def closed_after_s(
    opened_s: dict[socket.socket, float], bound_s: float
) -> dict[socket.socket, float]:
    """How old each connection was when the server closed it; all have to be within the bound."""
    ages_s: dict[socket.socket, float] = {}
    deadline_s = time.monotonic() + bound_s
    with selectors.DefaultSelector() as selector:
        for client in opened_s:
            selector.register(client, selectors.EVENT_READ)
        while len(ages_s) < len(opened_s):
            assert time.monotonic() < deadline_s, f"{len(ages_s)} of {len(opened_s)} are closed"
            for key, _ in selector.select(timeout=1.0):
                if is_closed(key.fileobj):
                    ages_s[key.fileobj] = time.monotonic() - opened_s[key.fileobj]
                    selector.unregister(key.fileobj)
    return ages_s


def is_closed(client: socket.socket) -> bool:
    """Whether the server's end came, after what it had to say."""
    try:
        return not client.recv(4096)
    except ConnectionError:
        return True
