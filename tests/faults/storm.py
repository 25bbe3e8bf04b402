"""F16: bad inputs, fifty a second, beside requests that are good."""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Iterable
from typing import Any

import httpx

from tests.faults.figures import Figures, figures, percentiles, ttfts_s
from tests.faults.ledger import under_load
from tests.faults.site import FULL, Scale, Site, descendants
from tests.reliability import bodies, names, prompts, streams
from tests.reliability.case import Answer, Case, faults

EACH_S = 1 / 50


def bad_inputs_beside_good(site: Site, scale: Scale) -> Figures:
    """Each bad one is refused in its API's shape; of the good ones none is lost or refused."""
    processes, more = descendants(site), Figures()
    clients: dict[str, Any] = {"num_clients": 16, "num_tokens": 32}
    if scale is FULL:
        with under_load(
            site.url,
            headers=site.server.headers,
            num_requests=scale.requests,
            **clients,
        ) as before:
            pass
        more["ttft_s_without"] = percentiles(ttfts_s(before.ledger.entries))
    cases = itertools.chain(streams.cases(), names.bad_names(), bodies.cases(), prompts.cases())
    # Those that may as well be answered are not bad enough.
    bad = (case for case in cases if 200 not in case.allowed)
    with site.loaded("F16", 0, **clients) as load:
        statuses, wrong = asyncio.run(send(site, itertools.islice(bad, 0, None, step_of(scale))))
    assert not wrong, "\n".join(wrong[:10])
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert descendants(site) >= processes
    more["ttft_s"] = percentiles(ttfts_s(load.ledger.entries))
    return figures(load.ledger.entries, bad_inputs=dict(statuses), **more)


def step_of(scale: Scale) -> int:
    """Every case in the report, one of some in the tests."""
    return 1 if scale is FULL else 20


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
