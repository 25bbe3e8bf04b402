"""Messages over KServe's gRPC that must be refused, as INVALID_ARGUMENT or NOT_FOUND."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from tests.api.kserve.chat_cases import CHATS, PARAMETERS
from tests.api.kserve.refusals import MARKER
from tests.api.kserve.tensor_cases import (
    DATATYPES,
    INPUTS,
    NOT_FINITE,
    SHAPES,
    SIGNED,
    STRANGE_DATATYPES,
    STRING_LIES,
    UNSIGNED,
    VALUES,
    packed,
    value_of,
)

# The fields of InferTensorContents, by the protocol.
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(SIGNED, "int_contents"),
    **dict.fromkeys(UNSIGNED, "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
Case = tuple[str, Any]


def contents_of(datatype: str, values: Sequence[Any]) -> dict[str, list[Any]]:
    """Values in the field of their datatype."""
    held = [value.encode() if isinstance(value, str) else value for value in values]
    return {FIELDS[datatype]: held}


def tensor(
    name: str = "text_input",
    datatype: str | None = None,
    shape: Sequence[int] = (1,),
    contents: dict[str, list[Any]] | None = None,
) -> Any:
    """An input that fits the contract but for what is given."""
    known = INPUTS.get(name, "BYTES")
    return pb.ModelInferRequest.InferInputTensor(
        name=name,
        datatype=known if datatype is None else datatype,
        shape=shape,
        contents=pb.InferTensorContents(
            **(contents_of(known, [value_of(known)]) if contents is None else contents)
        ),
    )


def bare(name: str = "text_input", datatype: str | None = None, shape: Sequence[int] = (1,)) -> Any:
    """An input whose bytes come in raw_input_contents."""
    sent = tensor(name, datatype, shape)
    sent.ClearField("contents")
    return sent


def message(
    *inputs: Any,
    raw: Sequence[bytes] = (),
    outputs: Sequence[str] = (),
    model: str = "tiny",
    version: str = "",
) -> Any:
    """A ModelInferRequest."""
    request = pb.ModelInferRequest(
        model_name=model, model_version=version, inputs=inputs, raw_input_contents=raw
    )
    for name in outputs:
        request.outputs.add(name=name)
    return request


def invalid_messages() -> list[Case]:
    """All that are INVALID_ARGUMENT."""
    return [
        *_datatypes(),
        *_shapes(),
        *_contents(),
        *_raw(),
        *_envelopes(),
        *_values(),
        *_parameters(),
    ]


def unknown_models() -> list[Case]:
    """All that are NOT_FOUND."""
    names = ("", "unknown", "Tiny", "tiny ", "tiny\0", "../tiny", "t\u0456ny", "a" * 100_000, "\n")
    versions = ("2", "0", "-1", "latest", "01", "1 ", "\uff11", "1\0", "../1", "9" * 100_000)
    one = tensor("max_new_tokens", contents={"int_contents": [1]})
    return [
        *((f"model {name[:20]!r}", message(tensor(), one, model=name)) for name in names),
        *((f"version {name[:20]!r}", message(tensor(), one, version=name)) for name in versions),
    ]


def _beside_text(sent: Any) -> list[Any]:
    return [sent] if sent.name == "text_input" else [tensor(), sent]


def _datatypes() -> Iterator[Case]:
    """Every datatype against every input, in both forms."""
    text = packed("BYTES", MARKER)
    for name, datatype in itertools.product(INPUTS, DATATYPES + STRANGE_DATATYPES):
        if datatype == INPUTS[name]:
            continue
        known = datatype if datatype in DATATYPES else INPUTS[name]
        what, value = f"{name} as {datatype!r}", value_of(known)
        if known in FIELDS:
            wrong = tensor(name, datatype, contents=contents_of(known, [value]))
            yield what, message(*_beside_text(wrong))
        inputs = _beside_text(bare(name, datatype))
        if len(inputs) == 2:
            inputs[0] = bare()
        raw = [text, packed(known, value)][-len(inputs) :]
        yield f"{what}, raw", message(*inputs, raw=raw)


def _shapes() -> Iterator[Case]:
    for name in ("text_input", "max_length", "temperature", "stream"):
        for what, shape in SHAPES.items():
            yield f"{name} {what}", message(*_beside_text(tensor(name, shape=shape)))
    for what, shape in SHAPES.items():
        yield f"{what}, raw", message(bare(shape=shape), raw=[packed("BYTES", MARKER)])


def _contents() -> Iterator[Case]:
    """Values in a field of another datatype, too many, too few, out of range."""
    for name, datatype in INPUTS.items():
        right = contents_of(datatype, [value_of(datatype)])
        for other, field in FIELDS.items():
            if field == FIELDS[datatype]:
                continue
            wrong = contents_of(other, [value_of(other)])
            what = f"{name} in {other}'s field"
            yield what, message(*_beside_text(tensor(name, contents=wrong)))
            yield f"{what} too", message(*_beside_text(tensor(name, contents=right | wrong)))
        for count in (0, 2, 1000):
            many = contents_of(datatype, [value_of(datatype)] * count)
            yield f"{name} with {count}", message(*_beside_text(tensor(name, contents=many)))
    for data in (b"\xff\xfe", MARKER.encode() + b"\xed\xa0\x80", b"\xc0\xaf"):
        yield f"text {data!r}", message(tensor(contents={"bytes_contents": [data]}))
    for name, value in NOT_FINITE:
        wrong_one = tensor(name, contents={"fp32_contents": [value]})
        yield f"{name} {value}", message(tensor(), wrong_one)


def _raw() -> Iterator[Case]:
    """Bytes that are not what the inputs say."""
    text = packed("BYTES", MARKER)
    for what, data in STRING_LIES.items():
        yield what, message(bare(), raw=[data])
    for name, datatype in (("max_length", "INT32"), ("top_p", "FP32"), ("do_sample", "BOOL")):
        whole = packed(datatype, value_of(datatype))
        for data in (b"", whole[:-1], whole + b"\0", whole * 2, whole * 1000):
            yield f"{name} of {len(data)} bytes", message(bare(), bare(name), raw=[text, data])
    for name, value in NOT_FINITE:
        raw = [text, packed("FP32", value)]
        yield f"{name} {value}, raw", message(bare(), bare(name), raw=raw)
    for count in (2, 3, 1000):
        yield f"{count} raw for one", message(bare(), raw=[text] * count)
    yield "one raw for two", message(bare(), bare("max_length"), raw=[text])
    yield "raw without inputs", message(raw=[text])
    yield "contents beside raw", message(tensor(), raw=[text])
    yield "contents of one beside raw", message(bare(), tensor("top_k"), raw=[text, bytes(4)])
    yield "neither", message(bare())
    yield "two in the wrong order", message(bare(), bare("top_k"), raw=[bytes(4), text])


def _envelopes() -> Iterator[Case]:
    text = tensor()
    yield "nothing", message()
    yield "no text", message(tensor("top_k"))
    yield "text twice", message(text, text)
    yield "one twice", message(text, tensor("top_k"), tensor("top_k"))
    for name in ("", "prompt", "TEXT_INPUT", "text_input ", "t\u0435xt_input", "\0", "x" * 10_000):
        yield f"input {name[:20]!a}", message(text, tensor(name))
    yield "1000 unknown inputs", message(text, *[tensor(f"i{number}") for number in range(1000)])
    for count in (17, 1000):
        yield f"{count} outputs", message(text, outputs=["text_output"] * count)
    for name in ("", "logits", "text_input", "TEXT_OUTPUT", "text_output\0", "x" * 10_000):
        yield f"output {name[:20]!r}", message(text, outputs=[name])
        yield f"output {name[:20]!r} too", message(text, outputs=["text_output", name])
    for which in ("inputs", "outputs"):
        request = message(text, outputs=["text_output"])
        getattr(request, which)[0].parameters["shared_memory_region"].string_param = "r"
        yield f"shared memory in {which}", request
    bare_one = message(bare())
    bare_one.inputs[0].parameters["shared_memory_region"].string_param = "r"
    yield "shared memory without data", bare_one


def _values() -> Iterator[Case]:
    for what, values in VALUES.items():
        lists = {name: sent if isinstance(sent, list) else [sent] for name, sent in values.items()}
        sent_values = {"text_input": [MARKER]} | lists
        shaped = {name: (len(sent),) for name, sent in sent_values.items()}
        yield (
            what,
            message(
                *(
                    tensor(name, shape=shaped[name], contents=contents_of(INPUTS[name], sent))
                    for name, sent in sent_values.items()
                )
            ),
        )
        raw = [packed(INPUTS[name], *sent) for name, sent in sent_values.items()]
        inputs = [bare(name, shape=shaped[name]) for name in sent_values]
        if all(raw):
            yield f"{what}, raw", message(*inputs, raw=raw)
    for what, text in CHATS.items():
        yield f"chat of {what}", message(tensor(contents={"bytes_contents": [text.encode()]}))


def _parameters() -> Iterator[Case]:
    def with_parameter(name: str, **value: Any) -> Any:
        request = message(tensor(), tensor("max_new_tokens", contents={"int_contents": [1]}))
        request.parameters[name].CopyFrom(pb.InferParameter(**value))
        return request

    for what, text in PARAMETERS.items():
        yield what, with_parameter(what.partition(",")[0], string_param=text)
    for name in ("timeout", "priority", "tools", "chat_template_kwargs", "tool_choice"):
        values: list[dict[str, Any]] = [
            {"bool_param": True},
            {"int64_param": -1},
            {"string_param": "5 "},
            *({"double_param": value} for value in (1.5, float("nan"), float("inf"))),
            {"uint64_param": 2**64 - 1},
        ]
        for value in values:
            yield f"{name} {value}", with_parameter(name, **value)
    yield "priority 2**40", with_parameter("priority", int64_param=2**40)
    yield "priority of words", with_parameter("priority", string_param="")
