"""Tensors that no request may hold, whatever carries it: of the python backend's contract."""

from __future__ import annotations

import struct
from typing import Any

from tests.api.kserve.refusals import MARKER

# What the contract declares, by its documentation.
INPUTS = {
    "text_input": "BYTES",
    "max_length": "INT32",
    "max_new_tokens": "INT32",
    "do_sample": "BOOL",
    "top_k": "INT32",
    "top_p": "FP32",
    "temperature": "FP32",
    "repetition_penalty": "FP32",
    "stream": "BOOL",
}
SIGNED = ("INT8", "INT16", "INT32", "INT64")
UNSIGNED = ("UINT8", "UINT16", "UINT32", "UINT64")
FLOATS = ("FP16", "FP32", "FP64")
DATATYPES = ("BYTES", "BOOL", *SIGNED, *UNSIGNED, *FLOATS)
# Not read by anybody here, or no datatype at all.
STRANGE_DATATYPES = ("BF16", "STRING", "TYPE_INT32", "int32", "bytes", "", " INT32", "INT128")
# struct's letters, written down once more: the code under test has its own table.
LETTERS = dict(zip((*SIGNED, *UNSIGNED, *FLOATS, "BOOL"), "bhiqBHIQefd?", strict=True))
NAN, INFINITY = float("nan"), float("inf")


def value_of(datatype: str) -> Any:
    """A value that every sampling input takes, as JSON has it."""
    if datatype == "BYTES":
        return MARKER
    if datatype == "BOOL":
        return True
    return 0.5 if datatype in FLOATS else 3


def packed(datatype: str, *values: Any) -> bytes:
    """Values as the binary tensor data extension has them."""
    if datatype == "BYTES":
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return struct.pack(f"<{len(values)}{LETTERS[datatype]}", *values)


# Wrong for a tensor of one value.
SHAPES: dict[str, list[int]] = {
    "overflows 64 bits": [2**31, 2**31, 4],
    "overflows to zero": [2**32, 2**32],
    "overflows to one": [2**63 - 1, 2**63 - 1],
    "huge": [2**63 - 1],
    "over the limit": [2**20 + 1],
    "product over the limit": [2**10, 2**11],
    "negative": [-1],
    "minus one twice": [-1, -1],
    "least": [-(2**63)],
    "no dimension": [],
    "two dimensions": [1, 1],
    "eight dimensions": [1] * 8,
    "nine dimensions": [1] * 9,
    "many dimensions": [1] * 20_000,
    "zero": [0],
    "zero times huge": [0, 2**63 - 1],
    "two": [2],
}

# Bytes that are not one string, in a tensor of shape [1].
STRING_LIES = {
    "one longer": struct.pack("<I", len(MARKER) + 1) + MARKER.encode(),
    "much longer": struct.pack("<I", 2**32 - 1) + MARKER.encode(),
    "2**31": struct.pack("<I", 2**31) + MARKER.encode(),
    "one shorter": struct.pack("<I", len(MARKER) - 1) + MARKER.encode(),
    "zero": struct.pack("<I", 0) + MARKER.encode(),
    "big-endian": struct.pack(">I", len(MARKER)) + MARKER.encode(),
    "length cut": b"\x05\x00",
    "length alone": struct.pack("<I", 5),
    "no length": MARKER.encode(),
    "nothing": b"",
    "two strings": packed("BYTES", MARKER, MARKER),
    "length of 8 bytes": struct.pack("<Q", len(MARKER)) + MARKER.encode(),
    "a second length cut": packed("BYTES", MARKER) + b"\x00\x00\x00",
    "not UTF-8": packed("BYTES", b"\xff\xfe" + MARKER.encode()),
    "overlong UTF-8": packed("BYTES", b"\xc0\xaf" + MARKER.encode()),
    "UTF-8 cut": packed("BYTES", MARKER.encode() + "é".encode()[:1]),
    "lone surrogate": packed("BYTES", MARKER.encode() + b"\xed\xa0\x80"),
    "beyond Unicode": packed("BYTES", b"\xf5\x80\x80\x80" + MARKER.encode()),
}

# Well-formed inputs that the contract can't serve, each beside `text_input`.
VALUES: dict[str, dict[str, Any]] = {
    "no new tokens": {"max_new_tokens": 0},
    "negative new tokens": {"max_new_tokens": -1},
    "least new tokens": {"max_new_tokens": -(2**31)},
    "no length": {"max_length": 0},
    "negative length": {"max_length": -1},
    "no room": {"max_length": 1},
    "both zero": {"max_length": 0, "max_new_tokens": 0},
    "both negative": {"max_length": -5, "max_new_tokens": -5},
    "zero wins over a length": {"max_length": 50, "max_new_tokens": 0},
    "negative temperature": {"do_sample": True, "temperature": -1.0},
    "temperature zero": {"do_sample": True, "temperature": 0.0},
    "temperature over vLLM's": {"do_sample": True, "temperature": 1e30},
    "top_p 2": {"do_sample": True, "top_p": 2.0},
    "top_p negative": {"do_sample": True, "top_p": -0.1},
    "top_k negative": {"do_sample": True, "top_k": -5},
    "top_k least": {"do_sample": True, "top_k": -(2**31)},
    "penalty zero": {"repetition_penalty": 0.0},
    "penalty negative": {"repetition_penalty": -1.0},
    "two texts in a stream": {"text_input": [MARKER, MARKER], "stream": True},
    "129 texts": {"text_input": [MARKER] * 129},
    "no text": {"text_input": []},
    "longer than the context": {"text_input": f"{MARKER} " * 2_000, "max_new_tokens": 1},
    "longer than the context, greedy": {
        "text_input": f"{MARKER} " * 2_000,
        "max_length": 2**31 - 1,
        "do_sample": False,
    },
    "one of several is no chat": {"text_input": [MARKER, f'["{MARKER}"]']},
    "one of several is too long": {"text_input": [MARKER, f"{MARKER} " * 2_000]},
}

# Finite numbers are asked for, and only bytes can say others.
NOT_FINITE = [
    (name, value)
    for name in ("temperature", "top_p", "repetition_penalty")
    for value in (NAN, INFINITY, -INFINITY)
]
