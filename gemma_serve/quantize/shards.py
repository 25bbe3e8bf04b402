"""
Safetensors files, read and written a slice of rows at a time.

safetensors' own writer wants every tensor of a file in memory at once, as the shards of a large
checkpoint must not be.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gemma_serve.errors import QuantizeError

# Elements of one slice: 4 MiB in float32, and a quantiser holds about ten such at once.
CHUNK_ELEMENTS = 1024 * 1024
# Slices start at rows that every scheme's blocks start at.
ROW_MULTIPLE = 128

# The names of the format, https://huggingface.co/docs/safetensors, for what Gemma and our schemes
# are stored in.
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Part:
    """Type and shape of a tensor in a file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return self.row_bytes * (self.shape[0] if self.shape else 1)

    @property
    def row_bytes(self) -> int:
        """Size of what one index of the first dimension holds."""
        return int(math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize)

    @property
    def is_float(self) -> bool:
        """Whether it can hold NaN."""
        return bool(DTYPES[self.dtype].is_floating_point)


@dataclass(frozen=True)
class Matrix:
    """A weight that is quantised by itself: a tensor, or a part of one that holds all experts."""

    name: str  # of the weight
    part: Part
    tensor: str  # where it is stored
    expert: int | None = None  # index in the tensor's first dimension
    first_row: int = 0  # of its second


class Stored:
    """A tensor in an open safetensors file, or a part of one."""

    def __init__(self, matrix: Matrix, file: Any, shard: str) -> None:
        self.name = matrix.name
        self.part = matrix.part
        self._matrix = matrix
        self._file = file
        self._shard = shard

    def slices(self) -> Iterator[tuple[int, torch.Tensor]]:
        """
        Its rows from the top, as (first row, rows).

        Raises:
            QuantizeError: A value is NaN or infinite.
        """
        if len(self.part.shape) == 0:
            yield 0, self._checked(self._file.get_tensor(self._matrix.tensor))
            return
        rows, elements = self.part.shape[0], math.prod(self.part.shape[1:])
        multiple = ROW_MULTIPLE if len(self.part.shape) <= 2 else 1  # what has more is only copied
        step = max(1, CHUNK_ELEMENTS // max(1, elements) // multiple) * multiple
        stored = self._file.get_slice(self._matrix.tensor)
        for row in range(0, rows, step):
            first = self._matrix.first_row + row
            inside = slice(first, first + min(step, rows - row))
            expert = self._matrix.expert
            yield row, self._checked(stored[inside] if expert is None else stored[expert, inside])

    def _checked(self, values: torch.Tensor) -> torch.Tensor:
        if self.part.is_float and not bool(torch.isfinite(values).all()):
            raise QuantizeError(
                f"Tensor {self._matrix.tensor!r} in {self._shard} holds NaN or infinite values, "
                "which no scale fits; fetch the checkpoint again, or repair it."
            )
        return values


def read_header(file: Path) -> dict[str, Part]:
    """
    Name -> type and shape of every tensor in a file.

    Raises:
        QuantizeError: It is no safetensors file, or of a type that Gemma is not stored in.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
            parts = {
                name: Part(found.get_dtype(), tuple(found.get_shape()))
                for name, found in slices.items()
            }
    except SafetensorError as error:
        raise QuantizeError(f"{file.name} can't be read ({error}); fetch it again.") from None
    for name, part in parts.items():
        if part.dtype not in DTYPES:
            raise QuantizeError(
                f"Tensor {name!r} in {file.name} is stored as {part.dtype}; name a checkpoint in "
                "bf16, fp16 or fp32."
            )
    return parts


class ShardWriter:
    """
    A safetensors file whose tensors are written in any order, a few rows at a time.

    Used in a with block; the file is on the disk when that ends.
    """

    def __init__(self, file: Path, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        # As safetensors itself does: wide types first, so that every tensor is aligned.
        order = sorted(parts, key=lambda name: (-DTYPES[parts[name].dtype].itemsize, name))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._offsets: dict[str, int] = {}
        end = 0
        for name in order:
            start, end = end, end + parts[name].num_bytes
            self._offsets[name] = start
            header[name] = {
                "dtype": parts[name].dtype,
                "shape": list(parts[name].shape),
                "data_offsets": [start, end],
            }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        self._start = 8 + len(encoded)
        self._stream = file.open("wb")
        self._stream.write(len(encoded).to_bytes(8, "little") + encoded)

    def write(self, name: str, first_row: int, rows: torch.Tensor) -> None:
        """Put these rows of a tensor in their place."""
        part = self._parts[name]
        if rows.dtype != DTYPES[part.dtype] or rows.shape[1:] != part.shape[1:]:
            raise TypeError(f"{name} is {part}, not {rows.dtype} {tuple(rows.shape)}")
        self._stream.seek(self._start + self._offsets[name] + first_row * part.row_bytes)
        self._stream.write(rows.contiguous().reshape(-1).view(torch.uint8).numpy())

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            with contextlib.suppress(OSError):  # what failed is known: say the first reason
                self._stream.close()
            return
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())


def file_bytes(parts: Mapping[str, Part]) -> int:
    """Size of a file with these tensors, without its header."""
    return sum(part.num_bytes for part in parts.values())
