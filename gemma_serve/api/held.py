"""What requests hold in bodies and messages, from all doors together: bounded, and counted once."""

from __future__ import annotations

from types import TracebackType

from gemma_serve.api.admission.refusals import bodies_full
from gemma_serve.errors import UnavailableError

# Where a scope keeps the `Hold` of its request.
HOLD = "gemma_serve.hold"


class HeldBytes:
    """Bytes of all requests that arrive or are being answered; more than `max_bytes` is 503."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0

    def refusal(self, more_bytes: int) -> UnavailableError | None:
        """Why so many more have no room, if they have none."""
        if more_bytes and self.num_bytes + more_bytes > self.max_bytes:
            return bodies_full(self.max_bytes)
        return None


class Hold:
    """One request's part of them, which `with` gives back."""

    def __init__(self, held: HeldBytes) -> None:
        self.held, self.num_bytes = held, 0

    def add(self, num_bytes: int) -> None:
        """
        Hold more.

        Raises:
            UnavailableError: there is no room.
        """
        if refusal := self.held.refusal(num_bytes):
            raise refusal
        self.num_bytes += num_bytes
        self.held.num_bytes += num_bytes

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.held.num_bytes -= self.num_bytes
