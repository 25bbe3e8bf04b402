"""All that a plan says, gathered once for the terminal, for JSON and for the chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemma_serve.sizing.fit import (
    GIB,
    Change,
    Sizing,
    Subject,
    changes,
    fitting_gpus,
    parallel_sizes,
    recommended_size,
    unfit,
)
from gemma_serve.sizing.roofline import Roofline, roofline_of

MODELLED = "modelled, not measured"
_BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Part:
    """One part of a device's memory."""

    name: str
    num_bytes: int
    how: str  # how it is known


@dataclass(frozen=True)
class Report:
    """One profile on one machine, counted."""

    subject: Subject
    sizing: Sizing
    input_tokens: int
    output_tokens: int
    sizes: tuple[Sizing, ...]  # by tensor_parallel_size; empty on a CPU
    recommended_tensor_parallel_size: int | None
    changes: tuple[Change, ...]  # that make it fit; empty where it does
    fitting_gpus: tuple[str, ...]  # likewise
    unfit: str | None  # one sentence
    not_counted: tuple[str, ...]
    roofline: Roofline | None  # None: the device's speed is not known

    @property
    def request_tokens(self) -> int:
        """Prompt and answer of one request."""
        return self.input_tokens + self.output_tokens

    @property
    def concurrency(self) -> int:
        """Requests of these lengths that decode at a time."""
        return self.sizing.concurrency(self.request_tokens)

    def parts(self) -> list[Part]:
        """The device's memory by part; what is over is the last."""
        sizing, found = self.sizing, []
        towers = "what the packaged facts leave, to 0.1 GiB"
        for name, size in sizing.weights.by_part.items():
            rounded = name == "towers" and sizing.weights.towers_are_a_total
            how = towers if rounded else f"counted from {sizing.weights.source}"
            found.append(Part(f"weights: {name}", size, how))
        beside = sizing.activations
        found += [
            Part("activations", beside.activations, MODELLED),
            Part("CUDA graphs", beside.cuda_graphs, MODELLED),
            Part("workspaces", beside.workspaces, MODELLED),
            Part("KV cache", max(sizing.kv_cache_bytes, 0), self._how_kv_cache()),
        ]
        used = sum(part.num_bytes for part in found)
        left = max(sizing.memory_bytes - used, 0)
        found.append(Part("left to the driver and others", left, "what vLLM may not take"))
        return [part for part in found if part.num_bytes]

    def _how_kv_cache(self) -> str:
        return "set before the start" if self.sizing.kv_cache_is_exact else "what the rest leaves"


def report_of(subject: Subject, input_tokens: int, output_tokens: int) -> Report:
    """
    Size a profile for requests of these lengths.

    Raises:
        GemmaServeError: A profile that can't be resolved, or a model that can't be counted.
    """
    sizing, request_tokens = subject.size(), input_tokens + output_tokens
    on_cpu = sizing.deployment.on_cpu
    sizes = [] if on_cpu else parallel_sizes(subject)
    fits, speed = sizing.fits, sizing.platform.speed
    most = sizing.concurrency(request_tokens)
    roofline = None
    if speed is not None:
        roofline = roofline_of(
            sizing.checkpoint,
            sizing.deployment,
            sizing.weights,
            speed,
            batches=(*_BATCHES, *((most,) if most else ())),
            prompt_tokens=input_tokens,
            context_tokens=request_tokens,
        )
    return Report(
        subject,
        sizing,
        input_tokens,
        output_tokens,
        tuple(sizes),
        recommended_size(sizes, request_tokens),
        () if fits else tuple(changes(subject, sizing)),
        () if fits or on_cpu else tuple(fitting_gpus(subject)),
        None if fits else unfit(subject, sizing),
        _not_counted(subject),
        roofline,
    )


def _not_counted(subject: Subject) -> tuple[str, ...]:
    """What the profile adds to the memory and a plan knows nothing of."""
    profile = subject.loaded.profile
    found = (("LoRA adapters", profile.lora), ("the drafts of speculative", profile.speculative))
    return tuple(name for name, asked in found if asked)


