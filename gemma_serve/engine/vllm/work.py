"""A request's work in the engine, as vLLM's front end counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.v1.engine.output_processor import OutputProcessor


@dataclass(frozen=True)
class RequestWork:
    """The states of one request's answers, which vLLM forgets when they end, and this does not."""

    states: tuple[Any, ...]

    @property
    def num_prefill_tokens(self) -> int:
        """As vLLM's `get_num_queued_tokens`, of this request alone."""
        return sum(state.prompt_len for state in self.states if state.is_prefilling)

    @property
    def num_answer_tokens(self) -> int:
        """Also of an answer that nobody has read."""
        return sum(state.detokenizer.num_output_tokens() for state in self.states)

    @property
    def first_token_at_s(self) -> float | None:
        """As vLLM's own statistics have it, unless the profile turns them off."""
        measured = (state.stats for state in self.states if state.stats is not None)
        return min(
            (
                stats.arrival_time + stats.first_token_latency
                for stats in measured
                if stats.first_token_latency
            ),
            default=None,
        )


def work_of(processor: OutputProcessor, request_id: str) -> RequestWork:
    """The work of a request that vLLM has just taken, by vLLM's own id of it."""
    parent = processor.parent_requests.get(request_id)  # of `n` answers
    ids = [request_id] if parent is None else parent.child_requests
    states = (processor.request_states.get(id_) for id_ in ids)
    return RequestWork(tuple(state for state in states if state is not None))
