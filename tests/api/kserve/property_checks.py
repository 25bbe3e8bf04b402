"""
Every datatype, shape and encoding of each input of a contract, right and wrong, on its server.

A small predicate says what is valid; the server must answer that, and refuse all else.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from hypothesis import HealthCheck, given, settings

from tests.api.kserve.bad_messages import FIELDS, bare, contents_of, message, tensor
from tests.api.kserve.declared_inputs import Declared
from tests.api.kserve.http_requests import HEAD_LENGTH, INFER
from tests.api.kserve.sent_inputs import ENCODINGS, Sent, inputs, is_valid, request_of
from tests.api.kserve.tensor_cases import DATATYPES, value_of
from tests.tiny_gemma import BOS


@dataclass(frozen=True)
class Answered:
    """An answer: its texts, and the names of all outputs."""

    texts: list[str]
    outputs: set[str]


# --- the five ways


def _answer(http: httpx.Client, stub: Any, sent: list[Sent]) -> Answered | None:
    """The answer, or None for a refusal."""
    over_grpc = sent[0].encoding.startswith("gRPC")
    return _over_grpc(stub, sent) if over_grpc else _over_http(http, sent)


def _over_http(http: httpx.Client, all_sent: list[Sent]) -> Answered | None:
    head: dict[str, Any] = {"inputs": []}
    tail = b""
    for one in all_sent:
        shown: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": one.shape}
        if one.in_bytes:
            data = one.as_bytes()
            tail += data
            shown["parameters"] = {"binary_data_size": len(data)}
        else:
            shown["data"] = one.as_json()
        head["inputs"].append(shown)
    text = json.dumps(head).encode()
    headers = {HEAD_LENGTH: str(len(text))} if all_sent[0].encoding == "binary" else {}
    answer = http.post(INFER, content=text + tail, headers=headers)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]
        return None
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    assert len(outputs) == len(answer.json()["outputs"])
    said = outputs["text_output"]
    assert (said["datatype"], said["shape"]) == ("BYTES", [len(said["data"])])
    return Answered(list(said["data"]), set(outputs))


def _over_grpc(stub: Any, all_sent: list[Sent]) -> Answered | None:
    if all_sent[0].in_bytes:
        shown = [bare(one.name, one.datatype, one.shape) for one in all_sent]
        request = message(*shown, raw=[one.as_bytes() for one in all_sent])
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
    outputs = {output.name: number for number, output in enumerate(answer.outputs)}
    assert len(outputs) == len(answer.outputs) == len(answer.raw_output_contents)
    said = answer.outputs[outputs["text_output"]]
    texts = _split(answer.raw_output_contents[outputs["text_output"]])
    assert (said.datatype, list(said.shape)) == ("BYTES", [len(texts)])
    return Answered(texts, set(outputs))


def _split(data: bytes) -> list[str]:
    texts = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        texts.append(data[4:end].decode())
        data = data[end:]
    return texts


# --- the property


@functools.cache
def greedy(http: httpx.Client, prompt: str, max_tokens: int) -> str:
    """What the completions API says to the same text."""
    body = {"prompt": prompt or [BOS], "max_tokens": max_tokens, "temperature": 0}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def check_declared(contract: Declared, http: httpx.Client) -> None:
    """The model's metadata has the inputs that are sent here, and no other."""
    declared = http.get("/v2/models/tiny").json()["inputs"]
    assert {one["name"]: one["datatype"] for one in declared} == contract.inputs


def check_datatypes(contract: Declared, http: httpx.Client, stub: Any, name: str) -> None:
    """In every encoding the declared datatype is answered, and every other is refused."""
    for datatype, encoding in itertools.product(DATATYPES, ENCODINGS):
        value = value_of(datatype)
        if datatype == contract.inputs[name]:
            value = contract.right.get(name, value)
        as_sent = value.encode() if isinstance(value, str) else value
        sent = Sent(name, datatype, contract.shape(1), [as_sent], encoding)
        answered = _answer(http, stub, request_of(contract, sent))
        assert (answered is not None) == (datatype == contract.inputs[name]), sent


def check_values(
    contract: Declared,
    http: httpx.Client,
    stub: Any,
    name: str,
    *,
    num_examples: int,
    check_answer: Callable[[Sent, Answered], None],
) -> None:
    """What is valid is answered, and `check_answer` finds nothing wrong with it; else 400."""
    seen: set[bool] = set()

    # Chance may leave out what is valid; the same examples each time can't.
    @settings(
        derandomize=True,
        max_examples=num_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(sent=inputs(contract, name))
    def check(sent: Sent) -> None:
        valid = is_valid(contract, sent)
        seen.add(valid)
        answered = _answer(http, stub, request_of(contract, sent))
        assert (answered is not None) == valid, answered
        if answered is not None:
            check_answer(sent, answered)

    check()
    assert seen == {True, False}
