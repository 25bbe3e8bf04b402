"""Sends cases to a running server in batches, and looks after each batch whether it is unharmed."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Protocol, TypeVar

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.api.kserve.refusals import COMPILER, Witness
from tests.reliability.case import Answer, Case, faults
from tests.servers import Server

BATCH = 50
AT_ONCE = 16
# Beyond every deadline of the server's own: a case that takes longer was forgotten.
BOUND_S = 60.0
# By so much may a class raise what the server's processes hold; images are larger than texts, and
# the engine keeps the grammars that it has compiled (VLLM_XGRAMMAR_CACHE_MB).
MAX_GROWTH_MIB, MAX_LARGE_GROWTH_MIB = 50.0, 300.0
MIB = 1024 * 1024
LAG = "gemma_serve_event_loop_lag_seconds"
T = TypeVar("T")


@dataclass
class Tally:
    """What became of the cases of a class."""

    sent: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""
    growth_mib: float = 0.0  # at most, after any batch

    def add(self, case: Case, status: int, seconds: float, found: list[str]) -> None:
        """Count one answer."""
        self.sent += 1
        self.by_status[status] += 1
        self.faults += found
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, case.name


class Found(Protocol):
    """What a class has found, of whatever kind it is."""

    faults: list[str]
    growth_mib: float


def in_batches(
    witness: Witness, found: Found, to_send: Iterable[T], max_growth_mib: float = MAX_GROWTH_MIB
) -> Iterator[list[T]]:
    """
    What is to be sent, fifty at a time; after each, the server must be what it was before.

    That is: the same processes, ready and idle, with no request, no KV cache in use, the same
    greedy answer, nothing in the log, and hardly more memory.
    """
    before_mib, remaining = held_mib(witness.server), iter(to_send)
    while batch := list(islice(remaining, BATCH)):
        yield batch
        try:
            witness.check_unharmed()
            _check_memory(found, before_mib, held_mib(witness.server), max_growth_mib)
        except AssertionError as error:
            first, last = str(batch[0])[:80], str(batch[-1])[:80]
            found.faults.append(f"after {first} to {last}: {str(error)[:500]}")


def _check_memory(
    found: Found, before_mib: Counter[str], now_mib: Counter[str], max_growth_mib: float
) -> None:
    growth_mib = now_mib.total() - before_mib.total()
    found.growth_mib = max(found.growth_mib, growth_mib)
    more = {name: f"{now_mib[name] - before_mib[name]:+.0f}" for name in now_mib | before_mib}
    assert growth_mib <= max_growth_mib, f"{growth_mib:.0f} MiB more are held: {more}"


def held_mib(server: Server) -> Counter[str]:
    """The memory of each process of the server, but for what compiles structured outputs."""
    held: Counter[str] = Counter()
    for process in server.processes():
        try:
            if COMPILER not in process.cmdline():
                held[f"{process.name()} {process.pid}"] = process.memory_info().rss / MIB
        except psutil.Error:  # it has just ended
            continue
    return held


def late_looks(http: httpx.Client, bound_s: float) -> float:
    """How often the server has found its event loop later than this; a bound of the histogram."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families if family.name == LAG for sample in family.samples]
    [total] = [sample.value for sample in samples if sample.name == f"{LAG}_count"]
    [in_time] = [
        sample.value
        for sample in samples
        if sample.name == f"{LAG}_bucket" and float(sample.labels["le"]) == bound_s
    ]
    return total - in_time


def send_all(
    witness: Witness,
    cases: Iterable[Case],
    *,
    at_once: int = AT_ONCE,
    refused_within_s: float = math.inf,
    max_growth_mib: float = MAX_GROWTH_MIB,
) -> Tally:
    """
    Send the cases, and hold the server to what it was before after each batch of them.

    Args:
        witness: Knows the server.
        cases: What is sent.
        at_once: How many are on their way; 1 keeps their order.
        refused_within_s: A refusal that takes longer is a fault.
        max_growth_mib: By how much they may raise the memory of the server's processes.
    """
    tally = Tally()
    for batch in in_batches(witness, tally, cases, max_growth_mib):
        asyncio.run(_send_batch(witness.server.base_url, batch, tally, at_once, refused_within_s))
    return tally


async def _send_batch(
    base_url: str, batch: list[Case], tally: Tally, at_once: int, refused_within_s: float
) -> None:
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(
        base_url=base_url, timeout=BOUND_S, limits=limits, trust_env=False
    ) as http:
        waiting = iter(batch)  # shared: each takes the next one
        await asyncio.gather(
            *(_send_some(http, waiting, tally, refused_within_s) for _ in range(at_once))
        )


async def _send_some(
    http: httpx.AsyncClient, waiting: Iterator[Case], tally: Tally, refused_within_s: float
) -> None:
    for case in waiting:
        began_s = monotonic()
        # As it is written: httpx would mend a path with dots and double slashes.
        target = {"target": case.path.encode()}
        headers = dict(case.headers)
        request = http.build_request(
            case.method, "/", content=case.body or None, headers=headers, extensions=target
        )
        try:
            response = await http.send(request)
        except httpx.HTTPError as error:
            tally.add(case, 0, monotonic() - began_s, [f"{case.name}: {error!r}"])
            continue
        took_s = monotonic() - began_s
        found = faults(case, Answer(response.status_code, response.headers, response.content))
        if response.status_code >= 400 and took_s > refused_within_s:
            found.append(f"{case.name}: refused after {took_s:.1f} s")
        tally.add(case, response.status_code, took_s, found)
