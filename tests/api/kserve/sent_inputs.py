"""One input as a client may send it, in any of five encodings, and whether it is valid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.api.kserve.declared_inputs import Declared
from tests.api.kserve.tensor_cases import DATATYPES, FLOATS, LETTERS, packed

ENCODINGS = ("JSON", "nested JSON", "binary", "gRPC contents", "gRPC raw")
FAULTS = (*["none"] * 4, "datatype", "shape", "count", "padding")
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

    def as_bytes(self) -> bytes:
        """The values as bytes of the datatype."""
        data = packed(self.datatype, *self.values)
        return data[: self.padding] if self.padding < 0 else data + bytes(self.padding)

    def as_json(self) -> list[Any]:
        """The values as JSON has them, flat or nested."""
        values = [value.decode() if isinstance(value, bytes) else value for value in self.values]
        return [[value] for value in values] if self.encoding == "nested JSON" else values


def is_valid(contract: Declared, sent: Sent) -> bool:
    """Whether the contract's backend would have answered."""
    num_values = len(sent.values)
    fits = sent.datatype == contract.inputs[sent.name]
    fits = fits and sent.shape == contract.shape(num_values) and not sent.padding
    counts = sent.name in contract.any_size or num_values == 1
    return fits and counts and contract.serves(sent.name, sent.values)


def request_of(contract: Declared, sent: Sent) -> list[Sent]:
    """All inputs of the request: the one, and those that make its value count."""
    others = contract.beside(sent.name)
    others.pop(sent.name, None)
    right = [
        Sent(name, contract.inputs[name], contract.shape(1), [value], sent.encoding)
        for name, value in others.items()
    ]
    return [*right, sent]


# --- what is sent

WORDS = st.text(st.sampled_from("abc é\n{}<>\0\U0001f600"), max_size=8).map(str.encode)
TEXTS = {"JSON": WORDS, "bytes": WORDS | st.sampled_from([b"\xff", b"a\xc3", b"\xed\xa0\x80"])}


def _numbers(datatype: str) -> st.SearchStrategy[Any]:
    """Values of a datatype, small and at its ends."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype in FLOATS:
        floats = st.floats(width={"FP16": 16, "FP32": 32, "FP64": 64}[datatype])
        return st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, -1.0]) | floats
    least, most = RANGES[datatype]
    return st.integers(least, most) | st.integers(max(least, -3), 60)


def _values(contract: Declared, name: str, datatype: str, encoding: str) -> st.SearchStrategy[Any]:
    """One value of a datatype that the encoding can hold."""
    in_json = "JSON" in encoding
    texts = TEXTS["JSON" if in_json else "bytes"]
    if name in contract.drawn and datatype == contract.inputs[name]:
        drawn = st.sampled_from(contract.drawn[name])
        return drawn | texts if datatype == "BYTES" and name not in contract.closed else drawn
    if datatype == "BYTES":
        return texts
    numbers = _numbers(datatype)
    return numbers.filter(math.isfinite) if in_json and datatype in FLOATS else numbers


@st.composite
def inputs(draw: st.DrawFn, contract: Declared, name: str) -> Sent:
    """One input, with at most one intended fault, and what chance adds."""
    fault = draw(st.sampled_from(FAULTS))
    encoding = draw(st.sampled_from(ENCODINGS))
    datatype = draw(st.sampled_from(DATATYPES)) if fault == "datatype" else contract.inputs[name]
    one = _values(contract, name, datatype, encoding)
    may_be_many = fault == "count" or name in contract.any_size
    counts = st.integers(0, 4) if may_be_many else st.just(1)
    values = draw(counts.flatmap(lambda count: st.lists(one, min_size=count, max_size=count)))
    shapes = st.lists(st.integers(-1, 4), max_size=9) | st.lists(
        st.sampled_from([1, 2**31, 2**62, -(2**63)]), max_size=9
    )
    shape = draw(shapes) if fault == "shape" else contract.shape(len(values))
    in_bytes = encoding in ("binary", "gRPC raw")
    padding = draw(st.sampled_from([-1, 1, 3])) if fault == "padding" and in_bytes else 0
    return Sent(name, datatype, shape, values, encoding, padding if values else 0)
