"""How long a request may take: Triton's `timeout`, or what its carrier leaves if that is less."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from gemma_serve.errors import DeadlineError, RequestError

Value = TypeVar("Value")
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Deadline:
    """A point on the event loop's clock, or none."""

    at_s: float | None
    timeout_s: float | None

    @classmethod
    def of(cls, timeout_us: Any, left_s: float | None) -> Deadline:
        """
        The deadline of a request that begins now.

        Args:
            timeout_us: The request parameter, in microseconds; 0 and None are none.
            left_s: What gRPC's deadline leaves.

        Raises:
            RequestError: the parameter is no whole number of microseconds.
        """
        is_number = isinstance(timeout_us, int) and not isinstance(timeout_us, bool)
        if timeout_us is not None and not (is_number and 0 <= timeout_us < 2**63):
            raise RequestError(
                "The parameter 'timeout' must be a whole number of microseconds, 0 for none.",
                param="timeout",
            )
        limits = [timeout_us / MICROSECONDS] if timeout_us else []
        limits += [left_s] if left_s is not None else []
        if not limits:
            return cls(None, None)
        return cls(asyncio.get_running_loop().time() + min(limits), min(limits))

    async def within(self, work: Awaitable[Value]) -> Value:
        """
        Await the work until the deadline; then it is cancelled.

        Raises:
            DeadlineError: the time is over.
        """
        if self.at_s is None:
            return await work
        left_s = self.at_s - asyncio.get_running_loop().time()
        try:
            # A task of its own: the generator behind may be driven by more than one.
            return await asyncio.wait_for(asyncio.ensure_future(work), max(left_s, 0))
        except TimeoutError:
            raise DeadlineError(
                f"The request took more than its timeout of {self.timeout_s:g} s; send a longer "
                "one, or ask for fewer tokens."
            ) from None
