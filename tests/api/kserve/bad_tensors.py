"""Requests over KServe's HTTP whose tensors are not what they say, in JSON and in bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.api.kserve.chat_cases import nested
from tests.api.kserve.http_requests import (
    HEAD_LENGTH,
    HOLE,
    BadRequest,
    beside_text,
    binary,
    infer,
    tensor,
)
from tests.api.kserve.refusals import MARKER
from tests.api.kserve.tensor_cases import (
    DATATYPES,
    INPUTS,
    NOT_FINITE,
    SHAPES,
    STRANGE_DATATYPES,
    STRING_LIES,
    packed,
    value_of,
)


def bad_tensors() -> list[BadRequest]:
    """All of them."""
    return [*_datatypes(), *_shapes(), *_data(), *_literals(), *_bytes()]


def _datatypes() -> Iterator[BadRequest]:
    """Every datatype against every input."""
    for name, datatype in itertools.product(INPUTS, DATATYPES + STRANGE_DATATYPES):
        if datatype == INPUTS[name]:
            continue
        known = datatype if datatype in DATATYPES else INPUTS[name]
        wrong = tensor(name, datatype=datatype, data=[value_of(known)])
        yield infer(f"{name} as {datatype!r}", *beside_text(wrong))
    for odd in (7, True, [], ["BYTES"], {}, {"BYTES": 1}):
        yield infer(f"datatype {odd}", tensor(datatype=odd))
    yield infer("no datatype", tensor(datatype=None))


def _shapes() -> Iterator[BadRequest]:
    odd: dict[str, Any] = {
        "10**30": [10**30],
        "10**4000": [HOLE],
        "float": [1.0],
        "boolean": [True],
        "text": ["1"],
        "nothing in it": [[]],
        "nested": [[1]],
        "an object": {"0": 1},
        "a number": 1,
        "a text": "[1]",
    }
    for name in ("text_input", "max_length", "temperature", "stream"):
        for what, shape in (SHAPES | odd).items():
            if (name, what) == ("text_input", "no dimension"):
                continue  # the next one
            wrong = tensor(name, shape=shape)
            yield infer(f"{name} with {what}", *beside_text(wrong), hole="1" + "0" * 4000)
    yield infer("text of no dimension", tensor(shape=[]))
    yield infer("no shape", tensor(shape=None))
    for what, shape in SHAPES.items():
        yield binary(f"shape {what}", (tensor(shape=shape, data=None), packed("BYTES", MARKER)))


def _data() -> Iterator[BadRequest]:
    """JSON values that are not of the datatype, or too many or too few."""
    for name in INPUTS:
        wrong = {
            "none": [],
            "two": [value_of(INPUTS[name])] * 2,
            "null": [HOLE],
            "an object": [{"a": MARKER}],
            "text": MARKER,
            "an object for a list": {"a": MARKER},
            "a list in an object": [{"a": [MARKER]}],
            "too deep": json.loads(nested(10)),
        }
        if INPUTS[name] != "BYTES":
            wrong |= {"words": [MARKER], "digits": ["1"]}
        if INPUTS[name] != "BOOL":
            wrong |= {"a boolean": [True]}
        if INPUTS[name] in ("INT32", "BOOL"):
            wrong |= {"a half": [0.5], "a whole float": [1.0]}
        for what, data in wrong.items():
            yield infer(f"{name} with {what}", *beside_text(tensor(name, data=data)))
        yield infer(f"{name} without data", *beside_text(tensor(name, data=None)))


def _literals() -> Iterator[BadRequest]:
    """JSON that only a text can show: long numbers, no numbers, half characters, depth."""
    for digits in (4000, 5000):
        for name in ("max_new_tokens", "temperature", "text_input"):
            wrong_one = tensor(name, data=[HOLE])
            yield infer(f"{name} of {digits} digits", *beside_text(wrong_one), hole="9" * digits)
    for literal in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e39"):
        for name in ("max_new_tokens", "temperature", "top_p", "stream"):
            wrong_one = tensor(name, data=[HOLE])
            yield infer(f"{name} {literal}", *beside_text(wrong_one), hole=literal)
    for number in (2**31, -(2**31) - 1, 2**63, 10**30):
        both = [tensor(name, data=[number]) for name in ("max_length", "max_new_tokens")]
        yield infer(f"both lengths {number}", tensor(), *both)
    for escape in ("\\ud800", "\\udfff", "\\ud800\\ud800"):
        lone = tensor(data=[HOLE])
        yield infer(f"lone surrogate {escape}", lone, hole=f'"{MARKER}{escape}"')
    for levels in (65, 300, 900, 960, 980, 990):
        for in_objects in (False, True):
            hole = nested(levels, in_objects=in_objects)
            for key in ("data", "shape", "datatype", "name"):
                sent = tensor() | {key: [HOLE] if key == "data" else HOLE}
                yield infer(f"{key} of {levels} levels, {in_objects}", sent, hole=hole)


def _bytes() -> Iterator[BadRequest]:
    """Bytes that are not what the head says."""
    text, right = tensor(data=None), packed("BYTES", MARKER)
    for what, data in STRING_LIES.items():
        yield binary(what, (text, data))
    for datatype in ("INT32", "FP32", "BOOL"):
        name = {"INT32": "max_length", "FP32": "top_p", "BOOL": "do_sample"}[datatype]
        whole = packed(datatype, value_of(datatype))
        for data in (b"", whole[:-1], whole + b"\0", whole * 2, whole * 1000):
            wrong = (tensor(name, data=None), data)
            yield binary(f"{name} of {len(data)} bytes", (text, right), wrong)
    for name, value in NOT_FINITE:
        for samples in (False, True):
            given = (tensor(name, data=None), packed("FP32", value))
            sampling = (tensor("do_sample", data=None), packed("BOOL", samples))
            yield binary(f"{name} {value}, {samples}", (text, right), given, sampling)
    for size in (-1, 0, 1, len(right) - 1, len(right) + 1, 2**31, 2**63, 10**30):
        yield binary(f"size {size}", (text | {"parameters": {"binary_data_size": size}}, right))
    for size in ("12", 1.5, float(len(right)), True, [], {}, [len(right)], None):
        yield binary(f"size {size!r}", (text | {"parameters": {"binary_data_size": size}}, right))
    yield binary("bytes left over", (text, right), tail=b"\0")
    yield binary("many bytes left over", (text, right), tail=right * 1000)
    yield binary("data too", (tensor(), right))
    yield binary("two share the bytes", (text, right), (tensor("max_length", data=None), b""))
    missing = {"parameters": {"binary_data_size": len(right)}}
    yield infer("size without bytes", text | missing)
    whole_request = binary("", (text, right))
    for length in (
        *("-1", "text", "", "0x10", "1e2", "+5", "1.0", "1,2", "1 2", "1_0", "00", "-0"),
        *(str(10**30), str(2**63), str(2**64), "1", "5", str(len(whole_request.body) + 1)),
        *(str(len(whole_request.body)), str(int(whole_request.headers[HEAD_LENGTH]) - 1)),
    ):
        name = f"header length {length!r}"
        yield BadRequest(name, body=whole_request.body, headers={HEAD_LENGTH: length})
    yield BadRequest("header length 0, no text", body=b"\xff\xfe", headers={HEAD_LENGTH: "0"})
    yield BadRequest("no header length", body=whole_request.body)
