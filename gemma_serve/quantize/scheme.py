"""What a scheme is to the conversion: the tensors that it makes of one weight, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
)

from gemma_serve.quantize.shards import Part, Stored

# write(tensor's name, its first row, rows)
Write = Callable[[str, int, torch.Tensor], None]


class Scheme(Protocol):
    """Makes the stored form of a quantised weight."""

    # Of a mixture: whether each expert's matrices are weights of their own, or stay as they are.
    splits_experts: bool

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """
        Name -> type and shape of what a weight becomes.

        Raises:
            QuantizeError: The scheme can't take a weight of this type or shape.
        """

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """
        Write a weight's parts, and return what is to be said of it.

        Raises:
            QuantizeError: The scheme can't take these values.
        """

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """
        What config.json says of it, for vLLM.

        Args:
            kept: Modules that are not quantised.
        """


def compressed_tensors_config(
    scheme: QuantizationScheme | None,
    checkpoint_format: CompressionFormat,
    kept: Sequence[str],
    kv_cache: QuantizationArgs | None = None,
) -> dict[str, Any]:
    """A quantization_config of compressed-tensors, by that library's own model."""
    config = QuantizationConfig(
        config_groups={"group_0": scheme} if scheme else {},
        format=checkpoint_format.value,
        quantization_status=QuantizationStatus.COMPRESSED,
        kv_cache_scheme=kv_cache,
        ignore=list(kept),
    )
    dumped: dict[str, Any] = config.model_dump(mode="json")
    return dumped
