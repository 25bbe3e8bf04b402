"""
The roofline: no deployment decodes or reads prompts faster than its devices' memory and arithmetic.

Assumed: the datasheet's bandwidth and dense FLOP/s, reached in full; every weight is read once a
step, of experts those that the batch touches; each sequence's keys and values are read once;
nothing is lost to communication, kernel launches, sampling or the CPU. Real servers stay below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemma_serve.engine.platform import Speed
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.sizing.deployment import Deployment
    from gemma_serve.sizing.weights import Weights


@dataclass(frozen=True)
class Decode:
    """The bound of one batch size."""

    batch: int
    tokens_per_s: float
    bound_by: str  # memory or arithmetic


@dataclass(frozen=True)
class Roofline:
    """Upper bounds for one replica."""

    speed: Speed
    decode: tuple[Decode, ...]
    prefill_tokens_per_s: float
    context_tokens: int  # of each sequence


def roofline_of(
    checkpoint: Checkpoint,
    deployment: Deployment,
    weights: Weights,
    speed: Speed,
    *,
    batches: tuple[int, ...],
    prompt_tokens: int,
    context_tokens: int,
) -> Roofline:
    """
    Bounds of decoding at some batch sizes, and of reading prompts.

    Args:
        speed: Of one device.
        prompt_tokens: Of a prompt, for the prefill.
        context_tokens: That each sequence has behind it while it decodes.
    """
    model = _Model(checkpoint, deployment, weights, speed)
    decode = tuple(model.decode(batch, context_tokens) for batch in sorted(set(batches)))
    return Roofline(speed, decode, model.prefill(prompt_tokens), context_tokens)


@dataclass(frozen=True)
class _Model:
    checkpoint: Checkpoint
    deployment: Deployment
    weights: Weights
    speed: Speed

    def decode(self, batch: int, context_tokens: int) -> Decode:
        """
        `batch / max(bytes / bandwidth, FLOP / peak)`, of each device.

        The stages of a pipeline work on as many batches at once, each on its share of the layers.
        """
        read = self._weight_bytes(batch) + batch * self._kv_bytes(context_tokens)
        memory_s = read / (self.speed.memory_gb_per_s * 1e9)
        arithmetic_s = batch * self._arithmetic_s(context_tokens, heads=1)
        bound = "memory" if memory_s >= arithmetic_s else "arithmetic"
        return Decode(batch, batch / max(memory_s, arithmetic_s), bound)

    def prefill(self, prompt_tokens: int) -> float:
        """
        Tokens/s, `peak / FLOP of a token`; a token of a prompt sees half of it.

        vLLM computes the logits of a prompt's last token alone, so that the head counts once.
        """
        return 1 / self._arithmetic_s(max(prompt_tokens // 2, 1), heads=1 / prompt_tokens)

    def _weight_bytes(self, batch: int) -> float:
        """Of one device; each token of a batch chooses its experts, so that many are touched."""
        text, experts = self.checkpoint.text, self.weights.expert_bytes
        if not experts:
            return self.weights.read_bytes
        share = float((text.get("top_k_experts") or 1) / text["num_experts"])
        untouched = (1 - share) ** batch
        return self.weights.read_bytes + experts * (1 - untouched - share)

    def _kv_bytes(self, context_tokens: int) -> int:
        """Of one sequence on one device: a window's worth in sliding layers, shared ones again."""
        caches = {group.cache.window: group.cache for group in self.deployment.kv_cache.groups}
        read = 0
        for layer in range(self.checkpoint.num_hidden_layers or 0):
            window = self.checkpoint.attention_of(layer).sliding_window
            cache = caches.get(window) or next(iter(caches.values()))
            read += cache.bytes_per_token * min(context_tokens, window or context_tokens)
        return read // self.deployment.pipeline_parallel_size

    def _arithmetic_s(self, context_tokens: int, heads: float) -> float:
        """
        Of one token over all devices: two FLOP for each weight, four for each value compared.

        The FP8 part of the weights runs at FP8's peak where there is one; and, as a bound, the same
        share of attention.

        Args:
            heads: Share of the tokens that are multiplied with the head.
        """
        weights, speed = self.weights, self.speed
        multiplied = weights.active_parameters - (1 - heads) * weights.head_parameters
        flop = 2 * multiplied + 4 * self._compared(context_tokens)
        in_fp8 = weights.fp8_share * weights.active_parameters if speed.fp8_tflops else 0.0
        share = min(in_fp8 / multiplied, 1.0)
        s_per_tflop = share / (speed.fp8_tflops or 1) + (1 - share) / speed.bf16_tflops
        return flop / 1e12 * s_per_tflop / self.deployment.num_workers

    def _compared(self, context_tokens: int) -> int:
        """Values that attention compares for one token."""
        compared = 0
        for layer in range(self.checkpoint.num_hidden_layers or 0):
            attention = self.checkpoint.attention_of(layer)
            seen = min(context_tokens, attention.sliding_window or context_tokens)
            compared += seen * (self.checkpoint.num_attention_heads or 1) * attention.head_dim
        return compared
