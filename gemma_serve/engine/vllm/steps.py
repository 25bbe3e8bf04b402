"""When each engine core last finished a step, and with what: as vLLM tells its own statistics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from gemma_serve.engine.step_times import StepTimes


class StepRecorder(StatLoggerBase):  # type: ignore[misc]  # vllm is not typed for us
    """Keeps the time of one engine core's last step and what its scheduler held; once a step."""

    def __init__(
        self,
        vllm_config: VllmConfig,  # noqa: ARG002
        engine_index: int = 0,
        times: StepTimes | None = None,
    ) -> None:
        self.engine_index, self.times = engine_index, times or StepTimes()
        self.last_step_s = 0.0
        self.scheduler = SchedulerStats()

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,  # noqa: ARG002
        engine_idx: int = 0,  # noqa: ARG002
    ) -> None:
        self.last_step_s = time.monotonic()
        if scheduler_stats is not None:
            self.scheduler = scheduler_stats
            if iteration_stats is not None:
                self._measure(iteration_stats)

    def _measure(self, iteration: IterationStats) -> None:
        """Keep how long the step took, by the engine core's own clock, if it computed no prompt."""
        gaps_s = iteration.inter_token_latencies_iter  # of each sequence, since its last token
        # Whoever runs without a token of this step is in the middle of its prompt.
        has_prompt = iteration.num_prompt_tokens or self.scheduler.num_running_reqs > len(gaps_s)
        if gaps_s and not has_prompt:
            self.times.add(len(gaps_s), min(gaps_s))  # one that was put off has a longer gap

    def log_engine_initialized(self) -> None:
        pass

    def as_dict(self) -> dict[str, Any]:
        """The scheduler's last figures."""
        return {
            "engine": self.engine_index,
            "since_last_step_s": round(time.monotonic() - self.last_step_s, 3),
            "running": self.scheduler.num_running_reqs,
            "waiting": self.waiting,
            "kv_cache_usage": round(self.scheduler.kv_cache_usage, 4),
        }

    @property
    def waiting(self) -> int:
        """Requests that waited for their turn when the last step ended."""
        scheduler = self.scheduler
        return int(scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs)


@dataclass
class Steps:
    """The recorders of all engine cores; none where the profile turns vLLM's statistics off."""

    recorders: list[StepRecorder] = field(default_factory=list)
    times: StepTimes = field(default_factory=StepTimes)  # of all cores together

    def recorder(self, vllm_config: VllmConfig, engine_index: int) -> StepRecorder:
        """One more, as vLLM asks for its stat loggers."""
        made = StepRecorder(vllm_config, engine_index, self.times)
        self.recorders.append(made)
        return made

    @property
    def last_step_s(self) -> float:
        """When the core that has been silent the longest last finished a step, by monotonic()."""
        return min((recorder.last_step_s for recorder in self.recorders), default=0.0)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn, of all cores."""
        return sum(recorder.waiting for recorder in self.recorders)

    def as_dicts(self) -> list[dict[str, Any]]:
        """The schedulers' last figures, one a core."""
        return [recorder.as_dict() for recorder in self.recorders]


def request_shape(state: Any) -> dict[str, Any]:
    """What a request in the front end's hands looks like, without a word or a token of it."""
    stats = state.stats
    return {
        "age_s": round(time.time() - stats.arrival_time, 3) if stats else None,
        "prompt_tokens": state.prompt_len,
        "cached_tokens": state.num_cached_tokens,
        "generated_tokens": stats.num_generation_tokens if stats else None,
        "max_tokens": state.max_tokens_param,
        "in_prefill": state.is_prefilling,
        "answers": state.n,
        "adapter": state.lora_name,
    }
