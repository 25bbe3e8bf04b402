"""The plan against what vLLM made of it, once the engine has started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from gemma_serve import metrics

if TYPE_CHECKING:
    from gemma_serve.sizing.fit import Sizing

_ACCEPTED_ERROR = 0.03


@dataclass(frozen=True)
class Figures:
    """The KV cache of one replica, as vLLM reports it."""

    blocks: int
    tokens: int
    max_concurrency: float


@dataclass(frozen=True)
class SelfCheck:
    """What was planned, and what is."""

    planned: Figures
    actual: Figures
    is_exact: bool  # the profile says the memory; else the plan's is modelled

    @property
    def error_ratio(self) -> dict[str, float]:
        """By figure: planned / actual - 1; above zero, the plan promised too much."""
        planned, actual = asdict(self.planned), asdict(self.actual)
        return {name: round(planned[name] / actual[name] - 1, 6) for name in planned}

    def as_dict(self) -> dict[str, Any]:
        """For /v1/info."""
        return {
            "planned": asdict(self.planned),
            "actual": asdict(self.actual),
            "error_ratio": self.error_ratio,
            "memory": "as the profile says" if self.is_exact else "modelled",
        }

    def line(self) -> str:
        """One line for the log."""
        error = self.error_ratio["tokens"]
        far = "" if abs(error) <= _ACCEPTED_ERROR else "; 'gemma-serve plan' is wrong for this one"
        return (
            f"KV cache: {self.actual.tokens:,} tokens, {self.actual.max_concurrency:.2f} requests "
            f"of the whole context; planned {self.planned.tokens:,} ({error:+.1%}{far})."
        )


def self_check(sizing: Sizing, facts: Mapping[str, Any]) -> SelfCheck | None:
    """
    Compare a plan with `Engine.facts`; None where vLLM does not say.

    The context's length is vLLM's: with max_model_len -1 it is found while the engine starts.
    """
    blocks, tokens = facts["num_kv_cache_blocks"], facts["kv_cache_tokens"]
    if not blocks or not tokens:
        return None
    deployment = replace(sizing.deployment, max_model_len=facts["max_model_len"])
    sizing = replace(sizing, deployment=deployment)
    planned = Figures(sizing.num_blocks, sizing.kv_cache_tokens, round(sizing.max_concurrency, 2))
    # vLLM adds up the blocks of all replicas, and tells the rest of one.
    actual = Figures(
        blocks // deployment.data_parallel_size,
        tokens,
        round(facts["kv_cache_max_concurrency"], 2),
    )
    return SelfCheck(planned, actual, sizing.kv_cache_is_exact)


def export(check: SelfCheck) -> None:
    """Set the series that carry the comparison."""
    for source, figures in (("plan", check.planned), ("engine", check.actual)):
        metrics.KV_CACHE_BLOCKS.labels(source).set(figures.blocks)
        metrics.KV_CACHE_TOKENS.labels(source).set(figures.tokens)
        metrics.KV_CACHE_MAX_CONCURRENCY.labels(source).set(figures.max_concurrency)
    for figure, error in check.error_ratio.items():
        metrics.PLAN_ERROR.labels(figure).set(error)
