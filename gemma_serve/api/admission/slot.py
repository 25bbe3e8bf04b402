"""A request's place with the engine, and what is learnt from the request while it has it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from gemma_serve import logs
from gemma_serve.api.admission.estimates import Estimates
from gemma_serve.api.admission.fair_queue import Ticket
from gemma_serve.engine.work import Work


class Slot:
    """From a request's turn to the end of its answer; `with` gives the place back."""

    def __init__(
        self,
        ticket: Ticket,
        estimates: Estimates,
        *,
        begun: Callable[[], None],
        release: Callable[[Slot], None],
    ) -> None:
        self.ticket, self.estimates = ticket, estimates
        self._has_begun, self._release = begun, release
        self.began_s = time.monotonic()
        self.num_prompt_tokens = 0
        # Estimated, until the engine counts the request itself.
        self.num_preparing_tokens = ticket.num_tokens
        self.is_open = True
        self._works: list[Work] = []
        self._ttft_s: float | None = None

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.is_open:
            self.is_open = False
            # Here, which every request comes through: those that were stopped or left, too.
            answer_tokens = sum(work.num_answer_tokens for work in self._works)
            self.ticket.tenant.used(generation_tokens=answer_tokens)
            if (ttft_s := self.ttft_s) is not None:
                logs.note(ttft_ms=round(ttft_s * 1e3, 1))
            self._release(self)

    @property
    def num_prefill_tokens(self) -> int:
        """Prompt tokens that are on their way to the engine, or there without a first token."""
        return self.num_preparing_tokens + sum(work.num_prefill_tokens for work in self._works)

    @property
    def num_beginning_tokens(self) -> float:
        """Prompt tokens without a first token; infinite until the engine has the first prompt."""
        if self._ttft_s is not None:
            return 0
        return sum(work.num_prefill_tokens for work in self._works) if self._works else math.inf

    def tokenised(self, num_tokens: int) -> None:
        """One of the request's prompts has so many tokens."""
        self.num_prompt_tokens += num_tokens
        self.num_preparing_tokens = 0
        self.ticket.tenant.used(prompt_tokens=num_tokens)

    def begun(self, work: Work) -> None:
        """The engine has got one of the request's prompts."""
        self._works.append(work)
        self._has_begun()

    def first_token(self) -> None:
        """The answer of a stream begins."""
        self._ttft_s = time.monotonic() - self.ticket.arrived_s
        self.num_preparing_tokens = 0
        own_tokens = self.num_prompt_tokens or self.ticket.num_tokens
        self.estimates.saw_first_token(self.ticket.num_tokens_ahead + own_tokens, self._ttft_s)

    @property
    def ttft_s(self) -> float | None:
        """From the request's arrival to its first token, streamed or not; None if none came."""
        if self._ttft_s is not None:
            return self._ttft_s
        came = [at_s for work in self._works if (at_s := work.first_token_at_s) is not None]
        arrived_at_s = time.time() - time.monotonic() + self.ticket.arrived_s
        return max(min(came) - arrived_at_s, 0.0) if came else None
