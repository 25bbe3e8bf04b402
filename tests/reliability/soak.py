"""
A soak: hours of mixed load below capacity, and whether anything grows.

60 % of what the server was measured to do, by the clock; among the requests 5 % whose client
leaves, 5 % bad ones and 2 % with a schema that nobody sent before.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import httpx
import psutil

from tests.api.kserve.refusals import MARKER, Witness
from tests.faults.ledger import End, end_of_answer, end_of_stream
from tests.reliability import bodies, names, streams
from tests.reliability.case import (
    CHAT,
    COMPLETIONS,
    GENERATE,
    MESSAGES,
    REFUSED,
    Answer,
    Case,
    faults,
)
from tests.reliability.trends import (
    LOG_BYTES,
    TTFT_RATIO,
    Check,
    Usage,
    process_checks,
    steady,
    ttft_ratio,
)
from tests.servers import Server

SHARE = 0.6
LEAVE, BAD, SCHEMA = 0.05, 0.05, 0.02
CLOSED_CLIENTS, CLOSED_S = 32, 30.0
SAMPLE_S = 10.0
WARM_UP_S = 600.0  # or a sixth of a shorter run
ANSWER_S = 60.0
MIB = 1024 * 1024
WORDS = ("river", "stone", "lamp", "garden", "winter", "song", "bread", "window", "letter")
DATA = "data: "
# How a request ends, beside the ledger's ways: a bad one was answered as it must not be.
LEFT, FAULT = "client_gone", "fault"


@dataclass(frozen=True)
class Sent:
    """A request that is over."""

    kind: str
    at_s: float
    end: str
    detail: str = ""
    ttft_s: float | None = None


@dataclass
class Soak:
    """What was sent and what the processes had meanwhile; times are seconds after its begin."""

    server_pid: int
    began_s: float = field(default_factory=time.monotonic)
    sent: list[Sent] = field(default_factory=list)
    usage: dict[str, list[Usage]] = field(default_factory=dict)
    num_samples: int = 0

    @property
    def now_s(self) -> float:
        """Since the begin."""
        return time.monotonic() - self.began_s

    def sample(self) -> None:
        """Look at every process of the server."""
        self.num_samples += 1
        process = psutil.Process(self.server_pid)
        for one in [process, *process.children(recursive=True)]:
            try:
                with one.oneshot():
                    name, rss_mib = self._name(one), one.memory_info().rss / MIB
                    usage = Usage(self.now_s, rss_mib, one.num_fds(), one.num_threads())
            except psutil.Error:  # it has just ended
                continue
            self.usage.setdefault(name, []).append(usage)

    def _name(self, process: psutil.Process) -> str:
        return "server" if process.pid == self.server_pid else f"{process.name()} {process.pid}"


@dataclass
class Soaked:
    """The record: what was sent and how it ended, every check, every sample; what is broken."""

    minutes: float
    warm_up_s: float
    capacity_rps: float
    rate_rps: float
    sent: int
    by_status: Counter[str]
    checks: list[Check]
    usage: dict[str, list[Usage]]
    faults: list[str]


def run(witness: Witness, minutes: float, seed: int, say: Callable[[str], None]) -> Soaked:
    """Measure what the server does, soak it for so many minutes, and judge."""
    server = witness.server
    capacity = asyncio.run(_capacity_rps(server, seed))
    say(f"Capacity {capacity:.1f} requests/s; {minutes:g} minutes at {SHARE * capacity:.1f}")
    soak, logged = Soak(server.process.pid), server.log.stat().st_size
    # Another seed: the first one's schemas are known by now.
    asyncio.run(_open_loop(server.base_url, soak, SHARE * capacity, minutes * 60, seed + 1))
    log_bytes = server.log.stat().st_size - logged
    warm_up_s = min(WARM_UP_S, minutes * 60 / 6)
    checks = list(_checks(soak, warm_up_s, log_bytes))
    lost = [sent for sent in soak.sent if sent.end in (End.LOST, End.UNREACHABLE, FAULT)]
    broken = [str(check) for check in checks if not check.holds]
    broken += [f"{sent.kind} at {sent.at_s:.0f} s: {sent.end}, {sent.detail}" for sent in lost]
    for check in checks:
        say(f"{'  ' if check.holds else '! '}{check}")
    return Soaked(
        minutes=minutes,
        warm_up_s=warm_up_s,
        capacity_rps=capacity,
        rate_rps=SHARE * capacity,
        sent=len(soak.sent),
        by_status=Counter(f"{sent.kind}: {sent.end}" for sent in soak.sent),
        checks=checks,
        usage=soak.usage,
        faults=broken,
    )


def _checks(soak: Soak, warm_up_s: float, log_bytes: int) -> Iterator[Check]:
    after = {name: [one for one in of if one.at_s >= warm_up_s] for name, of in soak.usage.items()}
    num_samples = max(map(len, after.values()))
    for name, of in steady(after, num_samples).items():
        yield from process_checks(name, of)
    streamed = [(s.at_s, s.ttft_s) for s in soak.sent if s.ttft_s and s.at_s >= warm_up_s]
    times_s, ttfts_s = [at_s for at_s, _ in streamed], [ttft_s for _, ttft_s in streamed]
    yield Check("TTFT p99, last third over first", ttft_ratio(times_s, ttfts_s), TTFT_RATIO)
    yield Check("log, bytes a request", log_bytes / len(soak.sent), LOG_BYTES)


# --- the load


async def _capacity_rps(server: Server, seed: int) -> float:
    """Requests a second of clients that each wait for their answer; the first third warms up."""
    soak, requests = Soak(server.process.pid), _requests(random.Random(seed), leave=False)
    async with _client(server.base_url) as http:

        async def client() -> None:
            while soak.now_s < CLOSED_S:
                await _send(http, soak, *next(requests))

        await asyncio.gather(*(client() for _ in range(CLOSED_CLIENTS)))
    counted = [sent for sent in soak.sent if sent.at_s >= CLOSED_S / 3]
    return len(counted) / (soak.now_s - CLOSED_S / 3)


async def _open_loop(url: str, soak: Soak, rate_rps: float, seconds: float, seed: int) -> None:
    """Each request at its own time, whatever became of those before it."""
    draw, at_s = random.Random(seed), 0.0
    requests = _requests(draw)
    async with _client(url) as http:
        sampling = asyncio.create_task(_sample(soak))
        async with asyncio.TaskGroup() as sending:
            while at_s < seconds:
                await asyncio.sleep(max(0.0, at_s - soak.now_s))
                sending.create_task(_send(http, soak, *next(requests)))
                at_s += draw.expovariate(rate_rps)
        sampling.cancel()


async def _sample(soak: Soak) -> None:
    while True:
        await asyncio.to_thread(soak.sample)
        await asyncio.sleep(SAMPLE_S)


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLOSED_CLIENTS)
    return httpx.AsyncClient(base_url=url, timeout=ANSWER_S, limits=limits, trust_env=False)


Request = tuple[str, Case, int | None]  # its kind, itself, and after how many events to leave


def _requests(draw: random.Random, *, leave: bool = True) -> Iterator[Request]:
    bad = cycle(_bad(draw))
    for number in count():
        of = draw.random()
        if of < BAD:
            yield "bad", next(bad), None
        elif of < BAD + SCHEMA:
            yield "schema", _with_schema(draw, number), None
        elif of < BAD + SCHEMA + LEAVE and leave:
            yield "leaves", _good(draw, stream=True), draw.randint(0, 8)
        else:
            yield "good", _good(draw, stream=draw.random() < 0.5), None


def _bad(draw: random.Random) -> list[Case]:
    """What is refused whatever the server's state is, small enough to be sent all the time."""
    found = [*bodies.cases(), *names.bad_names(), *streams.cases()]
    refused = [case for case in found if case.allowed <= REFUSED and len(case.body) < 20_000]
    draw.shuffle(refused)
    return refused


