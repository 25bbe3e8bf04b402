"""
Does a noisy key raise another one's p99 time to first token, on a running server with two keys?

    python -m scripts.fair_share http://127.0.0.1:8000 MODEL QUIET_KEY NOISY_KEY --out FILE

Blocks in the order alone, beside, beside, alone: the quiet key sends at random times (Poisson, as
`vllm bench serve` does), whether or not its requests before have come back; beside it a noisy key
keeps many requests open, each of whose clients asks again at once. The ratio of the two p99 has a
bootstrap interval. With `--control` the quiet key is beside as much noise under its own name at the
end, which is what a server without shares does to it.

The exit code is 0 where the ratio is within `--bound`, 1 where it is not or a quiet request was
refused, 3 where the quiet client itself was late.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.machine import conditions, utc_now
from benchmarks.workload.words import WORDS

NO_LIMITS = httpx.Limits(max_connections=None)
TIMEOUT_S = 120
BACK_OFF_S = 0.05  # a noisy client does not honour Retry-After
NOISE_BEGINS_S = 2.0
RESAMPLES = 5000
# Of the time, that the quiet key has a request open, if each came after the other.
BUSY = 0.3
NUM_CALIBRATING = 10
# A quiet request that is sent so much later than planned says little of the server.
MAX_LATE_SHARE = 0.25


# --- what is asked


@dataclass(frozen=True)
class Question:
    """One kind of request: an answer of so many tokens to a prompt of so many words."""

    model: str
    key: str
    words: int
    tokens: int
    stream: bool

    def body(self, rng: random.Random) -> dict[str, Any]:
        """Another prompt each time, so that none is found in the prefix cache."""
        prompt = " ".join(rng.choices(WORDS, k=self.words))
        lengths = {"max_tokens": self.tokens, "ignore_eos": True}
        return {"model": self.model, "prompt": prompt, "stream": self.stream, **lengths}


def client_of(url: str, key: str) -> httpx.AsyncClient:
    """A client with a key and as many connections as it takes."""
    headers = {"x-api-key": key}
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=NO_LIMITS, headers=headers)


# --- the quiet key


@dataclass
class Block:
    """What became of the quiet requests of one block."""

    ttfts_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)  # how much later than planned each was sent
    refused: Counter[int] = field(default_factory=Counter)


async def quiet_block(url: str, question: Question, *, num: int, rate: float, seed: int) -> Block:
    """Send requests at random times, and wait for their answers."""
    times, words = random.Random(seed), random.Random()  # noqa: S311
    block, at_s, began_s = Block(), 0.0, time.perf_counter()
    async with client_of(url, question.key) as client, asyncio.TaskGroup() as group:
        for _ in range(num):
            at_s += times.expovariate(rate)
            await asyncio.sleep(max(began_s + at_s - time.perf_counter(), 0))
            block.late_s.append(time.perf_counter() - began_s - at_s)
            group.create_task(_ask(client, question.body(words), block))
    return block


async def _ask(client: httpx.AsyncClient, body: dict[str, Any], block: Block) -> None:
    began_s = time.perf_counter()
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            block.refused[answer.status_code] += 1
            return
        ttft_s = None
        async for _ in answer.aiter_bytes():
            ttft_s = ttft_s or time.perf_counter() - began_s
        if ttft_s is not None:
            block.ttfts_s.append(ttft_s)


# --- the noisy key, in a process of its own: its work is not to hold up the quiet client


@contextlib.contextmanager
def noise(url: str, question: Question, num_clients: int) -> Iterator[Counter[str]]:
    """So many requests of a key open at any time; at the end, how they were answered."""
    statuses: Counter[str] = Counter()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_make_noise, args=(theirs, url, question, num_clients))
    process.start()
    try:
        ours.recv()  # it has begun
        time.sleep(NOISE_BEGINS_S)
        yield statuses
    finally:
        ours.send("stop")
        statuses.update(ours.recv())
        process.join()


def _make_noise(pipe: Connection, url: str, question: Question, num_clients: int) -> None:
    os.nice(10)  # what the quiet client's process has gained
    asyncio.run(_shout_until_told(pipe, url, question, num_clients))


async def _shout_until_told(
    pipe: Connection, url: str, question: Question, num_clients: int
) -> None:
    statuses: Counter[str] = Counter()
    async with client_of(url, question.key) as client:
        shouting = [
            asyncio.create_task(_shout(client, question, random.Random(), statuses))  # noqa: S311
            for _ in range(num_clients)
        ]
        pipe.send("begun")
        await asyncio.to_thread(pipe.recv)
        for task in shouting:
            task.cancel()
        await asyncio.gather(*shouting, return_exceptions=True)
    pipe.send(dict(statuses))


async def _shout(
    client: httpx.AsyncClient, question: Question, rng: random.Random, statuses: Counter[str]
) -> None:
    while True:
        answer = await client.post("/v1/completions", json=question.body(rng))
        statuses[str(answer.status_code)] += 1
        if answer.status_code != 200:
            await asyncio.sleep(BACK_OFF_S)


# --- what it comes to


def ratio_of_p99(alone: Sequence[Block], beside: Sequence[Block]) -> tuple[float, float, float]:
    """
    The ratio of the p99 of all requests, beside / alone, with a 95 % interval.

    Source: the percentile bootstrap (Efron & Tibshirani 1993, 13), within each block
    """
    rng = np.random.default_rng(1)

    def p99(blocks: Sequence[Block], *, again: bool) -> float:
        samples = [np.array(block.ttfts_s) for block in blocks]
        if again:
            samples = [rng.choice(sample, len(sample)) for sample in samples]
        return float(np.percentile(np.concatenate(samples), 99))

    ratios = [p99(beside, again=True) / p99(alone, again=True) for _ in range(RESAMPLES)]
    low, high = np.percentile(ratios, [2.5, 97.5]).tolist()
    return p99(beside, again=False) / p99(alone, again=False), low, high


def verdict(alone: Sequence[Block], beside: Sequence[Block], bound: float) -> dict[str, Any]:
    """The ratio, its interval, and whether the bound holds."""
    refused = sum((block.refused for block in (*alone, *beside)), Counter[int]())
    ratio, low, high = ratio_of_p99(alone, beside)
    late_s = np.percentile([late for block in (*alone, *beside) for late in block.late_s], 99)
    median_s = np.median([ttft for block in alone for ttft in block.ttfts_s])
    return {
        "p99_ratio": round(ratio, 3),
        "interval_95": [round(low, 3), round(high, 3)],
        "bound": bound,
        "held": bool(ratio <= bound and not refused),
        "sure": bool(high <= bound or low > bound),
        "refused": {str(status): count for status, count in refused.items()},
        "client_late_p99_ms": round(float(late_s) * 1e3, 2),
        "client_was_in_time": bool(late_s <= MAX_LATE_SHARE * median_s),
    }


def summary(blocks: Sequence[Block]) -> dict[str, Any]:
    """The figures of one side, with each block's p99."""
    ttfts_ms = np.concatenate([block.ttfts_s for block in blocks]) * 1e3
    p50, p90, p99, most = np.percentile(ttfts_ms, [50, 90, 99, 100]).round(1).tolist()
    return {
        "requests": len(ttfts_ms),
        "ttft_p50_ms": p50,
        "ttft_p90_ms": p90,
        "ttft_p99_ms": p99,
        "ttft_max_ms": most,
        "blocks_p99_ms": [round(float(np.percentile(b.ttfts_s, 99)) * 1e3, 1) for b in blocks],
    }


