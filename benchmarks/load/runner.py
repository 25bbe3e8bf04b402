"""
Offers a workload by a load: closed or open loop, warm-up handed over without draining, drain.

Warm-up and measured requests stand in one line, so that the load never dips between them; what is
still running when the last measured request was sent is allowed to finish.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.load.answer import Sent, to_record
from benchmarks.load.connection import Endpoint, Exchange, unreachable
from benchmarks.load.health import HealthMonitor
from benchmarks.load.protocols import Extras, Message
from benchmarks.load.schedule import arrival_times_s, trace_times_s, units
from benchmarks.load.wire import open_pool, request_bytes
from benchmarks.records import (
    TRITON_PROTOCOLS,
    ClientHealth,
    Item,
    Load,
    Phase,
    Protocol,
    RequestRecord,
    TokenSource,
    TritonContract,
)

# Connections opened before an open loop begins; more are opened as they are needed.
OPEN_LOOP_CONNECTIONS = 32

Unit = tuple[Phase, list[Item]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sending:
    """How requests are written and read: the same for every request of a run."""

    endpoint: Endpoint
    protocol: Protocol
    model: str
    token_source: TokenSource = "token_ids"
    ignore_eos: bool = True
    # Of the run: no request finds prefix-cache blocks of another run's; with salt_each, neither
    # those of another request (or conversation) of its own. Triton's protocols have no field for
    # a salt: with salt_each it stands in front of each prompt, else it is left out.
    salt: str | None = None
    salt_each: bool = True
    contract: TritonContract = "python-backend"
    stall_s: float = 120.0
    timeout_s: float = 600.0
    keep_text: bool = False

    def request(self, item: Item, phase: Phase, history: list[Message] | None = None) -> bytes:
        """The bytes of one request."""
        extras = Extras(
            ignore_eos=self.ignore_eos,
            token_ids=self.token_source in ("token_ids", "event_counts"),
            continuous_usage=self.token_source == "continuous_usage",
            cache_salt=self._cache_salt(item, phase),
        )
        return request_bytes(
            self.endpoint,
            self.protocol,
            self.model,
            item,
            extras,
            history=history,
            contract=self.contract,
        )

    @property
    def salts_text(self) -> bool:
        """Whether a prompt begins with its salt."""
        return bool(self.salt) and self.salt_each and self.protocol in TRITON_PROTOCOLS

    def _cache_salt(self, item: Item, phase: Phase) -> str | None:
        if self.salt and self.salt_each:
            return f"{self.salt}-{phase}-{item.conversation or item.index}"
        return None if self.protocol in TRITON_PROTOCOLS else self.salt


@dataclass
class Offered:
    """What came of it."""

    records: list[RequestRecord]
    health: ClientHealth
    origin_s: float  # time.perf_counter of the first sending
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)


async def offer(
    sending: Sending,
    load: Load,
    items: Sequence[Item],
    warm_up: Sequence[Item] = (),
    *,
    seed: int = 0,
    on_measured: Callable[[], Awaitable[None]] | None = None,
    on_progress: Progress | None = None,
) -> Offered:
    """
    Send everything and wait for all of it.

    `on_measured` is awaited beside the load when the first measured request is sent. Failures are
    in the records; nothing is raised for them.

    Raises:
        ValueError: the workload and the protocol or load do not go together; nothing was sent.
    """
    line: list[Unit] = [("warm_up", unit) for unit in units(warm_up)]
    line += [("measured", unit) for unit in units(items)]
    run = _Run(sending, load, line, seed, on_measured, on_progress)
    return await run.offer()


class _Run:
    def __init__(
        self,
        sending: Sending,
        load: Load,
        line: list[Unit],
        seed: int,
        on_measured: Callable[[], Awaitable[None]] | None,
        on_progress: Progress | None,
    ) -> None:
        self.sending, self.load, self.line = sending, load, line
        self.on_measured, self.on_progress = on_measured, on_progress
        self.total = sum(len(unit) for phase, unit in line if phase == "measured")
        self.due_s = self._due_s(seed) if load.mode != "closed" else []
        # Built before the clock starts; a later turn needs the answers before it.
        self.first_bytes = [sending.request(unit[0], phase) for phase, unit in line]
        self.sent: list[Sent] = []
        self.health = HealthMonitor()
        self.measured_began = False
        self.num_done = 0
        self.pool = open_pool(
            sending.endpoint,
            sending.protocol,
            stall_s=sending.stall_s,
            timeout_s=sending.timeout_s,
        )
        self.places = asyncio.Semaphore(load.max_concurrency) if load.max_concurrency else None
        self.beside: list[asyncio.Task[None]] = []

    def _due_s(self, seed: int) -> list[float]:
        if self.load.mode == "open":
            return arrival_times_s(self.load, len(self.line), seed)
        times = trace_times_s([unit for phase, unit in self.line if phase == "measured"], self.load)
        ahead = len(self.line) - len(times)
        # The warm-up of a trace goes before it, at the trace's own mean pace.
        gap_s = times[-1] / max(1, len(times) - 1)
        return [number * gap_s for number in range(ahead)] + [ahead * gap_s + t for t in times]

    async def offer(self) -> Offered:
        """The whole run."""
        closed = self.load.mode == "closed"
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.pool)
            stack.callback(self.health.cancel)
            await self._connect((self.load.concurrency or 1) if closed else OPEN_LOOP_CONNECTIONS)
            origin_s = time.perf_counter()
            await (self._closed() if closed else self._open(origin_s))
            ended_s = time.perf_counter()
            health = self.health.stop()
            await asyncio.gather(*self.beside)
        return Offered(self._records(origin_s), health, origin_s, self._phases(origin_s, ended_s))

    async def _connect(self, count: int) -> None:
        try:
            await self.pool.open(min(count, len(self.line)))
        except OSError as error:
            raise unreachable(self.sending.endpoint, error) from error

    async def _closed(self) -> None:
        """
        Each of `concurrency` clients takes the next unit as soon as its last one is done.

        They start one after another, evenly over the ramp.
        """
        line = iter(zip(self.line, self.first_bytes, strict=True))
        num_clients, ramp_s = self.load.concurrency or 1, self.load.ramp_s or 0.0

        async def client(number: int) -> None:
            await asyncio.sleep(ramp_s * number / num_clients)
            for (phase, unit), first in line:
                await self._send_unit(phase, unit, first, None)

        async with asyncio.TaskGroup() as clients:
            for number in range(num_clients):
                clients.create_task(client(number))

    async def _open(self, origin_s: float) -> None:
        """Each unit at its own time after the start, whatever became of those before it."""
        async with asyncio.TaskGroup() as sent:
            for (phase, unit), first, due_s in zip(
                self.line, self.first_bytes, self.due_s, strict=True
            ):
                sched_s = origin_s + due_s
                if (early_s := sched_s - time.perf_counter()) > 0:
                    await asyncio.sleep(early_s)
                sent.create_task(self._send_unit(phase, unit, first, sched_s))

    async def _send_unit(
        self, phase: Phase, unit: list[Item], first: bytes, sched_s: float | None
    ) -> None:
        history: list[Message] = []
        request = first
        for number, item in enumerate(unit):
            if number:
                await asyncio.sleep(item.think_s)
                request = self.sending.request(item, phase, history)
                sched_s = None if sched_s is None else time.perf_counter()
            sent = await self._send(phase, item, request, sched_s)
            if number + 1 < len(unit):
                record = self._record(sent, 0.0, keep_text=True)
                if record.error is not None:
                    self._give_up(phase, unit[number + 1 :], item.turn)
                    return
                history += [*(item.messages or [{"role": "user", "content": item.prompt}])]
                history.append({"role": "assistant", "content": record.text or " "})

    async def _send(self, phase: Phase, item: Item, request: bytes, sched_s: float | None) -> Sent:
        if phase == "measured" and not self.measured_began:
            self._begin_measured()
        waited_s = 0.0
        if self.places is None:
            exchange = await self.pool.send(request)
        else:
            asked_s = time.perf_counter()
            async with self.places:
                waited_s = time.perf_counter() - asked_s
                exchange = await self.pool.send(request)
        return self._book(Sent(item, phase, exchange, sched_s, waited_s))

    def _give_up(self, phase: Phase, turns: list[Item], failed_turn: int) -> None:
        """A conversation can't go on without an answer: what was planned of it has failed too."""
        now_s = time.perf_counter()
        why = f"not sent: turn {failed_turn} of its conversation failed"
        for item in turns:
            exchange = Exchange(now_s, now_s, now_s, error="not_sent", error_message=why)
            self._book(Sent(item, phase, exchange, None, 0.0))

    def _book(self, sent: Sent) -> Sent:
        self.sent.append(sent)
        if sent.phase == "measured" and self.on_progress is not None:
            self.num_done += 1
            self.on_progress(self.num_done, self.total)
        return sent

    def _begin_measured(self) -> None:
        self.measured_began = True
        self.health.start()
        if self.on_measured is not None:
            self.beside.append(asyncio.ensure_future(self.on_measured()))

    # --- afterwards

    def _record(self, sent: Sent, origin_s: float, *, keep_text: bool) -> RequestRecord:
        return to_record(
            sent,
            self.sending.protocol,
            self.sending.token_source,
            origin_s,
            keep_text=keep_text,
        )

    def _records(self, origin_s: float) -> list[RequestRecord]:
        keep = self.sending.keep_text
        records = [self._record(sent, origin_s, keep_text=keep) for sent in self.sent]
        return sorted(records, key=lambda record: (record.phase != "warm_up", record.index))

    def _phases(self, origin_s: float, ended_s: float) -> dict[str, tuple[float, float]]:
        sends = [
            one.exchange.send_s
            for one in self.sent
            if one.phase == "measured" and one.exchange.error != "not_sent"
        ]
        began_s, last_s = min(sends), max(sends)
        spans = {"warm_up": (origin_s, began_s)} if began_s > origin_s else {}
        spans |= {"measured": (began_s, last_s), "drain": (last_s, ended_s)}
        return {name: (a - origin_s, b - origin_s) for name, (a, b) in spans.items()}
