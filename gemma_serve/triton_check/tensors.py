"""The tensors of KServe v2, from JSON and from bytes, as flat tuples of Python values."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_serve.triton_check.json_values import kind

JsonObject = Mapping[str, Any]


@dataclass(frozen=True)
class Output:
    """A named output, as far as a client sees it."""

    name: str
    datatype: str  # KServe's; of the generate extension, the kind of JSON value
    values: tuple[Any, ...] | None  # None: the data fit neither datatype nor shape
    shape: tuple[int, ...] | None = None  # the generate extension has none
    is_binary: bool = False
    in_every_event: bool = True


def read_tensors(entries: Sequence[Any], rest: bytes) -> Iterator[Output]:
    """
    The tensors of an infer request or response.

    Args:
        entries: `inputs` or `outputs` of the JSON; what has no name is left out.
        rest: The bytes after the JSON, of which each binary tensor takes its part in turn.
    """
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            continue
        parameters = entry.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        datatype, shape = str(entry.get("datatype")), _shape(entry.get("shape"))
        if size is None:
            values = _from_json(datatype, entry.get("data"))
        elif isinstance(size, int) and 0 <= size <= len(rest):
            values, rest = _from_bytes(datatype, rest[:size]), rest[size:]
        else:
            values = None
        fits = values is not None and shape is not None and math.prod(shape) == len(values)
        yield Output(entry["name"], datatype, values if fits else None, shape, size is not None)


def generate_output(name: str, value: Any, *, in_every_event: bool = True) -> Output:
    """An output of the generate extension: one value, or a list of them."""
    values = tuple(value) if isinstance(value, list) else (value,)
    kinds = sorted({kind(item) for item in values})
    return Output(name, " or ".join(kinds), values, in_every_event=in_every_event)


def _shape(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(value) if all(type(size) is int and size >= 0 for size in value) else None


def _from_json(datatype: str, data: Any) -> tuple[Any, ...] | None:
    if not isinstance(data, list):
        return None
    values = tuple(_flat(data))
    return values if all(_is_of(datatype, value) for value in values) else None


def _flat(data: list[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _is_of(datatype: str, value: Any) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, bool)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and ("INT" not in datatype or isinstance(value, int))


def _from_bytes(datatype: str, data: bytes) -> tuple[Any, ...] | None:
    """By Triton's own client, which knows every datatype."""
    import numpy as np
    from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

    try:
        if datatype == "BYTES":
            items = deserialize_bytes_tensor(data).tolist()
            return tuple(item.decode("utf-8", "backslashreplace") for item in items)
        number = triton_to_np_dtype(datatype)
        if number is None:
            return None
        return tuple(np.frombuffer(data, dtype=np.dtype(number).newbyteorder("<")).tolist())
    except (struct.error, ValueError):
        return None
