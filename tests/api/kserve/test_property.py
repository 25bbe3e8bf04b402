"""
Every datatype, shape and encoding of each input of the python backend, right and wrong.

A small predicate says what is valid; the server must answer that, and refuse all else.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from tests.api.kserve.bad_messages import FIELDS, bare, contents_of, message, tensor
from tests.api.kserve.http_requests import HEAD_LENGTH, INFER
from tests.api.kserve.refusals import Witness
from tests.api.kserve.sent_inputs import ENCODINGS, LENGTHS, Sent, inputs, is_valid
from tests.api.kserve.tensor_cases import DATATYPES, INPUTS, packed, value_of
from tests.tiny_gemma import BOS

EXAMPLES_PER_INPUT = 40
PROMPT = "Rome is"


def _beside(sent: Sent) -> list[Sent]:
    """All inputs of the request: the one, and those that make its value count."""
    others: dict[str, Any] = {"text_input": PROMPT.encode(), "max_new_tokens": 2}
    if sent.name == "max_length":
        del others["max_new_tokens"]
    sampling = sent.name in ("top_k", "top_p", "temperature")
    others["do_sample"] = sampling
    others.pop(sent.name, None)
    right = [
        Sent(name, INPUTS[name], [1], [value], sent.encoding) for name, value in others.items()
    ]
    return [*right, sent]


def _bytes_of(sent: Sent) -> bytes:
    data = packed(sent.datatype, *sent.values)
    return data[: sent.padding] if sent.padding < 0 else data + bytes(sent.padding)


# --- the five ways


def _answer(http: httpx.Client, stub: Any, sent: Sent) -> list[str] | None:
    """The texts of the answer, or None for a refusal."""
    if sent.encoding.startswith("gRPC"):
        return _over_grpc(stub, _beside(sent))
    head: dict[str, Any] = {"inputs": []}
    tail = b""
    for one in _beside(sent):
        shown = {"name": one.name, "datatype": one.datatype, "shape": one.shape}
        if one.in_bytes:
            data = _bytes_of(one)
            tail += data
            shown["parameters"] = {"binary_data_size": len(data)}
        else:
            shown["data"] = _json_of(one)
        head["inputs"].append(shown)
    text = json.dumps(head).encode()
    headers = {HEAD_LENGTH: str(len(text))} if sent.encoding == "binary" else {}
    answer = http.post(INFER, content=text + tail, headers=headers)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]
        return None
    [output] = answer.json()["outputs"]
    assert (output["name"], output["datatype"]) == ("text_output", "BYTES")
    assert output["shape"] == [len(output["data"])]
    return list(output["data"])


def _json_of(sent: Sent) -> list[Any]:
    values = [value.decode() if isinstance(value, bytes) else value for value in sent.values]
    return [[value] for value in values] if sent.encoding == "nested JSON" else values


def _over_grpc(stub: Any, all_sent: list[Sent]) -> list[str] | None:
    if all_sent[0].in_bytes:
        shown = [bare(one.name, one.datatype, one.shape) for one in all_sent]
        request = message(*shown, raw=[_bytes_of(one) for one in all_sent])
    else:
        # FP16 has no field of its own; another's holds it, and is refused.
        held = [
            contents_of(one.datatype if one.datatype in FIELDS else "FP32", one.values)
            for one in all_sent
        ]
        request = message(
            *(
                tensor(one.name, one.datatype, one.shape, contents)
                for one, contents in zip(all_sent, held, strict=True)
            )
        )
    try:
        answer = stub.ModelInfer(request)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return None
    [output] = answer.outputs
    assert (output.name, output.datatype) == ("text_output", "BYTES")
    texts = _split(answer.raw_output_contents[0])
    assert list(output.shape) == [len(texts)]
    return texts


def _split(data: bytes) -> list[str]:
    texts = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        texts.append(data[4:end].decode())
        data = data[end:]
    return texts


# --- the property


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


@functools.cache
def _greedy(http: httpx.Client, prompt: str, max_tokens: int) -> str:
    """What the completions API says to the same text."""
    body = {"prompt": prompt or [BOS], "max_tokens": max_tokens, "temperature": 0}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"]).strip()


@pytest.mark.parametrize("name", INPUTS)
def test_every_datatype(witness: Witness, stub: Any, name: str) -> None:
    """In every encoding the declared datatype is answered, and every other is refused."""
    for datatype, encoding in itertools.product(DATATYPES, ENCODINGS):
        is_length = name == "max_length" and datatype == INPUTS[name]
        value = LENGTHS[-1] if is_length else value_of(datatype)
        as_sent = value.encode() if isinstance(value, str) else value
        sent = Sent(name, datatype, [1], [as_sent], encoding)
        texts = _answer(witness.http, stub, sent)
        assert (texts is not None) == is_valid(sent), sent


@pytest.mark.parametrize("name", INPUTS)
def test_every_input(witness: Witness, stub: Any, name: str) -> None:
    """What is valid is answered, one text each, greedily as by the completions API; else 400."""
    seen: set[bool] = set()

    # Chance may leave out what is valid; the same examples each time can't.
    @settings(
        derandomize=True,
        max_examples=EXAMPLES_PER_INPUT,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(sent=inputs(name))
    def check(sent: Sent) -> None:
        valid = is_valid(sent)
        seen.add(valid)
        texts = _answer(witness.http, stub, sent)
        assert (texts is not None) == valid, texts
        if texts is not None:
            _check_texts(witness.http, sent, texts)

    check()
    assert seen == {True, False}


def _check_texts(http: httpx.Client, sent: Sent, texts: list[str]) -> None:
    prompts = sent.values if sent.name == "text_input" else [PROMPT.encode()]
    assert len(texts) == len(prompts)
    # A batch may round otherwise; sampling and a penalty choose other tokens.
    if len(prompts) == 1 and sent.name in ("text_input", "max_new_tokens", "stream"):
        max_tokens = sent.values[0] if sent.name == "max_new_tokens" else 2
        assert texts == [_greedy(http, prompts[0].decode(), max_tokens)]
