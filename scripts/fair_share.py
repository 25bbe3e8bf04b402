"""
What one noisy key does to another's time to first token, on a running server with two keys.

    python -m scripts.fair_share http://127.0.0.1:8000 MODEL QUIET_KEY NOISY_KEY --out FILE

Four runs: the quiet key alone; beside a noisy one that keeps far more requests open than the server
takes; beside as much noise under its own name, which is what a server without shares does to it;
and alone again, for the machine's own drift.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import conditions, utc_now

LIMITS = httpx.Limits(max_connections=None)
QUIET = {"prompt": "The river", "max_tokens": 8, "stream": True}
NOISE = {"prompt": "The sea", "max_tokens": 64, "ignore_eos": True}
BACK_OFF_S = 0.05  # a client that does not honour Retry-After


async def main() -> None:
    """Measure and print."""
    options = _options()
    async with httpx.AsyncClient(base_url=options.url, timeout=120, limits=LIMITS) as client:
        probe = Probe(client, options)
        await probe.quiet(options.quiet_key)  # warm
        runs = {"alone": await probe.quiet(options.quiet_key)}
        for name, key in (("beside_noise", options.noisy_key), ("as_noise", options.quiet_key)):
            async with probe.noise(key) as statuses:
                runs[name] = await probe.quiet(options.quiet_key)
            runs[name]["noise"] = {str(status): count for status, count in statuses.items()}
        runs["alone_again"] = await probe.quiet(options.quiet_key)
        info = (await client.get("/v1/info", headers=_key(options.quiet_key))).json()
    asked = {name: vars(options)[name] for name in ("clients", "requests", "rate")}
    record = {"date": utc_now(), **conditions(), "options": asked}
    record |= {"engine": info["engine"], "admission": info["admission"], "runs": runs}
    print(json.dumps(runs, indent=2))
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class Probe:
    """Requests of either kind, against one server."""

    def __init__(self, client: httpx.AsyncClient, options: argparse.Namespace) -> None:
        self.client, self.options = client, options

    async def quiet(self, key: str) -> dict[str, Any]:
        """TTFT of requests at fixed times, whether or not the ones before have come back."""
        tasks = []
        for _ in range(self.options.requests):
            tasks.append(asyncio.create_task(self._ttft_s(key)))
            await asyncio.sleep(1 / self.options.rate)
        ttfts_s = await asyncio.gather(*tasks)
        answered_ms = [seconds * 1e3 for seconds in ttfts_s if seconds is not None]
        p50, p99 = np.percentile(answered_ms or [np.nan], [50, 99]).round(1).tolist()
        refused = len(ttfts_s) - len(answered_ms)
        return {"ttft_p50_ms": p50, "ttft_p99_ms": p99, "refused": refused}

    async def _ttft_s(self, key: str) -> float | None:
        began_s = time.perf_counter()
        body = {"model": self.options.model, **QUIET}
        stream = self.client.stream("POST", "/v1/completions", json=body, headers=_key(key))
        async with stream as answer:
            if answer.status_code != 200:
                return None
            ttft_s = None
            async for _ in answer.aiter_bytes():
                ttft_s = ttft_s or time.perf_counter() - began_s
            return ttft_s

    @contextlib.asynccontextmanager
    async def noise(self, key: str) -> AsyncIterator[Counter[int]]:
        """So many requests of a key open at any time, as long as the block runs."""
        statuses: Counter[int] = Counter()
        tasks = [
            asyncio.create_task(self._shout(key, statuses)) for _ in range(self.options.clients)
        ]
        await asyncio.sleep(1)
        try:
            yield statuses
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _shout(self, key: str, statuses: Counter[int]) -> None:
        body = {"model": self.options.model, **NOISE}
        while True:
            answer = await self.client.post("/v1/completions", json=body, headers=_key(key))
            statuses[answer.status_code] += 1
            if answer.status_code != 200:
                await asyncio.sleep(BACK_OFF_S)


def _key(key: str) -> dict[str, str]:
    return {"x-api-key": key}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    for name in ("url", "model", "quiet_key", "noisy_key"):
        parser.add_argument(name)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clients", type=int, default=64, help="of the noisy key")
    parser.add_argument("--requests", type=int, default=200, help="of the quiet key, each run")
    parser.add_argument("--rate", type=float, default=20.0, help="of the quiet key, a second")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
