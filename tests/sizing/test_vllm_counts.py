"""Our grouping of layers against vLLM's own functions, for sizes that no engine starts here."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from gemma_serve.engine.platform import simulated
from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.gemma.facts import known_ids
from gemma_serve.sizing.deployment import _Arguments, deployment_of
from gemma_serve.sizing.kv_cache import KvCache, LayerCache, kv_cache_of
from tests.engine.derive import EIGHT_CORES, GIB

MEMORY_BYTES = 7 * GIB + 12_345
# One id of each size that differs; the rest are the same but for training.
MODELS = sorted({model for model in known_ids() if model.endswith("-it")})


def vllm_config(max_model_len: int, in_flight_tokens: int) -> Any:
    """What the functions read of a VllmConfig, whose real one needs the model's files."""
    layouts = import_module("vllm.v1.kv_cache_layout").KVCacheLayout
    return SimpleNamespace(
        model_config=SimpleNamespace(
            max_model_len=max_model_len, original_max_model_len=max_model_len
        ),
        cache_config=SimpleNamespace(
            num_gpu_blocks_override=None,
            prefix_cache_retention_interval=None,
            get_resolved_kv_cache_layout=lambda: layouts.LBHNC,
        ),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1, tensor_parallel_size=1),
        attention_config=SimpleNamespace(hisparse_config=None),
        speculative_config=None,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=in_flight_tokens,
    )


def spec_of(layer: LayerCache) -> Any:
    """The layer in vLLM's words."""
    interface, torch = import_module("vllm.v1.kv_cache_interface"), import_module("torch")
    shape = {
        "block_size": layer.block_tokens,
        "num_kv_heads": layer.num_kv_heads,
        "head_size": layer.head_dim,
        "dtype": torch.uint8 if layer.element_bytes == 1 else torch.bfloat16,
        "page_size_padded": layer.padded_page_bytes,
    }
    if layer.window is None:
        return interface.FullAttentionSpec(**shape)
    return interface.SlidingWindowSpec(**shape, sliding_window=layer.window)


def counted_by_vllm(
    layers: list[LayerCache],
    max_model_len: int,
    in_flight_tokens: int,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[int, int, float]:
    """Blocks, tokens and concurrency, as `EngineCore` computes them at its start."""
    utils = import_module("vllm.v1.core.kv_cache_utils")
    config = vllm_config(max_model_len, in_flight_tokens)
    specs = {f"layers.{index}": spec_of(layer) for index, layer in enumerate(layers)}
    (found,) = utils.get_kv_cache_configs(config, [specs], [memory_bytes])
    tokens, concurrency = utils.get_kv_cache_capacity(
        config, utils.generate_scheduler_kv_cache_config([found])
    )
    return found.num_blocks, tokens, concurrency


def counted_by_us(cache: KvCache, max_model_len: int) -> tuple[int, int, float]:
    blocks = cache.num_blocks(MEMORY_BYTES)
    tokens = cache.size_tokens(blocks, max_model_len)
    return blocks, tokens, cache.max_concurrency(blocks, max_model_len)


@pytest.mark.parametrize("model", MODELS)
def test_every_size_is_counted_as_vllm_does(model: str) -> None:
    """On GPU and CPU, with FP8 and with more GPUs than KV heads."""
    checkpoint = read_checkpoint(model, download=False)
    for platform in (simulated("h100"), simulated("l4"), EIGHT_CORES):
        for size in (1, 4):
            for dtype in ("auto", "fp8"):
                args = {"tensor_parallel_size": size, "kv_cache_dtype": dtype}
                args |= {"max_model_len": 8192}
                deployment = deployment_of(args, checkpoint, platform)
                ours = counted_by_us(deployment.kv_cache, 8192)
                layers = _Arguments(args, checkpoint, platform, {}).layers()
                theirs = counted_by_vllm(layers, 8192, deployment.in_flight_tokens)
                assert ours == pytest.approx(theirs, rel=1e-12), args


@pytest.mark.parametrize("num_local", [1, 4, 5, 7, 12, 13])
@pytest.mark.parametrize("num_global", [0, 1, 4, 5])
@pytest.mark.parametrize("global_head_dim", [96, 128, 192])
def test_any_mix_of_layers_is_counted_as_vllm_does(
    num_local: int, num_global: int, global_head_dim: int
) -> None:
    """Groups of equal size, nearly equal numbers, pages that divide each other and that do not."""
    local = LayerCache(512, 16, 2, 128, 2)
    of_global = LayerCache(None, 16, 1, global_head_dim, 2)
    layers = [local] * num_local + [of_global] * num_global

    ours = counted_by_us(kv_cache_of(layers, 2048), 5000)

    assert ours == pytest.approx(counted_by_vllm(layers, 5000, 2048), rel=1e-12)


@pytest.mark.parametrize("num_local", [1, 7])
@pytest.mark.parametrize("num_global", [1, 4])
def test_a_byte_less_than_one_request_is_refused_by_vllm_too(
    num_local: int, num_global: int
) -> None:
    """What a request takes, with the block that vLLM keeps for itself, is the least it takes."""
    layers = [LayerCache(512, 16, 2, 128, 2)] * num_local
    layers += [LayerCache(None, 16, 1, 128, 2)] * num_global
    least = kv_cache_of(layers, 2048).request_bytes(5000)

    counted_by_vllm(layers, 5000, 2048, least)
    with pytest.raises(ValueError, match="cache is needed, which is larger than the available"):
        counted_by_vllm(layers, 5000, 2048, least - 1)