def _text(draw: random.Random) -> str:
    num_words = min(int(draw.lognormvariate(4, 1)), 1500)
    return f"{MARKER} {' '.join(draw.choices(WORDS, k=num_words))}"


def _good(draw: random.Random, *, stream: bool) -> Case:
    text, length = _text(draw), draw.randint(4, 64)
    turn = [{"role": "user", "content": text}]
    path, fields = draw.choice(
        [
            (CHAT, {"messages": turn, "max_tokens": length}),
            (COMPLETIONS, {"prompt": text, "max_tokens": length}),
            (MESSAGES, {"model": "tiny", "messages": turn, "max_tokens": length}),
            (GENERATE, {"text_input": text, "max_new_tokens": length}),
        ]
    )
    if path == GENERATE:
        return _case("good", f"{path}_stream" if stream else path, fields)
    return _case("good", path, {**fields, "stream": stream})


def _with_schema(draw: random.Random, number: int) -> Case:
    name = f"field_{number}_{draw.getrandbits(32)}"
    schema = {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]}
    form = {"type": "json_schema", "json_schema": {"name": "unique", "schema": schema}}
    turn = [{"role": "user", "content": _text(draw)}]
    fields = {"messages": turn, "max_tokens": 24, "response_format": form, "stream": False}
    return _case("schema", CHAT, fields)


def _case(name: str, path: str, fields: dict[str, Any]) -> Case:
    return Case(name, path, json.dumps(fields).encode())


# --- one request


async def _send(
    http: httpx.AsyncClient, soak: Soak, kind: str, case: Case, leave_after: int | None
) -> None:
    at_s = soak.now_s
    try:
        end, detail, ttft_s = await _ask(http, soak, case, leave_after, bad=kind == "bad")
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        end, detail, ttft_s = End.UNREACHABLE, repr(error), None
    except (httpx.HTTPError, ValueError) as error:
        end, detail, ttft_s = End.LOST, repr(error), None
    soak.sent.append(Sent(kind, at_s, end, detail, None if ttft_s is None else ttft_s - at_s))


async def _ask(
    http: httpx.AsyncClient, soak: Soak, case: Case, leave_after: int | None, *, bad: bool
) -> tuple[str, str, float | None]:
    # As it is written: httpx would mend a path with dots and double slashes.
    request = http.build_request(
        case.method,
        "/",
        content=case.body or None,
        headers=dict(case.headers),
        extensions={"target": case.path.encode()},
    )
    answer = await http.send(request, stream=True)
    try:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return await _events(soak, answer, leave_after)
        body = await answer.aread()
        if bad:
            found = faults(case, Answer(answer.status_code, answer.headers, body))
            return (FAULT, found[0], None) if found else (End.REFUSED, "", None)
        return *end_of_answer(answer.status_code, json.loads(body)), None
    finally:
        await answer.aclose()


async def _events(
    soak: Soak, answer: httpx.Response, leave_after: int | None
) -> tuple[str, str, float | None]:
    events: list[dict[str, Any] | str] = []
    first_at_s = None
    async for line in answer.aiter_lines():
        if not line.startswith(DATA):
            continue
        first_at_s = first_at_s or soak.now_s
        data = line.removeprefix(DATA)
        events.append(data if data == "[DONE]" else json.loads(data))
        if leave_after is not None and len(events) > leave_after:
            return LEFT, "", first_at_s
    return *end_of_stream(events), first_at_s
