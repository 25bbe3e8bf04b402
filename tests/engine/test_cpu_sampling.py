"""Top-k and top-p come to what vLLM's own function comes to, without sorting the vocabulary."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

from gemma_serve.engine import cpu_sampling
from gemma_serve.engine.cpu_sampling import MAX_K, NEVER, mask, sort_only_the_top_k

SIZE = 5000
topk_topp_sampler: Any = import_module(cpu_sampling.MODULE)
VLLMS = topk_topp_sampler.apply_top_k_top_p_pytorch


def masked(logits: torch.Tensor, k: list[int], p: list[float], vllms: Any = None) -> torch.Tensor:
    """What is left by ours; `vllms` None: which it has to do alone."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("vLLM's function was called")

    columns = (torch.tensor(k, dtype=torch.int32), torch.tensor(p))
    return mask(logits.clone(), *columns, allow_cpu_sync=True, vllms=vllms or refuse)


def by_vllm(logits: torch.Tensor, k: list[int], p: list[float]) -> torch.Tensor:
    """What is left by vLLM's function."""
    columns = (torch.tensor(k, dtype=torch.int32), torch.tensor(p))
    return VLLMS(logits.clone(), *columns, allow_cpu_sync=True)


def logits_of(num_sequences: int, *, seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    """Random ones, all different."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_sequences, SIZE, generator=generator) * scale


@pytest.mark.parametrize("scale", [0.1, 4.0, 40.0])
def test_same_as_vllms(scale: float) -> None:
    """For short and long lists, and p from next to nothing to all."""
    k = [1, 2, 64, 64, 64, MAX_K, 40, 64]
    p = [0.95, 0.5, 0.95, 1.0, 1e-6, 0.9, 0.0, 0.3]
    logits = logits_of(len(k), scale=scale)
    assert torch.equal(masked(logits, k, p), by_vllm(logits, k, p))


def test_a_batch_of_all_kinds() -> None:
    """Rows that name no k, no p, neither, or a long k, beside those that are ours."""
    k = [64, SIZE, SIZE, 3000, 5]
    p = [0.95, 1.0, 0.7, 0.9, 1.0]
    logits, left = logits_of(len(k)), []

    def vllms(*arguments: Any, **options: Any) -> torch.Tensor:
        left.append(len(arguments[0]))
        return VLLMS(*arguments, **options)

    assert torch.equal(masked(logits, k, p, vllms), by_vllm(logits, k, p))
    assert left == [2]  # those with a p alone and with a long k


def test_as_likely_as_the_last() -> None:
    """All are kept that have the logit of the k-th, as far as we look; else vLLM does it."""
    logits = logits_of(1)
    logits[0, 100:140] = 50.0
    assert torch.equal(masked(logits, [8], [1.0]), by_vllm(logits, [8], [1.0]))
    assert (masked(logits, [8], [1.0]) > NEVER).sum() == 40
    logits[0, 100:1100] = 50.0
    assert torch.equal(masked(logits, [8], [1.0], VLLMS), by_vllm(logits, [8], [1.0]))


def test_a_grammar_leaves_few() -> None:
    """Fewer tokens than k are allowed: none of the others comes back."""
    logits = torch.full((2, SIZE), NEVER)
    logits[0, 7], logits[1, [3, 9]] = 1.0, torch.tensor([2.0, 1.9])
    found = masked(logits, [64, 64], [0.95, 0.95])
    assert torch.equal(found, by_vllm(logits, [64, 64], [0.95, 0.95]))
    assert (found > NEVER).sum(1).tolist() == [1, 2]


@pytest.mark.parametrize("arguments", [(None, True), (True, None), (True, True)])
def test_the_rest_is_vllms(arguments: tuple[bool | None, bool | None]) -> None:
    """Top-k alone, top-p alone, and whatever must not wait for the device."""
    k, p = arguments
    columns = (k and torch.tensor([3]), p and torch.tensor([0.9]))
    called = []
    mask(logits_of(1), *columns, vllms=lambda *_, **__: called.append(1))
    assert called


def test_twice_is_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM may load the plugin twice; ours then does not come before itself."""
    monkeypatch.setattr(topk_topp_sampler, cpu_sampling.NAME, VLLMS)
    sort_only_the_top_k()
    sort_only_the_top_k()
    found = topk_topp_sampler.apply_top_k_top_p_pytorch
    assert (found.func, found.keywords) == (mask, {"vllms": VLLMS})


def test_vllm_samples_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sampler on a CPU comes by this function, and lets it wait for the device."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        topk_topp_sampler, cpu_sampling.NAME, lambda *_, **options: seen.update(options)
    )
    topk_topp_sampler.apply_top_k_top_p(logits_of(1), torch.tensor([3]), torch.tensor([0.9]))
    assert seen == {"allow_cpu_sync": True}
