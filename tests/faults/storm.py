"""F16: bad inputs, fifty a second, beside requests that are good."""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Iterable
from typing import Any

import httpx

from tests.faults.figures import Figures, figures, percentiles, ratio, ttfts_s
from tests.faults.ledger import Entry
from tests.faults.site import Scale, Site, descendants
from tests.reliability import bodies, names, prompts, streams
from tests.reliability.case import Answer, Case, faults
from tests.reliability.trends import Check

EACH_S = 1 / 50
NUM_TOKENS = 32
RATIO = 1.5  # of the good ones' p99
NUM_COMPARED = 3  # times the requests of other faults, for a p99


def bad_inputs_beside_good(site: Site, scale: Scale) -> Figures:
    """Each bad one is refused in its API's shape; of the good ones none is lost or refused."""
    processes = descendants(site)
    clients: dict[str, Any] = scale.load | {"requests": 0, "num_tokens": NUM_TOKENS}
    without: list[Entry] = []
    if scale.is_full:
        with site.loaded("F16-without", **clients) as before:
            before.wait_for(NUM_COMPARED * scale.requests)
        without = before.ledger.entries
    cases = itertools.chain(streams.cases(), names.bad_names(), bodies.cases(), prompts.cases())
    # Those that may as well be answered are not bad enough.
    bad = (case for case in cases if 200 not in case.allowed)
    with site.loaded("F16", **clients) as load:
        statuses, wrong = asyncio.run(send(site, itertools.islice(bad, 0, None, step_of(scale))))
        load.wait_for(scale.requests)
    assert not wrong, "\n".join(wrong[:10])
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert descendants(site) >= processes
    found = figures(load.ledger.entries, bad_inputs=dict(statuses))
    return found | compared(load.ledger.entries, without)


def compared(beside: list[Entry], without: list[Entry]) -> Figures:
    """The good ones' times beside bad ones and without, where there is something to compare."""
    if not without:
        return {}
    ttfts = ttfts_s(beside), ttfts_s(without)
    whole = durations_s(beside), durations_s(without)
    checks = [
        Check("p99 TTFT of the good ones, over that without", ratio(*ttfts), RATIO),
        Check("p99 duration of the good ones, over that without", ratio(*whole), RATIO),
    ]
    return {
        "checks": [vars(check) for check in checks],
        "ttft_s": percentiles(ttfts[0]),
        "ttft_s_without": percentiles(ttfts[1]),
        "duration_s": percentiles(whole[0]),
        "duration_s_without": percentiles(whole[1]),
    }


def durations_s(entries: list[Entry]) -> list[float]:
    """From the first byte sent to the last one read."""
    return [entry.ended_s - entry.began_s for entry in entries]


def step_of(scale: Scale) -> int:
    """Every case in the report, one of some in the tests."""
    return 1 if scale.is_full else 20


async def send(site: Site, cases: Iterable[Case]) -> tuple[collections.Counter[int], list[str]]:
    """Send them at their rate, whether those before are answered or not."""
    statuses: collections.Counter[int] = collections.Counter()
    wrong: list[str] = []

    async def one(case: Case) -> None:
        target = {"target": case.path.encode()}
        request = http.build_request(
            case.method,
            "/",
            content=case.body or None,
            headers={**case.headers, **site.server.headers},
            extensions=target,
        )
        try:
            response = await http.send(request)
        except httpx.HTTPError as error:
            wrong.append(f"{case.name}: {error!r}")
            return
        statuses[response.status_code] += 1
        answer = Answer(response.status_code, response.headers, response.content)
        wrong.extend(faults(case, answer))

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=site.url, timeout=60, limits=limits, trust_env=False
    ) as http:
        sending, due_s = [], time.monotonic()
        for case in cases:
            sending.append(asyncio.create_task(one(case)))
            due_s += EACH_S
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
        await asyncio.gather(*sending)
    return statuses, wrong
