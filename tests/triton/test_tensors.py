"""Tensors of every datatype and shape in JSON and bytes; numpy and tritonclient are the judges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from gemma_serve.errors import RequestError
from gemma_serve.triton.tensors import (
    DATATYPES,
    INTEGERS,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    Tensor,
    check_datatype,
    from_bytes,
    from_json,
    num_elements,
    to_bytes,
    to_json,
)

SECRET = "quokka"  # stands for a prompt, which no error repeats
BITS = {name: int(name.strip("UINTFP")) for name in DATATYPES if name not in ("BYTES", "BOOL")}


def values_of(datatype: str, *, in_json: bool) -> st.SearchStrategy[Any]:
    """What a tensor of the datatype may hold."""
    if datatype == "BYTES":
        return st.text(max_size=8).map(str.encode) if in_json else st.binary(max_size=8)
    if datatype == "BOOL":
        return st.booleans()
    bits = BITS[datatype]
    if datatype in INTEGERS:
        low = 0 if datatype.startswith("U") else -(2 ** (bits - 1))
        return st.integers(low, low + 2**bits - 1)
    return st.floats(width=bits, allow_nan=not in_json, allow_infinity=not in_json)


@st.composite
def tensors(draw: st.DrawFn, *, in_json: bool) -> Tensor:
    """Any tensor that fits its datatype and shape."""
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    count = math.prod(shape)
    values = draw(st.lists(values_of(datatype, in_json=in_json), min_size=count, max_size=count))
    return Tensor("x", datatype, tuple(shape), tuple(values))


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """The values row by row, as deep as the shape."""
    if not shape:
        return values[0]
    size = math.prod(shape[1:])
    return [nested(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


# --- right ones


@given(tensors(in_json=True))
def test_json_and_back(tensor: Tensor) -> None:
    """Flat or nested, JSON data is the tensor's values and comes back as they were."""
    sent = json.loads(json.dumps(to_json(tensor)))
    assert from_json("x", tensor.datatype, tensor.shape, sent) == tensor
    if tensor.shape:
        rows = nested(sent, tensor.shape)
        assert from_json("x", tensor.datatype, tensor.shape, rows) == tensor


@given(tensors(in_json=False))
def test_bytes_are_those_of_tritons_client(tensor: Tensor) -> None:
    """Bytes are what numpy and tritonclient write of the same values, and are read back."""
    data = to_bytes(tensor)
    kind = np.dtype(triton_to_np_dtype(tensor.datatype))
    array = np.empty(len(tensor.values), kind)
    array[:] = tensor.values
    is_text = tensor.datatype == "BYTES"
    theirs = serialize_byte_tensor(array) if is_text else array
    assert data == (theirs.item() if is_text and theirs.size else theirs.tobytes())

    back = from_bytes("x", tensor.datatype, tensor.shape, data)
    assert (back.datatype, back.shape) == (tensor.datatype, tensor.shape)
    assert to_bytes(back) == data  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("value", "shown"), [(math.nan, None), (math.inf, 3.4e38), (-math.inf, -3.4e38)]
)
def test_what_json_has_no_word_for(value: float, shown: float | None) -> None:
    """NaN is null, and an infinity the largest float of 32 bits."""
    (got,) = to_json(Tensor("x", "FP32", (1,), (value,)))
    assert got is None if shown is None else got == pytest.approx(shown, rel=0.01)
    json.dumps(got, allow_nan=False)


def test_bytes_that_are_no_text() -> None:
    """In JSON, bytes that are not UTF-8 are replaced, so that the answer is still JSON."""
    assert to_json(Tensor("x", "BYTES", (1,), (b"a\xff",))) == ["a\ufffd"]


# --- wrong ones

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**4000), 10**4000)
    | st.floats()
    | st.text(max_size=4)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
ANY_SHAPE = st.lists(
    st.integers(0, 4)
    | st.integers()
    | st.sampled_from([2**31, 2**63, -1, True, 1.0, "1", None, [1]]),
    max_size=10,
)


