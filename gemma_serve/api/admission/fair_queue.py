"""The waiting requests: keys take turns, so that a long line of one does not delay another's."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemma_serve.api.admission.demand import Demand
from gemma_serve.api.admission.tenants import Tenant

if TYPE_CHECKING:
    from gemma_serve.api.admission.slot import Slot

_arrivals = itertools.count()


@dataclass(eq=False)
class Ticket:
    """A request that waits; `turn` is set when it may run, or with the reason why it may not."""

    demand: Demand
    tenant: Tenant
    num_sequences: int
    num_tokens: int  # estimated
    num_tokens_ahead: int  # when it came
    turn: asyncio.Future[None]
    arrived_s: float = field(default_factory=time.monotonic)
    rank: tuple[int, int] = field(init=False)
    slot: Slot | None = None  # once it runs

    def __post_init__(self) -> None:
        self.rank = (self.demand.priority, next(_arrivals))

    @property
    def num_beginning_tokens(self) -> float:
        """Of one that runs, prompt tokens without a first token; infinite until they are known."""
        return math.inf if self.slot is None else self.slot.num_beginning_tokens


class FairQueue:
    """
    Round robin over keys; within one, Triton's and vLLM's priority (lower goes first), then age.

    Room for another key's request is made in the longest line.

    Source: McKenney, Stochastic Fairness Queueing (INFOCOM 1990), with one queue for each key
    """

    def __init__(self) -> None:
        self._lines: dict[Tenant, list[Ticket]] = {}  # the key whose turn is next comes first
        self.num_sequences = self.num_tokens = 0

    @property
    def num_tenants(self) -> int:
        """How many keys have a request waiting."""
        return len(self._lines)

    def add(self, ticket: Ticket) -> None:
        """Put a request among the others of its key."""
        insort(self._lines.setdefault(ticket.tenant, []), ticket, key=lambda one: one.rank)
        self._count(ticket, 1)

    def heads(self) -> Iterator[Ticket]:
        """The next request of each key, in the order of their turns."""
        return (line[0] for line in self._lines.values())

    def tickets(self) -> list[Ticket]:
        """All that wait."""
        return [ticket for line in self._lines.values() for ticket in line]

    def take(self, ticket: Ticket) -> None:
        """Take out a request whose turn has come: its key's next one is after all other keys'."""
        self.remove(ticket)
        if (line := self._lines.pop(ticket.tenant, None)) is not None:
            self._lines[ticket.tenant] = line

    def remove(self, ticket: Ticket) -> None:
        """Take out a request that waits no longer, if it is still there."""
        line = self._lines.get(ticket.tenant, [])
        if ticket not in line:
            return
        line.remove(ticket)
        if not line:
            del self._lines[ticket.tenant]
        self._count(ticket, -1)

    def last_of_longest(self) -> Ticket:
        """The last request of the key that has most of them waiting."""
        longest = max(self._lines, key=lambda tenant: tenant.num_waiting)
        return self._lines[longest][-1]

    def num_before(self, tenant: Tenant) -> int:
        """Sequences that have their turn before another request of a key would."""
        return min(tenant.num_waiting * self.num_tenants, self.num_sequences)

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.num_sequences += sign * ticket.num_sequences
        self.num_tokens += sign * ticket.num_tokens
        ticket.tenant.num_waiting += sign * ticket.num_sequences