# --- the run


def main() -> int:
    """Measure, print, and say whether it holds."""
    options = _options()
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # the client is to be in time where it shares the cores with the server
    sides: dict[str, list[Block]] = {"alone": [], "beside": []}
    statuses: Counter[str] = Counter()
    options.rate = options.rate or BUSY / asyncio.run(_answer_s(options))
    for at in range(options.blocks):
        order = ("alone", "beside") if at % 2 == 0 else ("beside", "alone")
        for side in order:
            with _noise(options, options.noisy_key) if side == "beside" else _silence() as heard:
                sides[side].append(_quiet(options, seed=at + 1))
            statuses += heard
            _print_block(side, sides[side][-1])
            _wait_until_idle(options)
    record = {
        "date": utc_now(),
        **conditions(),
        "options": {name: value for name, value in vars(options).items() if name in ASKED},
        **_info(options),
        **{side: summary(blocks) for side, blocks in sides.items()},
        "noise": dict(statuses),
        "verdict": verdict(sides["alone"], sides["beside"], options.bound),
    }
    if options.control:
        with _noise(options, options.quiet_key):
            record["as_noise"] = summary([_quiet(options, seed=1)])
    text = json.dumps(record, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return _exit_code(record["verdict"])


def _exit_code(said: dict[str, Any]) -> int:
    if not said["client_was_in_time"]:
        return 3
    return 0 if said["held"] else 1


def _quiet_question(options: argparse.Namespace) -> Question:
    return Question(
        options.model, options.quiet_key, options.quiet_words, options.quiet_tokens, stream=True
    )


async def _answer_s(options: argparse.Namespace) -> float:
    """How long a quiet answer takes, one after the other, once the first are over."""
    question, rng, took_s = _quiet_question(options), random.Random(), []  # noqa: S311
    block = Block()
    async with client_of(options.url, question.key) as client:
        for _ in range(2 * NUM_CALIBRATING):
            began_s = time.perf_counter()
            await _ask(client, question.body(rng), block)
            took_s.append(time.perf_counter() - began_s)
    _check_answered(block, "before the first block")
    return float(np.mean(took_s[NUM_CALIBRATING:]))


def _quiet(options: argparse.Namespace, seed: int) -> Block:
    question = _quiet_question(options)
    sending = quiet_block(options.url, question, num=options.requests, rate=options.rate, seed=seed)
    return asyncio.run(sending)


def _noise(
    options: argparse.Namespace, key: str
) -> contextlib.AbstractContextManager[Counter[str]]:
    question = Question(options.model, key, options.noise_words, options.noise_tokens, stream=False)
    return noise(options.url, question, options.clients)


def _silence() -> contextlib.AbstractContextManager[Counter[str]]:
    return contextlib.nullcontext(Counter())


def _info(options: argparse.Namespace) -> dict[str, Any]:
    url, headers = f"{options.url}/v1/info", {"x-api-key": options.quiet_key}
    told = httpx.get(url, headers=headers, timeout=TIMEOUT_S).json()
    return {"engine": told["engine"], "admission": told["admission"]}


def _wait_until_idle(options: argparse.Namespace) -> None:
    while _info(options)["admission"]["running_requests"]:
        time.sleep(0.1)


def _check_answered(block: Block, when: str) -> None:
    if not block.ttfts_s:
        sys.exit(
            f"No quiet request was answered ({when}), by status: {dict(block.refused)}. "
            "Look at the model's name and at the keys."
        )


def _print_block(side: str, block: Block) -> None:
    _check_answered(block, side)
    p50, p99 = (np.percentile(block.ttfts_s, [50, 99]) * 1e3).round(1)
    print(f"{side}: p50 {p50} ms, p99 {p99} ms, refused {dict(block.refused)}", file=sys.stderr)


ASKED = {
    *("clients", "requests", "blocks", "rate", "bound"),
    *("quiet_words", "quiet_tokens", "noise_words", "noise_tokens"),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    for name in ("url", "model", "quiet_key", "noisy_key"):
        parser.add_argument(name)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bound", type=float, default=1.5, help="of the ratio")
    parser.add_argument("--blocks", type=int, default=4, help="of each side")
    parser.add_argument("--requests", type=int, default=100, help="of the quiet key, each block")
    parser.add_argument(
        "--rate", type=float, help="of the quiet key, a second; default: busy 0.3 of the time"
    )
    parser.add_argument("--quiet-words", type=int, default=64)
    parser.add_argument("--quiet-tokens", type=int, default=16)
    parser.add_argument("--clients", type=int, default=32, help="of the noisy key")
    parser.add_argument("--noise-words", type=int, default=16)
    parser.add_argument("--noise-tokens", type=int, default=64)
    parser.add_argument("--control", action="store_true", help="the noise under the quiet name too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
