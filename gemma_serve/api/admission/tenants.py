"""Who sends: what each key may use in a minute, and what it has used."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemma_serve import metrics
from gemma_serve.api.keys import Key, KeyRing

if TYPE_CHECKING:
    from gemma_serve.api.admission.fair_queue import Ticket

# A name is a label of four series; a keys file of thousands must not become thousands of series.
MAX_LABELS = 64
# For so long after its last request a key counts as one that sends.
ACTIVE_S = 60.0


class TokenBucket:
    """
    A budget that fills by the second, up to one minute's; one request may overdraw it.

    Source: RFC 2697, without its second bucket
    """

    def __init__(self, tokens_per_minute: int) -> None:
        self.tokens_per_s = tokens_per_minute / 60
        self.size = float(tokens_per_minute)
        self.left, self.at_s = self.size, asyncio.get_running_loop().time()

    def take(self, num_tokens: int) -> None:
        """Use tokens, more than there are if need be: the debt is paid by waiting."""
        self._fill()
        self.left -= num_tokens

    def wait_s(self) -> float:
        """Seconds until there is something left; 0 if there is."""
        self._fill()
        return 0.0 if self.left > 0 else (1 - self.left) / self.tokens_per_s

    def _fill(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self.left = min(self.left + (now_s - self.at_s) * self.tokens_per_s, self.size)
        self.at_s = now_s


@dataclass(eq=False)
class Tenant:
    """One key, or all keys of one name, or everybody where no keys are asked for."""

    label: str | None  # None: no keys, and so no series by key
    bucket: TokenBucket | None
    num_running: int = 0
    num_waiting: int = 0
    beginning: set[Ticket] = field(default_factory=set)  # that run, when last seen without a token

    @property
    def num_open(self) -> int:
        """Sequences that run or wait: what the key asks for now."""
        return self.num_running + self.num_waiting

    @property
    def num_beginning_tokens(self) -> float:
        """Prompt tokens of what runs without a first token; infinite where they are not known."""
        tokens = {ticket: ticket.num_beginning_tokens for ticket in self.beginning}
        self.beginning = {ticket for ticket, num_tokens in tokens.items() if num_tokens}
        return sum(tokens.values())

    def asked(self, outcome: str) -> None:
        """Count a request as taken or refused."""
        if self.label is not None:
            metrics.KEY_REQUESTS.labels(self.label, outcome).inc()

    def used(self, *, prompt_tokens: int = 0, generation_tokens: int = 0) -> None:
        """Charge tokens and count them."""
        if self.bucket is not None:
            self.bucket.take(prompt_tokens + generation_tokens)
        if self.label is not None:
            metrics.KEY_PROMPT_TOKENS.labels(self.label).inc(prompt_tokens)
            metrics.KEY_GENERATION_TOKENS.labels(self.label).inc(generation_tokens)


class Tenants:
    """All that have sent something since the start: at most as many as there were keys."""

    def __init__(self, keys: KeyRing | None, tokens_per_minute: int | None) -> None:
        self.keys, self.tokens_per_minute = keys, tokens_per_minute
        self._known: dict[str | None, Tenant] = {}
        self._labels: set[str] = set()
        self._sending: dict[Tenant, float] = {}  # when each was last seen; the latest is the last

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, of which a reload may make several."""
        return self.keys is not None and self.keys.num_tenants > 0

    @property
    def are_several(self) -> bool:
        """Whether there is anybody to leave room for."""
        return self.keys is not None and self.keys.num_tenants > 1

    def of(self, key: Key | None) -> Tenant:
        """The tenant of a key; None is everybody's."""
        name = None if key is None else key.tenant
        if (tenant := self._known.get(name)) is None:
            tenant = self._known[name] = Tenant(self._label(key), self._bucket(key))
        return tenant

    def saw(self, tenant: Tenant) -> None:
        """A request of this tenant has come, or has ended."""
        if tenant.label is None:  # the warm-up's, or everybody's
            return
        self._sending.pop(tenant, None)
        self._sending[tenant] = asyncio.get_running_loop().time()

    def least_open(self) -> float:
        """
        How many sequences the key with the fewest has open, of those that send: 0 between two
        requests of a key, as long as one has come, or has ended, within `ACTIVE_S`.
        """
        long_ago_s = asyncio.get_running_loop().time() - ACTIVE_S
        while self._sending and next(iter(self._sending.values())) <= long_ago_s:
            del self._sending[next(iter(self._sending))]
        return min((tenant.num_open for tenant in self._sending), default=math.inf)

    def _bucket(self, key: Key | None) -> TokenBucket | None:
        if key is None or self.tokens_per_minute is None:
            return None
        return TokenBucket(self.tokens_per_minute)

    def _label(self, key: Key | None) -> str | None:
        if key is None:
            return None
        if len(self._labels) >= MAX_LABELS and key.label not in self._labels:
            return "other"
        self._labels.add(key.label)
        return key.label
