"""How much the server takes on: from the profile's limits, the engine's size and its speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gemma_serve.api.admission.estimates import Estimates
from gemma_serve.engine.step_times import StepTimes
from gemma_serve.profile.schema import Limits, Slo

# Waiting sequences for each that runs, where the profile names no number.
QUEUE_PER_RUNNING = 2


@dataclass(frozen=True)
class Capacity:
    """What the engine takes at once."""

    max_num_seqs: int
    max_num_batched_tokens: int
    prefill_tokens: Callable[[], int]  # prompt tokens that wait or are computed in the engine
    num_waiting: Callable[[], int]  # sequences in the engine that its last step had no place for
    num_engines: int = 1  # replicas, each with steps of its own
    step_times: StepTimes = field(default_factory=StepTimes)

    @property
    def num_ahead(self) -> int:
        """What waits in the engine, so that a place which falls free is taken in the next step."""
        return max(self.max_num_seqs // 8, 1)


class Bounds:
    """
    The limits that hold now, in sequences and prompt tokens; none until the engine's size is known.

    A sequence is a prompt times `n`: what takes one of the `max_num_seqs` places of a batch.
    """

    def __init__(self, limits: Limits, slo: Slo, estimates: Estimates) -> None:
        self.limits, self.ttft_s, self.estimates = limits, slo.seconds().get("ttft"), estimates
        self.capacity: Capacity | None = None
        self.num_running = self.num_unfinished = self.num_running_of_key = math.inf

    def measure(self, capacity: Capacity) -> None:
        """Derive the limits from the engine's size."""
        self.capacity, batch = capacity, capacity.max_num_seqs
        self.num_unfinished = self.limits.max_queued_requests or batch * (1 + QUEUE_PER_RUNNING)
        self.num_running = min(batch + capacity.num_ahead, self.num_unfinished)
        self.num_running_of_key = max(int(batch * self.limits.max_key_share), 1)

    @property
    def num_running_beside_others(self) -> float:
        """Sequences of a key beside a quieter one, whose steps more would lengthen too much."""
        return min(self.num_step_tokens_beside_others, self.num_running_of_key)

    @property
    def num_step_tokens_beside_others(self) -> float:
        """
        The tokens that one key may add to a step while a quieter one sends.

        A sequence that generates is one, and a prompt that is computed as many as it has.
        """
        if self.capacity is None:
            return math.inf
        most = self.capacity.step_times.most_within(self.limits.max_key_slowdown)
        return most * self.capacity.num_engines

    @property
    def engine_is_full(self) -> bool:
        """Whether the engine has no place although the batch is not full: the KV cache is."""
        capacity = self.capacity
        return capacity is not None and capacity.num_waiting() > capacity.num_ahead

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how long prompts are; else nobody need count their characters."""
        return self.limits.max_queued_tokens is not None or self.ttft_s is not None

    @property
    def num_tokens(self) -> float:
        """Prompt tokens before a new request, here and in the engine, from which on it is 503."""
        if self.limits.max_queued_tokens is not None:
            return self.limits.max_queued_tokens
        return math.inf if self.ttft_s is None else self.estimates.max_tokens_ahead(self.ttft_s)

    def as_dict(self) -> dict[str, Any]:
        """For /v1/info; what is without a limit is None."""
        tokens, rate = self.num_tokens, self.estimates.prefill_tokens_per_s.value
        steps = self.capacity.step_times if self.capacity else StepTimes()
        return {
            "max_running_requests": _or_none(self.num_running),
            "max_running_requests_of_key": _or_none(self.num_running_of_key),
            "max_running_requests_beside_others": _or_none(self.num_running_beside_others),
            "max_queued_requests": _or_none(self.num_unfinished),
            "max_queued_tokens": _or_none(tokens),
            "prefill_tokens_per_s": None if rate is None else round(rate, 1),
            "step_ms": _or_none_ms(steps.alone_s),
            "step_ms_each": _or_none_ms(steps.each_s),  # with each further sequence
        }


def _or_none_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _or_none(limit: float) -> int | None:
    return None if limit == math.inf else round(limit)
