"""The KV cache, against arithmetic that can be followed by hand."""

from __future__ import annotations

from gemma_serve.sizing.kv_cache import LayerCache, kv_cache_of
from tests.engine.derive import GIB, TWO_CORES
from tests.sizing.subjects import packaged, subject


def test_embedded_model_has_the_tokens_that_vllm_reported() -> None:
    """
    2 GiB hold 110,733 tokens of the 270M at 2,048 a request, as a real engine said.

    A block of 128 tokens has 128 KiB in a layer; groups of 3 layers make 384 KiB, so 5,461 blocks.
    A request takes 16 blocks in the global group, and in each of the 5 local groups
    cdiv(min(511 + 2,048, 2,048), 128) + 1 = 17: 101 in all. 5,461 / 101 x 2,048 = 110,733.
    """
    sizing = subject(
        TWO_CORES, model="embedded/gemma-3-270m", max_model_len=2048, kv_cache_memory_gib=2.0
    ).size()

    assert sizing.deployment.kv_cache.bytes_per_block == 384 * 1024
    assert sizing.deployment.kv_cache.blocks_of_request(2048) == 101
    assert (sizing.num_blocks, sizing.kv_cache_tokens) == (5461, 110_733)


def test_window_holds_what_is_in_flight_too() -> None:
    """On an H100, steps of 8,192 tokens, scheduled one ahead, weigh more than the window."""
    sizing = packaged("gemma-3-27b-it", "h100").size()
    local = next(group.cache for group in sizing.deployment.kv_cache.groups if group.cache.window)

    # 1,023 of the window and 2 x 8,192 in flight, in blocks of 16, and one for the edge.
    assert local.blocks_of_request(32_768, sizing.deployment.in_flight_tokens) == 1088 + 1
    assert local.blocks_while_decoding(32_768) == 64 + 1
    assert local.blocks_while_decoding(100) == 7


def test_groups_are_padded_to_equal_size() -> None:
    """27B's 52 local layers make six groups of up to ten, as its ten global layers make one."""
    cache = packaged("gemma-3-27b-it", "h100").size().deployment.kv_cache

    assert [len(group.layers) for group in cache.groups] == [9, 9, 9, 9, 8, 8, 10]
    assert round(cache.padding_share, 4) == round(8 / 70, 4)


def test_layers_that_share_a_cache_have_none() -> None:
    """3n E2B caches 20 of its 30 layers, and 4 E2B 15 of 35."""
    for model, layers in (("google/gemma-3n-E2B-it", 20), ("google/gemma-4-E2B-it", 15)):
        cache = subject("h100", model=model).size().deployment.kv_cache
        assert cache.num_layers == layers


def test_more_gpus_than_kv_heads_replicate_them() -> None:
    """The 1B has one KV head: a second GPU needs as much for each token as the first."""
    sizes = [
        subject("h100", model="google/gemma-3-1b-it", tensor_parallel_size=size).size()
        for size in (1, 4)
    ]

    assert len({size.deployment.kv_cache.bytes_per_block for size in sizes}) == 1


def test_global_layers_of_gemma_4_get_longer_blocks() -> None:
    """31B's pages: 16 heads of 256 against 4 of 512, so that 32 tokens weigh as much as 16."""
    cache = subject("h100", model="google/gemma-4-31B-it").size().deployment.kv_cache
    blocks = {group.cache.window: group.cache.block_tokens for group in cache.groups}

    assert blocks == {1024: 16, None: 32}


def test_sliding_layers_in_bf16_beside_an_fp8_cache() -> None:
    """With kv_cache_dtype_skip_layers, the global layers take 32 tokens a block, local ones 16."""
    skip = {"kv_cache_dtype_skip_layers": ["sliding_window"]}
    sizing = subject("h100", model="google/gemma-3-4b-it", kv_cache_dtype="fp8", engine=skip).size()
    groups = sizing.deployment.kv_cache.groups

    assert {(group.cache.window, group.cache.block_tokens) for group in groups} == {
        (1024, 16),
        (None, 32),
    }
    assert len({group.cache.page_bytes for group in groups}) == 1


def test_stages_of_a_pipeline_share_each_group() -> None:
    """Two stages hold half of each group, and the larger half counts."""
    layers = [LayerCache(512, 16, 1, 128, 2)] * 5 + [LayerCache(None, 16, 1, 128, 2)] * 5
    whole = kv_cache_of(layers, 2048)
    divided = kv_cache_of(layers, 2048, pipeline_parallel_size=2)

    # The first stage has the five local layers, the second the five global ones.
    assert divided.bytes_per_block == whole.bytes_per_block
    mixed = [layers[0], layers[-1]] * 5
    assert kv_cache_of(mixed, 2048, pipeline_parallel_size=2).bytes_per_block == (
        whole.bytes_per_block * 3 // 5
    )


def test_longest_context_is_the_last_that_fits() -> None:
    """One token more would need a block that is not there."""
    sizing = packaged("gemma-3-27b-it", "h100", {"tensor_parallel_size": 1}).size()
    cache, longest = sizing.deployment.kv_cache, sizing.longest_context
    memory = cache.request_bytes(50_000)

    found = cache.longest_context(memory, 131_072)

    assert longest == 131_072
    assert 50_000 <= found < 50_016
    assert cache.request_bytes(found) <= memory < cache.request_bytes(found + 1)
    assert cache.longest_context(GIB // 1024, 131_072) == 0