def accepted(read: Callable[..., Tensor], *sent: Any) -> Tensor | None:
    """The tensor that is read, or None where it is refused in a sentence; nothing else passes."""
    try:
        return read("x", *sent)
    except RequestError as error:
        message = error.message
    assert 0 < len(message) < 500
    return None


@given(st.sampled_from(DATATYPES), ANY_SHAPE, ANY_JSON)
def test_any_json_is_a_tensor_or_refused(datatype: str, shape: list[Any], data: Any) -> None:
    """Whatever JSON comes, it is a tensor that fits its shape, or a RequestError."""
    tensor = accepted(from_json, datatype, shape, data)
    if tensor is None:
        return
    assert len(tensor.values) == math.prod(shape)
    assert from_bytes("x", datatype, shape, to_bytes(tensor)) == tensor


@given(st.sampled_from(DATATYPES), ANY_SHAPE, st.binary(max_size=40))
def test_any_bytes_are_a_tensor_or_refused(datatype: str, shape: list[Any], data: bytes) -> None:
    """Whatever bytes come, all of them are the tensor's, or they are a RequestError."""
    tensor = accepted(from_bytes, datatype, shape, data)
    if tensor is None:
        return
    assert len(tensor.values) == math.prod(shape)
    if datatype != "BOOL":  # whatever is not 0 is true
        assert to_bytes(tensor) == data


@given(st.text(max_size=50) | ANY_JSON)
def test_any_datatype_is_known_or_refused(datatype: Any) -> None:
    """A datatype is one of the protocol's, or a RequestError; also where it can't be hashed."""
    if datatype in DATATYPES:
        assert check_datatype("x", datatype) == datatype
    else:
        with pytest.raises(RequestError, match="BYTES"):
            check_datatype("x", datatype)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [1]),
        ("BOOL", ["true"]),
        ("INT32", [True]),
        ("INT32", [1.0]),
        ("INT32", ["1"]),
        ("INT8", [128]),
        ("UINT64", [-1]),
        ("UINT64", [2**64]),
        ("FP32", [True]),
        ("FP32", [1e39]),
        ("FP16", [1e5]),
        ("FP64", [10**400]),
        ("FP64", [math.nan]),
        ("BYTES", [1]),
        ("BYTES", [None]),
        ("BYTES", [{}]),
        ("BYTES", ["\ud800"]),
        ("INT32", 1),
        ("INT32", [[[[[[[[[[1]]]]]]]]]]),
        ("INT32", []),
        ("INT32", [1, 2]),
    ],
)
def test_values_that_do_not_fit(datatype: str, data: Any) -> None:
    """No value is bent to a datatype: not true to 1, not 1.0 to 1, not 1e39 to infinity."""
    with pytest.raises(RequestError) as caught:
        from_json("x", datatype, [1], data)
    assert caught.value.param == "x"


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_errors_repeat_no_text(datatype: str) -> None:
    """A prompt in the wrong place is not in the error, which may be logged."""
    for data in ([SECRET], [{SECRET: 1}], [{"a": [SECRET]}], SECRET, {SECRET: SECRET}):
        with pytest.raises(RequestError) as caught:
            from_json("x", datatype, [1], data)
        assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "shape",
    [
        [2**31, 2**31, 4],
        [MAX_ELEMENTS + 1],
        [1024, 1025],
        [-1],
        [-1, -1],
        [1.0],
        [True],
        ["1"],
        [None],
        [1] * (MAX_DIMENSIONS + 1),
        [10**30],
        [0, 10**30],
    ],
)
def test_shapes_that_are_none(shape: list[Any]) -> None:
    """A product that overflows, a negative size or anything but integers is refused unread."""
    with pytest.raises(RequestError, match="not a list of at most 8 sizes"):
        num_elements("x", shape)


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"\x00\x00\x00",
        b"\x02\x00\x00\x00a",
        b"\xff\xff\xff\xffa",
        b"\x01\x00\x00\x00ab",
        b"\x00\x00\x00\x00\x00",
    ],
)
def test_string_lengths_that_lie(data: bytes) -> None:
    """A length beyond the data, half a length, or bytes after the last string are refused."""
    with pytest.raises(RequestError, match="a string is longer than the data"):
        from_bytes("x", "BYTES", [1], data)
