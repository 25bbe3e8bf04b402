"""What the engine has to do, and has done, for the request at hand: what its key is charged for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol


class Work(Protocol):
    """One prompt in the engine's hands, with all of its answers (`n`)."""

    @property
    def num_prefill_tokens(self) -> int:
        """Prompt tokens of answers that have no first token yet."""

    @property
    def num_answer_tokens(self) -> int:
        """Tokens generated so far; all of them, once it is over, whatever has ended it."""

    @property
    def first_token_at_s(self) -> float | None:
        """When the first of them came, by `time.time`; None if none has, or nothing is measured."""


# Who is told of each prompt that the engine gets; the request's route puts that there.
on_work: ContextVar[Callable[[Work], None] | None] = ContextVar("on_work", default=None)
