"""
Tensors of the KServe v2 protocol: values from JSON and from bytes, and back.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and
Triton's binary tensor data extension (little-endian, row-major; BYTES with 4 bytes of length each).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_serve.errors import RequestError

# struct's letter of each datatype; BYTES has no fixed size. BF16 has no place in JSON or struct,
# and no contract has it.
FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
DATATYPES = ("BYTES", *FORMATS)
INTEGERS = frozenset(name for name in FORMATS if "INT" in name)
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**20
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Tensor:
    """A named, flat list of values: bytes for BYTES, else bool, int or float."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]


def strings(name: str, texts: Sequence[str]) -> Tensor:
    """A BYTES tensor of one dimension, in UTF-8."""
    # A lone surrogate can come of a tokenizer's byte tokens; it has no place in UTF-8.
    encoded = tuple(text.encode("utf-8", "replace") for text in texts)
    return Tensor(name, "BYTES", (len(texts),), encoded)


def numbers(name: str, datatype: str, values: Sequence[Any]) -> Tensor:
    """A tensor of one dimension."""
    return Tensor(name, datatype, (len(values),), tuple(values))


def num_elements(name: str, shape: Sequence[Any]) -> int:
    """
    The product of a shape's dimensions.

    Raises:
        RequestError: it is no shape, or has more elements than a request may.
    """
    is_shape = len(shape) <= MAX_DIMENSIONS and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_ELEMENTS
        for size in shape
    )
    product = math.prod(shape) if is_shape else MAX_ELEMENTS + 1
    if product > MAX_ELEMENTS:
        raise RequestError(
            f"The shape of input {name!r} is not a list of at most {MAX_DIMENSIONS} sizes whose "
            f"product is at most {MAX_ELEMENTS}; send the shape of the data.",
            param=name,
        )
    return product


def check_datatype(name: str, datatype: Any) -> str:
    """
    The datatype.

    Raises:
        RequestError: it is none of the protocol's that can be read.
    """
    if datatype not in DATATYPES:
        what = f"the datatype {datatype[:40]!r}" if isinstance(datatype, str) else "no datatype"
        raise RequestError(
            f"Input {name!r} has {what}; use one of {', '.join(DATATYPES)}.", param=name
        )
    return str(datatype)


# --- JSON


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """
    A tensor of JSON data, flat or nested row by row.

    Raises:
        RequestError: a value is not of the datatype, or there are more or fewer than the shape's.
    """
    expected = num_elements(name, shape)
    values = tuple(_json_value(name, datatype, value) for value in _flat(name, data))
    _check_count(name, expected, len(values))
    return Tensor(name, datatype, tuple(shape), values)


def to_json(tensor: Tensor) -> list[Any]:
    """The values as JSON has them; bytes that are no UTF-8 become replacement characters."""
    if tensor.datatype == "BYTES":
        return [value.decode("utf-8", "replace") for value in tensor.values]
    return [_finite(value) for value in tensor.values]


def _finite(value: Any) -> Any:
    # JSON has no infinity; the nearest that a 32-bit float holds stands for it.
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(3.4028234663852886e38, value)
    return value


def _flat(name: str, data: Any, depth: int = 0) -> Iterator[Any]:
    if not isinstance(data, list):
        if depth == 0:
            raise RequestError(
                f"The data of input {name!r} must be a list; send one, flat or row by row.",
                param=name,
            )
        yield data
        return
    if depth > MAX_DIMENSIONS:
        raise RequestError(
            f"The data of input {name!r} is nested more than {MAX_DIMENSIONS} deep; send it flat.",
            param=name,
        )
    for item in data:
        yield from _flat(name, item, depth + 1)


def _json_value(name: str, datatype: str, value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if datatype == "BYTES" and isinstance(value, str):
        return _utf8(name, value)
    if datatype == "BOOL" and isinstance(value, bool):
        return value
    if datatype in INTEGERS and is_number and isinstance(value, int):
        return _in_range(name, datatype, value)
    if datatype.startswith("FP") and is_number:
        return _in_range(name, datatype, value)
    # Never a text: it may be a prompt in the wrong place.
    kinds: dict[type, str] = {str: "a string", dict: "an object"}
    shown = kinds.get(type(value)) or repr(value)[:40]
    raise RequestError(f"Input {name!r} is {datatype} and was sent {shown}.", param=name)


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"Input {name!r} has a lone surrogate at character {error.start}; send valid UTF-8.",
            param=name,
        ) from None


def _in_range(name: str, datatype: str, value: Any) -> Any:
    """The value as the datatype holds it."""
    packing = FORMATS[datatype]
    try:
        (held,) = struct.unpack(f"<{packing}", struct.pack(f"<{packing}", value))
    except (struct.error, OverflowError):
        held = math.inf
    if isinstance(held, float) and not math.isfinite(held):
        raise RequestError(
            f"Input {name!r} is {datatype}, which can't hold the value that was sent.", param=name
        )
    return held


def _check_count(name: str, expected: int, got: int) -> None:
    if expected != got:
        raise RequestError(
            f"The shape of input {name!r} has {expected} elements and its data has {got}; "
            "send as many as the shape says.",
            param=name,
        )


# --- bytes


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """
    A tensor of the binary tensor data extension, or of gRPC's raw_input_contents.

    Raises:
        RequestError: the length does not fit the shape, or a string's length the data.
    """
    expected = num_elements(name, shape)
    if datatype == "BYTES":
        values: tuple[Any, ...] = tuple(_split(name, data))
        _check_count(name, expected, len(values))
        return Tensor(name, datatype, tuple(shape), values)
    layout = f"<{expected}{FORMATS[datatype]}"
    if struct.calcsize(layout) != len(data):
        raise RequestError(
            f"Input {name!r} has {len(data)} bytes, and its shape of {datatype} needs "
            f"{struct.calcsize(layout)}; send as many as the shape says.",
            param=name,
        )
    return Tensor(name, datatype, tuple(shape), struct.unpack(layout, data))


def to_bytes(tensor: Tensor) -> bytes:
    """The values as the binary tensor data extension has them."""
    if tensor.datatype == "BYTES":
        return b"".join(_LENGTH.pack(len(value)) + value for value in tensor.values)
    return struct.pack(f"<{len(tensor.values)}{FORMATS[tensor.datatype]}", *tensor.values)


def _split(name: str, data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        begin = start + _LENGTH.size
        length = _LENGTH.unpack_from(data, start)[0] if begin <= len(data) else len(data)
        start = begin + length
        if start > len(data):
            raise RequestError(
                f"Input {name!r} says that a string is longer than the data; send 4 bytes of "
                "little-endian length and then that many bytes for each.",
                param=name,
            )
        yield data[begin:start]
