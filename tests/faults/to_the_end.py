"""A load on a server that does not survive it, and on one that is told to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.faults.ledger import End, Load, under_load
from tests.faults.site import Scale, Site


@contextmanager
def loaded_to_the_end(
    site: Site,
    name: str,
    scale: Scale,
    num_clients: int = 0,
    *,
    may_break: bool = False,
    **options: Any,
) -> Iterator[Load]:
    """
    Clients at work until the server is gone; nothing may be lost.

    The block begins when so many requests as of any fault were sent, and each client waits for an
    answer, one of which has begun. The engine's own count ends with its process, and is joined
    here.

    Args:
        may_break: The server is killed, and its clients' connections with it.
    """
    num_clients = num_clients or scale.num_clients
    options = {"num_tokens": scale.num_tokens} | options
    before = site.finished()
    with under_load(site.url, num_clients, name=name, **site.asking, **options) as load:
        site.command.until(lambda: load.ledger.sent >= scale.requests, "requests")
        wait_for_all(site, load)
        ended = list(load.ledger.entries)
        assert {entry.end for entry in ended} <= {End.COMPLETED}, load.ledger.summary()
        assert len(ended) <= site.finished() - before <= load.ledger.sent
        yield load
    lost = [entry for entry in load.ledger.lost() if not (may_break and entry.end is End.BROKEN)]
    assert not lost, lost[:5]
    assert not load.ledger.wrong(), load.ledger.wrong()[:5]


def wait_for_all(site: Site, load: Load) -> None:
    """Wait until each client waits for an answer, and one of them reads it."""
    site.command.until(lambda: load.open >= load.num_clients and load.begun > 0, "open requests")
