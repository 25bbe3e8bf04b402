"""How long a request may take: one budget for every protocol, kept with one timer a request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma_serve import metrics
from gemma_serve.errors import DeadlineError, UnavailableError

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Limits


@dataclass(frozen=True)
class Deadline:
    """Two points on the event loop's clock: the first token's, and the answer's end."""

    at_s: float = math.inf
    first_token_at_s: float = math.inf
    budget_s: float = math.inf
    is_clients: bool = False  # who set the budget: the client, or the profile

    @classmethod
    def of(cls, limits: Limits, *asked_s: float | None) -> Deadline:
        """
        The deadline of a request that begins now.

        Args:
            limits: The profile's own, which a client may shorten.
            asked_s: What header, body and carrier leave, each in seconds; None is none.
        """
        asked = min((budget for budget in asked_s if budget is not None), default=math.inf)
        budget_s = min(asked, limits.max_request_s)
        now_s = asyncio.get_running_loop().time()
        first_token_at_s = now_s + min(budget_s, limits.max_ttft_s)
        return cls(now_s + budget_s, first_token_at_s, budget_s, asked <= budget_s)

    def ends_at_s(self, *, first_token: bool) -> float:
        """When an answer, or its first token, must be there."""
        return self.first_token_at_s if first_token else self.at_s

    @property
    def left_s(self) -> float:
        """Seconds until the answer must be complete."""
        return self.at_s - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def enforced(self, *, first_token: bool = False) -> AsyncIterator[None]:
        """
        Cancel the block, which one task runs, when the time is over.

        Args:
            first_token: The block ends with the first token of a stream.

        Raises:
            DeadlineError: the time is over.
        """
        at_s = self.ends_at_s(first_token=first_token)
        try:
            async with asyncio.timeout_at(at_s if at_s < math.inf else None) as timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            metrics.DEADLINES_EXCEEDED.inc()
            raise self.error(first_token=first_token) from None

    @contextmanager
    def alarm(self, stop: Callable[[], None], *, first_token: bool = False) -> Iterator[None]:
        """
        Call `stop` when the time is over: for a block that several tasks run, as a generator's.

        Args:
            stop: Makes the block raise UnavailableError, soon.
            first_token: The block ends with the first token of a stream.

        Raises:
            DeadlineError: the time is over, and the block has ended.
        """
        at_s, rang = self.ends_at_s(first_token=first_token), False

        def ring() -> None:
            nonlocal rang
            rang = True
            stop()

        timer = asyncio.get_running_loop().call_at(at_s, ring) if at_s < math.inf else None
        try:
            yield
        except UnavailableError:
            if not rang:
                raise
            metrics.DEADLINES_EXCEEDED.inc()
            raise self.error(first_token=first_token) from None
        finally:
            if timer is not None:
                timer.cancel()

    def error(self, *, first_token: bool = False) -> DeadlineError:
        """What to say once the time for an answer, or for its first token, is over."""
        if first_token and self.first_token_at_s < self.at_s:
            return DeadlineError(
                "No token came within the time that the server allows for it (limits.max_ttft_s); "
                "retry later, or on another instance."
            )
        if self.is_clients:
            return DeadlineError(
                f"The request took more than its timeout of {self.budget_s:g} s; send a longer "
                "one, or ask for fewer tokens."
            )
        return DeadlineError(
            f"The request took more than {self.budget_s:g} s (limits.max_request_s); ask for fewer "
            "tokens."
        )
