"""F11: clients that read a byte a second of their answer, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

from tests.faults.figures import Figures, figures, percentiles, ttfts_s
from tests.faults.leavers import PATH
from tests.faults.ledger import CHAT, End, Entry, under_load
from tests.faults.raw import RawClient
from tests.faults.site import FULL, Scale, Site

ANSWER = CHAT | {"max_tokens": 1900, "ignore_eos": True, "stream": True}
REFUSED = "gemma_serve_connections_refused_total"
NUM_OTHERS, CLOSED_S = 8, 90.0
STREAMS = (PATH, PATH)


def slow_readers(site: Site, scale: Scale) -> Figures:
    """
    They cost the others nothing; after limits.write_timeout_s without a byte their connections are
    closed, and their requests end in the engine.
    """
    others: dict[str, Any] = {"num_clients": NUM_OTHERS, "num_tokens": 16, "kinds": STREAMS}
    more: Figures = {}
    if scale is FULL:
        with (
            honest_readers(site, 2 * scale.readers),
            under_load(site.url, headers=site.server.headers, **others) as beside,
        ):
            time.sleep(20)
        more["ttft_s_beside_fast_readers"] = percentiles(ttfts_s(beside.ledger.entries))
    closed_before = site.value(REFUSED, reason="write_timeout")
    with site.loaded("F11", 0, **others) as load:
        clients = [
            RawClient(site.url, f"F11-{kind}-{i}", site.server.headers, narrow=True)
            for kind in ("slow", "stalled")
            for i in range(scale.readers)
        ]
        for client in clients:
            client.post(PATH, ANSWER)
        began_s = time.monotonic()
        while closed(site) - closed_before < len(clients):
            assert time.monotonic() < began_s + CLOSED_S, f"{closed(site) - closed_before} closed"
            for client in clients[: scale.readers]:
                client.read_byte()
            time.sleep(1)
        took_s = time.monotonic() - began_s
        entries = [Entry(PATH, True, End.LEFT, id=client.id) for client in clients]
        load.ledger.entries += entries
    # Whoever has not left was closed by the server: it is told so when it reads on.
    for client in clients:
        client.socket.settimeout(10)
        with closing(client):
            assert b"[DONE]" not in client.read_all()
    lines = site.lines()
    ends = [line["status"] for entry in entries for line in lines[entry.id]]
    assert ends == ["499"] * len(entries)
    more["ttft_s"] = percentiles(ttfts_s(load.ledger.entries))
    return figures(load.ledger.entries, all_closed_s=round(took_s, 1), **more)


def closed(site: Site) -> float:
    """Connections that were closed because nobody read."""
    return site.value(REFUSED, reason="write_timeout")


@contextmanager
def honest_readers(site: Site, count: int) -> Iterator[None]:
    """As many clients with the same answers, who read them at once, and leave."""
    clients = [RawClient(site.url, f"F11-fast-{i}", site.server.headers) for i in range(count)]
    with ThreadPoolExecutor(count) as threads:
        for client in clients:
            client.post(PATH, ANSWER)
            threads.submit(client.read_until, b"[DONE]")
        yield
        for client in clients:
            client.socket.shutdown(2)
    for client in clients:
        client.close()
    site.assert_at_rest()
