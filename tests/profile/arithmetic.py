"""What a packaged profile leaves for the KV cache, by the model's config: modelled, not run."""

from __future__ import annotations

from dataclasses import dataclass

from gemma_serve.engine.capacity import _GPU_MEMORY_UTILIZATION, _weight_bytes
from gemma_serve.engine.platform import Platform
from gemma_serve.engine.settings import Context
from gemma_serve.gemma.architecture import Checkpoint
from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.profile.load import LoadedProfile

GIB = 2**30
# Of each GPU for activations, CUDA graphs and kernels' workspaces: a guess that a run must replace.
RESERVED_GIB = 2.0
_BYTES_OF_KEY_AND_VALUE = 2 * 2  # bf16


@dataclass(frozen=True)
class Room:
    """Weights, and the KV cache beside them, over all GPUs of a profile."""

    weight_gib: float
    kv_cache_gib: float
    bytes_per_token: int  # in all layers: of a request that is shorter than the window
    global_bytes_per_token: int  # in the layers that see the whole context
    window: int

    @property
    def tokens(self) -> int:
        """Tokens of requests that are shorter than the window."""
        return int(self.kv_cache_gib * GIB / self.bytes_per_token)

    def request_gib(self, tokens: int) -> float:
        """KV cache of one request of this length."""
        local = self.bytes_per_token - self.global_bytes_per_token
        held = self.global_bytes_per_token * tokens + local * min(tokens, self.window)
        return held / GIB


def room_of(loaded: LoadedProfile) -> Room:
    """What the GPUs that the profile was written for would hold."""
    profile = loaded.profile
    gpu_gib, gpus = profile.meta.gpu_memory_gib, profile.tensor_parallel_size
    assert gpu_gib is not None
    checkpoint = read_checkpoint(profile.model, download=False)
    platform = Platform("cuda", "any", (9, 0), gpus, gpu_gib, (0,))
    stored = _weight_bytes(Context(loaded, checkpoint, platform, (), {}))
    assert stored is not None
    whole, of_global = kv_bytes_per_token(checkpoint)
    usable_gib = (_GPU_MEMORY_UTILIZATION * gpu_gib - RESERVED_GIB) * gpus
    window = checkpoint.sliding_window or 0
    return Room(stored / GIB, usable_gib - stored / GIB, whole, of_global, window)


def kv_bytes_per_token(checkpoint: Checkpoint) -> tuple[int, int]:
    """Bytes that a token takes in bf16: in all layers that have a KV cache, in global ones."""
    text = checkpoint.text
    own_layers = text["num_hidden_layers"] - text.get("num_kv_shared_layers", 0)
    of_global = own_layers // text["sliding_window_pattern"]
    heads, head_dim = text["num_key_value_heads"], text["head_dim"]
    global_heads = text.get("num_global_key_value_heads") or heads
    global_head_dim = text.get("global_head_dim") or head_dim
    in_global = of_global * global_heads * global_head_dim * _BYTES_OF_KEY_AND_VALUE
    in_local = (own_layers - of_global) * heads * head_dim * _BYTES_OF_KEY_AND_VALUE
    return in_local + in_global, in_global


def sentences(loaded: LoadedProfile) -> list[str]:
    """What the comments of a profile must say of memory."""
    room, profile = room_of(loaded), loaded.profile
    gpus = profile.tensor_parallel_size
    where = f" on {gpus} GPUs" if gpus > 1 else ""
    longest = profile.max_model_len
    assert longest is not None
    return [
        f"Modelled: {room.weight_gib:.1f} GiB of weights{where} leave {room.kv_cache_gib:.1f} GiB "
        f"for the KV cache, {room.tokens // 1000 * 1000:,} tokens at "
        f"{room.bytes_per_token // 1024} KiB.",
        f"One request of {longest:,} tokens takes {room.request_gib(longest):.1f} GiB.",
    ]