def report_json(report: Report) -> dict[str, Any]:
    """The same as one JSON object; its keys are stable, and sizes are bytes of one device."""
    sizing, subject, platform = report.sizing, report.subject, report.sizing.platform
    return {
        "profile": subject.loaded.name,
        "model": subject.checkpoint.model,
        "platform": {
            "kind": platform.kind,
            "name": platform.name,
            "simulated": platform.simulated,
            "memory_gib": platform.memory_gib,
        },
        "fits": sizing.fits,
        "short_bytes": sizing.short_bytes,
        "memory": {
            "device_bytes": sizing.memory_bytes,
            "usable_bytes": sizing.usable_bytes,
            "parts": [
                {"name": part.name, "bytes": part.num_bytes, "how": part.how}
                for part in report.parts()
            ],
        },
        "kv_cache": kv_cache_json(sizing),
        "longest_context_tokens": sizing.longest_context,
        "input_tokens": report.input_tokens,
        "output_tokens": report.output_tokens,
        "concurrency": report.concurrency,
        "tensor_parallel_sizes": [_size_json(size, report.request_tokens) for size in report.sizes],
        "recommended_tensor_parallel_size": report.recommended_tensor_parallel_size,
        "changes": [_change_json(change, report.request_tokens) for change in report.changes],
        "fitting_gpus": list(report.fitting_gpus),
        "unfit": report.unfit,
        "not_counted": list(report.not_counted),
        "roofline": _roofline_json(report.roofline),
    }


def kv_cache_json(sizing: Sizing) -> dict[str, Any]:
    """The KV cache in vLLM's own terms."""
    cache = sizing.deployment.kv_cache
    return {
        "bytes": max(sizing.kv_cache_bytes, 0),
        "needed_bytes": sizing.needed_kv_cache_bytes,
        "bytes_per_block": cache.bytes_per_block,
        "num_blocks": sizing.num_blocks,
        "size_tokens": sizing.kv_cache_tokens,
        "max_model_len": sizing.deployment.max_model_len,
        "max_concurrency": round(sizing.max_concurrency, 2),
        "padding_share": round(cache.padding_share, 4),
        "groups": [
            {
                "layers": len(group.layers),
                "sliding_window": group.cache.window,
                "block_tokens": group.cache.block_tokens,
                "kv_heads": group.cache.num_kv_heads,
                "head_dim": group.cache.head_dim,
            }
            for group in cache.groups
        ],
    }


def _size_json(sizing: Sizing, request_tokens: int) -> dict[str, Any]:
    return {
        "tensor_parallel_size": sizing.deployment.tensor_parallel_size,
        "fits": sizing.fits,
        "weight_bytes": sizing.weights.device_bytes,
        "kv_cache_bytes": max(sizing.kv_cache_bytes, 0),
        "kv_cache_tokens": sizing.kv_cache_tokens,
        "longest_context_tokens": sizing.longest_context,
        "concurrency": sizing.concurrency(request_tokens),
    }


def _change_json(change: Change, request_tokens: int) -> dict[str, Any]:
    return {"settings": dict(change.settings), **_size_json(change.sizing, request_tokens)}


def _roofline_json(roofline: Roofline | None) -> dict[str, Any] | None:
    if roofline is None:
        return None
    return {
        "how": "an upper bound from the datasheet; not run on a GPU",
        "memory_gb_per_s": roofline.speed.memory_gb_per_s,
        "bf16_tflops": roofline.speed.bf16_tflops,
        "fp8_tflops": roofline.speed.fp8_tflops,
        "context_tokens": roofline.context_tokens,
        "decode": [
            {
                "batch": point.batch,
                "tokens_per_s": round(point.tokens_per_s, 1),
                "bound_by": point.bound_by,
            }
            for point in roofline.decode
        ],
        "prefill_tokens_per_s": round(roofline.prefill_tokens_per_s, 1),
    }


def gib(num_bytes: int) -> str:
    """For people: GiB with two decimals."""
    return f"{num_bytes / GIB:.2f}"
