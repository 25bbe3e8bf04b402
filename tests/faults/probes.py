"""What a probe says of a server, again and again beside a load, and how soon it says so."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

EVERY_S = 0.05
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Seen:
    """One answer of a probe."""

    asked_s: float  # on the monotonic clock
    answered_s: float
    status: int
    said: str  # its word for the server's condition

    @property
    def took_s(self) -> float:
        """How long it took, with its connection."""
        return self.answered_s - self.asked_s


def look(url: str, path: str) -> Seen | None:
    """Ask a probe once, over a connection of its own; None where nobody is there."""
    where, asked_s = urlsplit(url), time.monotonic()
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = str(json.loads(answer.read())["status"])
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return Seen(asked_s, time.monotonic(), answer.status, said)


@contextmanager
def watching(url: str, path: str, every_s: float = EVERY_S) -> Iterator[list[Seen]]:
    """Ask for the length of a with block, at that rate or as fast as it is answered."""
    seen: list[Seen] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            if (found := look(url, path)) is not None:
                seen.append(found)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def first_s(seen: Sequence[Seen], since_s: float, holds: Callable[[Seen], bool]) -> float | None:
    """When this was first answered after that moment; None: it was not."""
    found = (one.answered_s for one in tuple(seen) if one.asked_s >= since_s and holds(one))
    return next(found, None)
