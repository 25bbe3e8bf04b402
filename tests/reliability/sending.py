"""Sends cases to a running server in batches, and looks after each batch whether it is unharmed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

import httpx

from tests.api.kserve.refusals import Witness
from tests.reliability.case import Answer, Case, faults

BATCH = 50
AT_ONCE = 16
# Beyond every deadline of the server's own: a case that takes longer was forgotten.
BOUND_S = 60.0


@dataclass
class Tally:
    """What became of the cases of a class."""

    sent: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""

    def add(self, case: Case, status: int, seconds: float, found: list[str]) -> None:
        """Count one answer."""
        self.sent += 1
        self.by_status[status] += 1
        self.faults += found
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, case.name


def send_all(witness: Witness, cases: Iterable[Case]) -> Tally:
    """Send the cases, and hold the server to what it was before after each batch of them."""
    tally, remaining = Tally(), iter(cases)
    while batch := list(islice(remaining, BATCH)):
        asyncio.run(_send_batch(witness.server.base_url, batch, tally))
        try:
            witness.check_unharmed()
        except AssertionError as error:
            tally.faults.append(f"after {batch[0].name} to {batch[-1].name}: {str(error)[:500]}")
    return tally


async def _send_batch(base_url: str, batch: list[Case], tally: Tally) -> None:
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(
        base_url=base_url, timeout=BOUND_S, limits=limits, trust_env=False
    ) as http:
        waiting = iter(batch)  # shared: each takes the next one
        await asyncio.gather(*(_send_some(http, waiting, tally) for _ in range(AT_ONCE)))


async def _send_some(http: httpx.AsyncClient, waiting: Iterator[Case], tally: Tally) -> None:
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
        answer = Answer(response.status_code, response.headers, response.content)
        tally.add(case, response.status_code, monotonic() - began_s, faults(case, answer))
