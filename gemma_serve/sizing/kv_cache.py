"""
The KV cache as vLLM counts it: blocks, tokens and the concurrency that it reports at start.

Layers with the same cache form groups of equally many layers; all groups draw blocks of one size
from one pool. A global layer holds blocks for a whole request, a sliding one for its window and
what is in flight. Layers that share the cache of others (3n, 4 E) have none.

Source: vLLM 0.32 v1/core/kv_cache_utils.py (get_kv_cache_groups and below) and
v1/kv_cache_interface.py (FullAttentionSpec, SlidingWindowSpec). tests/sizing holds this against
those functions and against engines that were started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# vLLM takes as many layers a group as the rarest kind has, but for kinds that are nearly as many.
_NEARLY_AS_MANY = 1.5


@dataclass(frozen=True)
class LayerCache:
    """The KV cache of one decoder layer on one worker."""

    window: int | None  # tokens that it sees; None: the whole context
    block_tokens: int
    num_kv_heads: int  # of this worker
    head_dim: int
    element_bytes: int
    padded_page_bytes: int | None = None

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values."""
        return 2 * self.num_kv_heads * self.head_dim * self.element_bytes

    @property
    def page_bytes(self) -> int:
        """Bytes of one block."""
        return self.padded_page_bytes or self.block_tokens * self.bytes_per_token

    def blocks_of_request(self, tokens: int, in_flight_tokens: int) -> int:
        """
        Blocks that vLLM reserves for a request of this length.

        Args:
            in_flight_tokens: Tokens scheduled and not settled, whose blocks a window can't free.
        """
        if self.window is None:
            return _blocks(tokens, self.block_tokens)
        held = min(self.window - 1 + in_flight_tokens, tokens)
        # One more, as the window may begin inside a block.
        return _blocks(held, self.block_tokens) + 1

    def blocks_while_decoding(self, tokens: int) -> int:
        """Blocks that a request of this length holds once its prompt is read."""
        return min(self.blocks_of_request(tokens, 1), _blocks(tokens, self.block_tokens))


@dataclass(frozen=True)
class Group:
    """Layers that share one block table; `layers` are their positions in the model."""

    layers: tuple[int, ...]
    cache: LayerCache  # of each; only their pages may differ
    bytes_per_block: int  # over all its layers, on all workers of a pipeline


@dataclass(frozen=True)
class KvCache:
    """The groups of a model, and what follows for a given memory."""

    groups: tuple[Group, ...]
    bytes_per_block: int  # over all layers of the largest group on one worker
    in_flight_tokens: int

    def num_blocks(self, memory_bytes: int) -> int:
        """Blocks of the pool; one of them vLLM keeps for itself."""
        return max(memory_bytes, 0) // self.bytes_per_block

    def blocks_of_request(self, tokens: int) -> int:
        """Blocks that vLLM reserves for one request, over all groups."""
        in_flight = self.in_flight_tokens
        return sum(group.cache.blocks_of_request(tokens, in_flight) for group in self.groups)

    def request_bytes(self, tokens: int) -> int:
        """Memory that vLLM wants to see before it serves requests of this length."""
        return self.bytes_per_block * (self.blocks_of_request(tokens) + 1)

    def max_concurrency(self, num_blocks: int, tokens: int) -> float:
        """vLLM's `Maximum concurrency for N tokens per request`."""
        return num_blocks / self.blocks_of_request(tokens)

    def size_tokens(self, num_blocks: int, max_model_len: int) -> int:
        """vLLM's `KV cache size: N tokens`: the concurrency, in requests of the whole context."""
        return int(self.max_concurrency(num_blocks, max_model_len) * max_model_len)

    def longest_context(self, memory_bytes: int, limit: int) -> int:
        """The longest request, up to `limit` tokens, that the memory holds; 0 where none."""
        shortest, longest = 0, limit
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if self.request_bytes(middle) <= memory_bytes:
                shortest = middle
            else:
                longest = middle - 1
        return shortest

    def concurrency(self, num_blocks: int, tokens: int) -> int:
        """Requests of this length that decode at a time without one being preempted."""
        held = sum(group.cache.blocks_while_decoding(tokens) for group in self.groups)
        return max(num_blocks - 1, 0) // held

    @property
    def num_layers(self) -> int:
        """Layers that have a cache of their own."""
        return sum(len(group.layers) for group in self.groups)

    @property
    def padding_share(self) -> float:
        """Share of the pool that is padding, as groups must be equally large."""
        sizes = [group.bytes_per_block for group in self.groups]
        return 1 - sum(sizes) / (len(sizes) * max(sizes))


def kv_cache_of(
    layers: Sequence[LayerCache],
    in_flight_tokens: int,
    *,
    pipeline_parallel_size: int = 1,
    num_hidden_layers: int | None = None,
) -> KvCache:
    """
    Group the layers as vLLM does.

    Args:
        layers: The cache of each layer that has one, in the model's order, from the first on.
        in_flight_tokens: Tokens that are scheduled at a time and not settled.
        pipeline_parallel_size: Stages, each with its part of every group.
        num_hidden_layers: All layers, with those that share a cache; they are divided into stages.
    """
    if len({layer.window for layer in layers}) == 1:  # all need the same blocks: one group
        pages = [layer.page_bytes for layer in layers]
        groups = [Group(tuple(range(len(layers))), layers[0], sum(pages))]
    else:
        unified = _with_one_page_size(layers)
        pages = [layer.page_bytes for layer in unified]
        groups = _equal_groups(unified)
    stages = _stages(num_hidden_layers or len(layers), pipeline_parallel_size)
    largest = max(
        sum(pages[layer] for layer in group.layers if layer in stage)
        for group in groups
        for stage in stages
    )
    return KvCache(tuple(groups), largest, in_flight_tokens)


def _with_one_page_size(layers: Sequence[LayerCache]) -> list[LayerCache]:
    """Longer blocks for smaller pages; padding where they do not divide the largest."""
    largest = max(layer.page_bytes for layer in layers)

    def unified(layer: LayerCache) -> LayerCache:
        if largest % layer.page_bytes:
            return replace(layer, padded_page_bytes=largest)
        return replace(layer, block_tokens=layer.block_tokens * (largest // layer.page_bytes))

    return [layer if layer.page_bytes == largest else unified(layer) for layer in layers]


def _equal_groups(layers: Sequence[LayerCache]) -> list[Group]:
    kinds: dict[LayerCache, list[int]] = {}
    for position, layer in enumerate(layers):
        kinds.setdefault(layer, []).append(position)
    counts = [len(positions) for positions in kinds.values()]
    rarest, commonest = min(counts), max(counts)
    size = commonest if commonest < rarest * _NEARLY_AS_MANY else rarest
    groups = []
    for kind, positions in kinds.items():
        num_groups = _blocks(len(positions), size)
        for members in (tuple(positions[i::num_groups]) for i in range(num_groups)):
            groups.append(Group(members, kind, len(members) * kind.page_bytes))
    return groups


def _stages(num_layers: int, num_stages: int) -> list[range]:
    """The layers of each pipeline stage. Source: get_pp_indices, vLLM 0.32 distributed/utils.py."""
    sizes = [num_layers // num_stages] * num_stages
    for extra in range(num_layers % num_stages):
        sizes[-(extra + 2)] += 1
    starts = [sum(sizes[:stage]) for stage in range(num_stages)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _blocks(tokens: int, block_tokens: int) -> int:
    return -(-tokens // block_tokens)
