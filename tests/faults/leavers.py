"""F10: clients that leave with a reset: in a stream, before it, in the queue, in the prefill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

from tests.faults.asked import CHAT
from tests.faults.figures import Figures, figures, percentiles
from tests.faults.ledger import End, Entry
from tests.faults.raw import RawClient
from tests.faults.site import IDLE_S, Scale, Site
from tests.reliability.trends import Check

PATH = "/v1/chat/completions"
LONG = CHAT | {"max_tokens": 1900, "ignore_eos": True}
LONG_PROMPT = {"messages": [{"role": "user", "content": "word " * 600}], "max_tokens": 100}
WAVE = 12
STREAMED = ("alone", "stream")
PROMISED_S, IN_TESTS_S = 1.0, 5.0


def clients_leave(site: Site, scale: Scale) -> Figures:
    """
    Whatever a request is at when its client leaves, the engine is rid of it at once, and the
    others' requests are answered.
    """
    few = max(scale.leavers // 3, 4)
    # With nobody beside them, what they leave is seen to go.
    left_s = leave(site, "alone", few)
    at_rest_s = site.assert_at_rest()
    alone = [Entry(PATH, True, End.LEFT, id=id_) for id_ in left_s]
    site.join(alone)
    with site.loaded("F10", **scale.load) as load:
        left_s = {}
        for kind, count in (("stream", scale.leavers), ("whole", few), ("prefill", few)):
            left_s |= leave(site, kind, count)
        left_s |= leave_the_queue(site, few)
        load.ledger.entries += [Entry(PATH, True, End.LEFT, id=id_) for id_ in left_s]
    ends_s = {id_: time_of(lines[0]) for id_, lines in site.lines().items() if id_ in left_s}
    seconds = [max(ends_s[id_] - left_s[id_], 0.0) for id_ in ends_s]
    assert len(seconds) > len(left_s) / 2, "most have left after their request was read"
    most_s = scale.most(PROMISED_S, IN_TESTS_S)
    checks = [
        Check("s until the engine is rid of a request", max(seconds), most_s),
        Check("s until nothing runs, waits or holds KV cache", at_rest_s, IDLE_S),
    ]
    entries = [*alone, *load.ledger.entries]
    return figures(entries, checks=checks, to_abort_s=percentiles(seconds))


def leave(site: Site, kind: str, count: int) -> dict[str, float]:
    """So many clients who leave at this point; their ids, and when they left."""
    left_s = {}
    for wave in waves(count):
        clients = [RawClient(site.url, f"F10-{kind}-{i}", site.server.headers) for i in wave]
        for client in clients:
            body = LONG_PROMPT if kind == "prefill" else LONG
            client.post(PATH, body | {"stream": kind in STREAMED})
        for client in clients:
            if kind in STREAMED:
                client.read_until(b"data: ")
        if kind not in STREAMED:
            time.sleep(0.2)
        left_s |= {client.id: client.reset() for client in clients}
    return left_s


def leave_the_queue(site: Site, count: int) -> dict[str, float]:
    """The batch is full of requests that do not end, and those that wait behind leave first."""
    ahead = [RawClient(site.url, f"F10-ahead-{i}", site.server.headers) for i in range(WAVE + 8)]
    for client in ahead:
        client.post(PATH, LONG | {"stream": True})
    site.command.until(lambda: waiting(site) > 0, "a queue")
    behind = [RawClient(site.url, f"F10-queue-{i}", site.server.headers) for i in range(count)]
    for client in behind:
        client.post(PATH, LONG | {"stream": True})
    time.sleep(0.2)
    return {client.id: client.reset() for client in [*behind, *ahead]}


def waiting(site: Site) -> float:
    """Requests in the server's own queue."""
    return site.value("gemma_serve_admission_waiting_requests")


def waves(count: int) -> Iterator[range]:
    """The numbers up to `count`, some at a time."""
    for start in range(0, count, WAVE):
        yield range(start, min(start + WAVE, count))


def time_of(line: dict[str, str]) -> float:
    """When a line was logged, in seconds of the epoch."""
    return datetime.fromisoformat(line["time"]).timestamp()
