"""The one door to the engine, for every protocol: how many run, how many wait, and who is next."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gemma_serve import metrics
from gemma_serve.api.admission import refusals
from gemma_serve.api.admission.bounds import Bounds, Capacity
from gemma_serve.api.admission.demand import Demand
from gemma_serve.api.admission.estimates import Estimates
from gemma_serve.api.admission.fair_queue import FairQueue, Ticket
from gemma_serve.api.admission.slot import Slot
from gemma_serve.api.admission.tenants import Tenant, Tenants
from gemma_serve.api.keys import KeyRing
from gemma_serve.errors import GemmaServeError
from gemma_serve.profile.schema import Limits, Slo

# From this share of its queue on, a server calls itself overloaded.
OVERLOADED_SHARE = 0.9
# A key is noisy to one that has so many times fewer requests open. Those that ask for about as much
# are in each other's way alike, and fill the batch together.
NOISY = 2
# How soon a full engine is looked at again: it tells nobody when it has a place.
LOOK_AGAIN_S = 0.02


class Admission:
    """
    Counts sequences from here to the end of their answers, and prompt tokens to the first token.

    A batch and a few more sequences are with the engine. The rest waits here, before it is
    tokenised, so that its order can still be chosen, and nothing was spent on what is refused.
    Until `open`, which the warm-up precedes, everything passes.
    """

    def __init__(self, limits: Limits, slo: Slo, keys: KeyRing | None = None) -> None:
        self.limits = limits
        self.estimates = Estimates()
        self.bounds = Bounds(limits, slo, self.estimates)
        self.queue = FairQueue()
        self.tenants = Tenants(keys, limits.key_tokens_per_minute)
        self.num_running = 0
        self._looks_again: asyncio.TimerHandle | None = None
        self._refuse_all: Callable[[], GemmaServeError] | None = None
        self._slots: set[Slot] = set()  # with the engine, which may not count their tokens yet

    def open(self, capacity: Capacity, prefill_tokens_per_s: float | None = None) -> None:
        """
        Hold the limits from now on.

        Args:
            capacity: The engine's.
            prefill_tokens_per_s: As the warm-up measured it.
        """
        self.bounds.measure(capacity)
        self.estimates.min_prefill_tokens = capacity.max_num_batched_tokens
        self.estimates.prefill_tokens_per_s.value = prefill_tokens_per_s
        metrics.ADMISSION_WAITING.set_function(lambda: self.queue.num_sequences)
        metrics.ADMISSION_MAX_REQUESTS.set(self.bounds.num_unfinished)
        metrics.ADMISSION_MAX_TOKENS.set_function(lambda: self.bounds.num_tokens)
        metrics.ADMISSION_MAX_KEY_REQUESTS.set_function(
            lambda: self.bounds.num_running_beside_others
        )

    def close(self, refuse: Callable[[], GemmaServeError]) -> None:
        """Refuse all that wait, and whatever still comes: a place that falls free is nobody's."""
        self._refuse_all = refuse
        for ticket in self.queue.tickets():
            self.queue.remove(ticket)
            if not ticket.turn.done():
                ticket.turn.set_exception(refuse())

    @property
    def overloaded(self) -> bool:
        """Whether the next requests are likely to be refused."""
        return self.num_unfinished >= OVERLOADED_SHARE * self.bounds.num_unfinished

    @property
    def num_unfinished(self) -> int:
        """Sequences that run or wait."""
        return self.num_running + self.queue.num_sequences

    def as_dict(self) -> dict[str, Any]:
        """For /v1/info."""
        now = {"running_requests": self.num_running, "waiting_requests": self.queue.num_sequences}
        return {**self.bounds.as_dict(), **now}

    # --- in

    async def enter(self, demand: Demand) -> Slot:
        """
        Wait for a place with the engine.

        Returns:
            The place, which the caller closes.

        Raises:
            RateLimitError: the key has used up its tokens, or its share of a full queue.
            UnavailableError: too many requests or tokens are before it, or it waited too long.
            DeadlineError: its time is over, or will be before its turn comes.
        """
        tenant = self.tenants.of(demand.key)
        try:
            slot = await self._enter(demand, tenant)
        except GemmaServeError:
            tenant.asked("refused")
            raise
        tenant.asked("taken")
        return slot

    async def _enter(self, demand: Demand, tenant: Tenant) -> Slot:
        if self._refuse_all is not None:
            raise self._refuse_all()
        if demand.deadline.left_s <= 0:
            raise refusals.late(demand.deadline.error())
        if tenant.bucket is not None and (wait_s := tenant.bucket.wait_s()):
            raise refusals.key_tokens(self.limits.key_tokens_per_minute, wait_s)
        self.tenants.saw(tenant)
        ticket = self._ticket(demand, tenant)
        self.queue.add(ticket)
        self._run_waiting()
        if not ticket.turn.done():
            self._push_out()
            await self._wait(ticket)
        slot = ticket.slot = Slot(
            ticket, self.estimates, begun=self._run_waiting, release=self._release
        )
        self._slots.add(slot)
        return slot

    def _ticket(self, demand: Demand, tenant: Tenant) -> Ticket:
        num_tokens = num_tokens_ahead = 0
        if self.bounds.counts_tokens:
            num_tokens = demand.num_tokens + self.estimates.tokens_of(demand.num_chars)
            num_tokens_ahead = self._tokens_ahead()
            self._check_tokens(num_tokens_ahead, tenant)
        return Ticket(
            demand,
            tenant,
            # More than can ever run would never leave the queue.
            round(min(demand.num_sequences, self.bounds.num_running)),
            num_tokens,
            num_tokens_ahead,
            asyncio.get_running_loop().create_future(),
        )

    def _tokens_ahead(self) -> int:
        preparing = sum(slot.num_preparing_tokens for slot in self._slots)
        capacity = self.bounds.capacity
        return self.queue.num_tokens + preparing + (capacity.prefill_tokens() if capacity else 0)

    def _check_tokens(self, num_tokens_ahead: int, tenant: Tenant) -> None:
        limit, rate = self.bounds.num_tokens, self.estimates.prefill_tokens_per_s.value
        if num_tokens_ahead >= limit:
            num_tokens_ahead = self._fair_tokens_ahead(num_tokens_ahead, tenant)
        if num_tokens_ahead >= limit:
            wait_s = (num_tokens_ahead - limit) / rate if rate else 0
            raise refusals.too_many_tokens(num_tokens_ahead, limit, wait_s)

    def _fair_tokens_ahead(self, num_tokens_ahead: int, tenant: Tenant) -> int:
        """
        What would be before a key's request if keys took turns by tokens: its own, and of each
        other key's as many. So a key is not refused for what another one has brought.
        """
        tokens: Counter[Tenant] = Counter()
        for ticket in self.queue.tickets():
            tokens[ticket.tenant] += ticket.num_tokens
        for slot in self._slots:
            tokens[slot.ticket.tenant] += slot.num_prefill_tokens
        others = [count for other, count in tokens.items() if other is not tenant]
        # All that is nobody else's: the warm-up's, and what an end is still to take away, too.
        own = max(num_tokens_ahead - sum(others), 0)
        return own + sum(min(count, own) for count in others)

    # --- waiting

    async def _wait(self, ticket: Ticket) -> None:
        demand, patience_s = ticket.demand, self.limits.max_wait_s
        self._check_hope(ticket)
        patience_at_s = asyncio.get_running_loop().time() + patience_s
        at_s = demand.deadline.ends_at_s(first_token=demand.stream)
        try:
            await self._turn(ticket, min(patience_at_s, at_s))
        except TimeoutError:
            if at_s <= patience_at_s:
                error = demand.deadline.error(first_token=demand.stream)
                raise refusals.late(error) from None
            raise refusals.waited(patience_s, self._wait_s(ticket)) from None

    async def _turn(self, ticket: Ticket, at_s: float) -> None:
        try:
            async with asyncio.timeout_at(at_s):
                await ticket.turn
        except BaseException:  # also a client that leaves
            self.queue.remove(ticket)
            turn = ticket.turn
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave(ticket)  # its turn came at that very moment
            raise

    def _check_hope(self, ticket: Ticket) -> None:
        left_s, wait_s = ticket.demand.deadline.left_s, self._wait_s(ticket)
        if not ticket.turn.done() and wait_s > left_s:
            self.queue.remove(ticket)
            raise refusals.hopeless(wait_s, left_s)

    def _wait_s(self, ticket: Ticket) -> float:
        return self.estimates.wait_s(self.queue.num_before(ticket.tenant), self.num_running)

    def _push_out(self) -> None:
        """Where the queue is over its limit, refuse the last request of the longest line."""
        limit = self.bounds.num_unfinished
        while self.num_unfinished > limit:
            last = self.queue.last_of_longest()
            refuse = refusals.key_share if self.queue.num_tenants > 1 else refusals.queue_full
            error = refuse(limit, self._wait_s(last))
            self.queue.remove(last)
            if not last.turn.done():
                last.turn.set_exception(error)

    # --- turns

    def _run_waiting(self) -> None:
        """Give free places to those whose turn it is."""
        while (ticket := self._next()) is not None:
            if self.num_running + ticket.num_sequences > self.bounds.num_running:
                return
            if self.num_running and self.bounds.engine_is_full:
                self._look_again_later()
                return
            self.queue.take(ticket)
            if not ticket.turn.done():  # its client may be leaving at this moment
                ticket.turn.set_result(None)
                self.num_running += ticket.num_sequences
                ticket.tenant.num_running += ticket.num_sequences
                ticket.tenant.beginning.add(ticket)

    def _next(self) -> Ticket | None:
        """The first request that may run, in the order of turns."""
        if not self.queue.num_tenants:
            return None
        least_open = self.tenants.least_open()
        heads = self.queue.heads()
        return next((ticket for ticket in heads if self._may_run(ticket, least_open)), None)

    def _look_again_later(self) -> None:
        if self._looks_again is None:
            loop = asyncio.get_running_loop()
            self._looks_again = loop.call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._looks_again = None
        self._run_waiting()

    def _may_run(self, ticket: Ticket, least_open: float) -> bool:
        """
        Whether the request leaves other keys, where there are any, what is theirs: a place in the
        batch, and while a quieter one sends, steps that this key's sequences and prompts lengthen
        by little.
        """
        tenant, bounds = ticket.tenant, self.bounds
        if tenant.num_running == 0 or not self.tenants.are_several:
            return True
        running = tenant.num_running + ticket.num_sequences
        if tenant.num_open < NOISY * least_open:
            return running <= bounds.num_running_of_key
        if running > bounds.num_running_beside_others:
            return False
        most = bounds.num_step_tokens_beside_others
        if most < math.inf and tenant.num_beginning_tokens >= most:
            self._look_again_later()  # a first token comes without a word to us
            return False
        return True

    # --- out

    def _release(self, slot: Slot) -> None:
        self._slots.discard(slot)
        self.estimates.saw_prompt(slot.ticket.demand.num_chars, slot.num_prompt_tokens)
        if self.bounds.capacity is not None:  # the warm-up is slower than what comes after
            self.estimates.service_s.add(time.monotonic() - slot.began_s)
        self._leave(slot.ticket)

    def _leave(self, ticket: Ticket) -> None:
        tenant = ticket.tenant
        self.num_running -= ticket.num_sequences
        tenant.num_running -= ticket.num_sequences
        tenant.beginning.discard(ticket)
        self.tenants.saw(tenant)
        self._run_waiting()
