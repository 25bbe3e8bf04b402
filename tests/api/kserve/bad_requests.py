"""Requests over KServe's HTTP whose inputs, outputs or parameters can't be served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.api.kserve.chat_cases import CHATS, PARAMETERS, nested
from tests.api.kserve.http_requests import (
    GENERATE,
    HOLE,
    STREAM,
    BadRequest,
    generate,
    infer,
    tensor,
)
from tests.api.kserve.refusals import MARKER
from tests.api.kserve.tensor_cases import VALUES


def bad_requests() -> list[BadRequest]:
    """All of them."""
    return [*_envelopes(), *_values(), *_chats()]


def _envelopes() -> Iterator[BadRequest]:
    """Inputs and outputs as a whole."""
    text = tensor()
    for count in (17, 1000):
        yield infer(f"{count} outputs", text, outputs=[{"name": "text_output"}] * count)
        yield infer(f"{count} unknown outputs", text, outputs=[{"name": f"o{count}"}] * count)
    odd_outputs: list[Any] = [
        *("text_output", 7, True, {"name": "text_output"}, ["text_output"], [None], [7], [[]]),
        *([{}], [{"name": ""}], [{"name": None}], [{"name": 7}], [{"name": ["text_output"]}]),
        *([{"name": "text_input"}], [{"name": "TEXT_OUTPUT"}], [{"name": "text_output\0"}]),
        *([{"name": "x" * 10_000}], [{"name": "\ud800"}], [{"name": "te\u0445t_output"}]),
        [{"name": "text_output", "parameters": 7}],
        [{"name": "text_output", "parameters": ["binary_data"]}],
        [{"name": "text_output", "parameters": {"shared_memory_region": "r"}}],
        [{"name": "text_output"}, {"name": "logits"}],
    ]
    for number, outputs in enumerate(odd_outputs):
        yield infer(f"outputs {number}", text, outputs=outputs)
    for number, inputs in enumerate(
        ([], None, {}, "text_input", 7, [None], [7], ["text_input"], [[]], [{}], [text, text])
    ):
        yield BadRequest(f"inputs {number}", body=json.dumps({"inputs": inputs}).encode())
    yield BadRequest("no inputs", body=b"{}")
    yield BadRequest("inputs misspelt", body=json.dumps({"input": [text]}).encode())
    yield infer("no text", tensor("max_new_tokens"))
    yield infer("one twice", text, tensor("top_k"), tensor("top_k"))
    for name in ("", "prompt", "TEXT_INPUT", "text_input ", "t\u0435xt_input", "\0", "\ud800"):
        yield infer(f"input {name!a}", text, tensor(name, datatype="BYTES"))
    for odd_name in (7, True, [], {}, ["text_input"], "x" * 10_000):
        yield infer(f"input {str(odd_name)[:20]}", tensor() | {"name": odd_name})
    yield infer("nameless input", tensor(name=None))
    yield infer("1000 unknown inputs", text, *[tensor(f"i{number}") for number in range(1000)])
    for parameters in (7, "binary", [], [1], True):
        yield infer(f"parameters of an input {parameters}", tensor(parameters=parameters))
    for region in ("r", "", None, 7):
        shared = {"shared_memory_region": region, "shared_memory_byte_size": 8}
        yield infer(f"shared memory {region}", tensor(data=None, parameters=shared))
    for id_ in ([], {}, True, 1.5, ["a"]):
        yield infer(f"id {id_}", text, id=id_)
        yield generate(f"id {id_}", id=id_)


def _values() -> Iterator[BadRequest]:
    """What fits the datatypes and can't be served."""
    for what, values in VALUES.items():
        lists = {name: sent if isinstance(sent, list) else [sent] for name, sent in values.items()}
        inputs = [
            tensor(name, data=sent, shape=[len(sent)])
            for name, sent in ({"text_input": [MARKER]} | lists).items()
        ]
        yield infer(what, *inputs)
        without = {} if "max_length" in values else {"max_new_tokens": 1}
        body = json.dumps({"text_input": MARKER} | without | values).encode()
        for path in (GENERATE, STREAM):
            yield BadRequest(f"{path.rpartition('/')[2]}: {what}", path, body)
    wrong: dict[str, Any] = {
        "text_input": (None, 7, True, {}, [], [7], [None], {"a": MARKER}),
        "max_new_tokens": (None, "5", 1.5, True, [], [1, 2], {}, MARKER, 2**31, 10**30),
        "temperature": (None, "0.5", True, [], [0.5, 0.5], {}, MARKER, 1e39),
        "do_sample": (None, "true", 1, 0, [], [True, True], {}, MARKER),
    }
    for name, values in wrong.items():
        for number, value in enumerate(values):
            yield generate(f"{name} {number}", **{name: value})
    for literal in ("NaN", "Infinity", "1e400", "9" * 5000, "-", "01", "0x1", "nan", "TRUE"):
        yield generate(f"temperature {literal[:9]}", temperature=HOLE, hole=literal)
    yield generate("nested twice", parameters={"text_input": MARKER})
    yield generate("lone surrogate", text_input=HOLE, hole=f'"\\udc00{MARKER}"')


def _chats() -> Iterator[BadRequest]:
    for what, text in CHATS.items():
        yield infer(f"chat of {what}", tensor(data=[text]))
        yield generate(f"chat of {what}", text_input=text)
        yield generate(f"chat of {what}", STREAM, text_input=text)
    for what, value in PARAMETERS.items():
        parameter = {what.partition(",")[0]: value}
        yield infer(what, tensor(), parameters=parameter)
        yield generate(what, **parameter)
        yield generate(f"{what}, nested", parameters=parameter)
    odd: tuple[Any, ...] = (-1, 1.5, "5", "", True, False, [], {}, [5], 2**63, 10**30, HOLE)
    for number, value in enumerate(odd):
        for name in ("timeout", "priority"):
            yield infer(f"{name} {number}", tensor(), parameters={name: value}, hole="NaN")
            yield generate(f"{name} {number}", **{name: value}, hole="NaN")
    yield infer("priority 2**40", tensor(), parameters={"priority": 2**40})
    for number, value in enumerate((5, True, {}, [5], [None], [{}], [[]], HOLE)):
        yield generate(f"tools {number}", tools=value, hole=nested(900, in_objects=True))
    for number, value in enumerate((5, True, [1], ["a"], {"colour": 1}, HOLE)):
        deep = nested(900, in_objects=True)
        yield generate(f"chat_template_kwargs {number}", chat_template_kwargs=value, hole=deep)
    for number, value in enumerate((5, True, [1], {}, {"a": 1}, HOLE)):
        yield generate(f"tool_choice {number}", tool_choice=value, hole=nested(900))
    for number, value in enumerate(("x", 5, True, [], [1], HOLE)):
        yield infer(f"parameters {number}", tensor(), parameters=value, hole=nested(900))
        yield generate(f"parameters {number}", parameters=value, hole=nested(900))
