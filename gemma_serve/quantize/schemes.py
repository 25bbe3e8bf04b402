"""The schemes by name: what each is for, what it needs, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gemma_serve.quantize.scheme import Scheme

Calibration = Literal["inputs", "kv"]


@dataclass(frozen=True)
class Options:
    """What a scheme is made with."""

    allow_off_grid: bool
    peaks: Mapping[str, float]


@dataclass(frozen=True)
class About:
    """A scheme, as it is chosen and described."""

    summary: str
    runs_on: str
    make: Callable[[Options], Scheme]
    dtype: str  # what its profile says
    calibration: Calibration | None = None
    takes_experts: bool = False


# The makers import late: torch takes seconds, and --help needs none of it.
def _block(_: Options) -> Scheme:
    from gemma_serve.quantize.fp8 import BlockFp8

    return BlockFp8()


def _channel(_: Options) -> Scheme:
    from gemma_serve.quantize.fp8 import ChannelFp8

    return ChannelFp8()


def _tensor(options: Options) -> Scheme:
    from gemma_serve.quantize.fp8 import TensorFp8

    return TensorFp8(options.peaks)


def _kv_cache(options: Options) -> Scheme:
    from gemma_serve.quantize.fp8 import KvCacheFp8

    return KvCacheFp8(options.peaks)


def _q4_0(options: Options) -> Scheme:
    from gemma_serve.quantize.q4_0 import Q4Zero

    return Q4Zero(allow_off_grid=options.allow_off_grid)


_GPU_ONLY = "GPUs with compute capability 8.9 or newer; not run on a GPU, and not on CPU"
SCHEMES: dict[str, About] = {
    "fp8-block": About(
        "FP8 (E4M3) weights with a scale for each 128 x 128 block",
        "CPUs with AMX, where activations stay bf16; GPUs (not run on a GPU)",
        _block,
        "fp8",
    ),
    "fp8-dynamic": About(
        "FP8 (E4M3) weights with a scale for each output channel, activations quantised token by "
        "token while serving",
        _GPU_ONLY,
        _channel,
        "fp8",
        takes_experts=True,
    ),
    "fp8-static": About(
        "FP8 (E4M3) weights with one scale a tensor, activations with one calibrated scale a layer",
        _GPU_ONLY,
        _tensor,
        "fp8",
        "inputs",
    ),
    "q4_0": About(
        "4-bit weights on the Q4_0 grid (blocks of 32, signed scales), activations in bf16",
        "CPU; GPUs through Marlin (not run on a GPU)",
        _q4_0,
        "bf16",
    ),
    "kv-fp8": About(
        "weights as they are, calibrated scales for the keys and values of an FP8 KV cache",
        "CPUs with AVX-512 or AMX; GPUs (not run on a GPU)",
        _kv_cache,
        "bf16",
        "kv",
        takes_experts=True,  # their weights stay as they are
    ),
}
