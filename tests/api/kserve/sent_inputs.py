"""An input of the python backend as a client may send it, and whether it is valid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.api.kserve.tensor_cases import DATATYPES, FLOATS, INPUTS, LETTERS

# A prompt of few tokens in any case: 12 leaves room and 1 does not. Half of those drawn are right.
LENGTHS = (-5, 0, 1, 12, 12, 12)
ENCODINGS = ("JSON", "nested JSON", "binary", "gRPC contents", "gRPC raw")
RANGES = {
    name: (0, 2**bits - 1) if name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, bits in ((name, int(name.removeprefix("U")[3:])) for name in LETTERS if "INT" in name)
}


@dataclass(frozen=True)
class Sent:
    """One input as it is sent; `padding` bytes are too many (or too few) in bytes."""

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]
    encoding: str
    padding: int = 0

    @property
    def in_bytes(self) -> bool:
        """Whether the values come as bytes of the datatype."""
        return self.encoding in ("binary", "gRPC raw")


# --- what is valid


def is_valid(sent: Sent) -> bool:
    """Whether the python backend would have answered."""
    return _is_tensor(sent) and _is_served(sent.name, sent.values)


def _is_tensor(sent: Sent) -> bool:
    num_values = len(sent.values)
    fits = sent.datatype == INPUTS[sent.name] and sent.shape == [num_values]
    return fits and (sent.name == "text_input" or num_values == 1) and not sent.padding


def _is_served(name: str, values: list[Any]) -> bool:
    match name:
        case "text_input":
            return len(values) >= 1 and all(_is_utf8(value) for value in values)
        case "max_new_tokens":
            return bool(values[0] >= 1)
        case "max_length":
            return bool(values[0] == LENGTHS[-1])
        case "top_k":
            return bool(values[0] >= 0)
        case "top_p":
            return bool(0 <= values[0] <= 1)
        case "temperature":
            return bool(0 < values[0] <= 2)  # vLLM's range
        case "repetition_penalty":
            return bool(0 < values[0] < math.inf)
    return True


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- what is sent

WORDS = st.text(st.sampled_from("abc é\n{}<>\0\U0001f600"), max_size=8).map(str.encode)
TEXTS = {"JSON": WORDS, "bytes": WORDS | st.sampled_from([b"\xff", b"a\xc3", b"\xed\xa0\x80"])}


def _numbers(name: str, datatype: str) -> st.SearchStrategy[Any]:
    """Values of a datatype, small and at its ends; few new tokens, as each takes time."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype in FLOATS:
        floats = st.floats(width={"FP16": 16, "FP32": 32, "FP64": 64}[datatype])
        return st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, -1.0]) | floats
    least, most = RANGES[datatype]
    if name == "max_length":
        return st.sampled_from([value for value in LENGTHS if least <= value <= most])
    if name == "max_new_tokens":
        return st.sampled_from([value for value in (least, -1, 0, 1, 2) if least <= value])
    return st.integers(least, most) | st.integers(max(least, -3), 60)


@st.composite
def inputs(draw: st.DrawFn, name: str) -> Sent:
    """One input, with at most one intended fault, and what chance adds."""
    fault = draw(st.sampled_from(["none", "none", "datatype", "shape", "count", "padding"]))
    encoding = draw(st.sampled_from(ENCODINGS))
    datatype = draw(st.sampled_from(DATATYPES)) if fault == "datatype" else INPUTS[name]
    in_bytes = encoding in ("binary", "gRPC raw")
    if datatype == "BYTES":
        one: st.SearchStrategy[Any] = TEXTS["JSON" if "JSON" in encoding else "bytes"]
    else:
        one = _numbers(name, datatype)
        if "JSON" in encoding and datatype in FLOATS:
            one = one.filter(math.isfinite)
    counts = st.integers(0, 4) if fault == "count" or name == "text_input" else st.just(1)
    values = draw(counts.flatmap(lambda count: st.lists(one, min_size=count, max_size=count)))
    shapes = st.lists(st.integers(-1, 4), max_size=9) | st.lists(
        st.sampled_from([1, 2**31, 2**62, -(2**63)]), max_size=9
    )
    shape = draw(shapes) if fault == "shape" else [len(values)]
    padding = draw(st.sampled_from([-1, 1, 3])) if fault == "padding" and in_bytes else 0
    return Sent(name, datatype, shape, values, encoding, padding if values else 0)
