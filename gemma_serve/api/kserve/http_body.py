"""
KServe v2 in JSON, with Triton's binary tensor data and generate extensions: read and written.

Source: https://github.com/triton-inference-server/server (docs/protocol/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_serve.api.json_body import read_json
from gemma_serve.api.kserve.service import InferRequest, InferResponse
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Limits
from gemma_serve.triton.contracts import Contract
from gemma_serve.triton.contracts.check import specs_of, tensor_of
from gemma_serve.triton.tensors import (
    Tensor,
    check_datatype,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
)

JsonObject = dict[str, Any]
HEADER_LENGTH = "inference-header-content-length"
SHARED_MEMORY = "shared_memory_region"
KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


@dataclass(frozen=True)
class BinaryOutputs:
    """Which outputs a request wants as bytes."""

    by_default: bool
    named: Mapping[str, bool]

    def holds(self, name: str) -> bool:
        """Whether this output is to be bytes."""
        return self.named.get(name, self.by_default)


# --- infer


def read_infer(
    body: bytes, header_length: str | None, model: str, version: str, limits: Limits
) -> tuple[InferRequest, BinaryOutputs]:
    """
    The request of /infer: JSON, and the bytes of its tensors after it.

    Args:
        header_length: The Inference-Header-Content-Length header; 0 makes the whole body the text.

    Raises:
        RequestError: it is no JSON, over a limit, or not what the protocol says.
    """
    if header_length is not None and header_length.strip() == "0":
        # Triton's raw binary request: the body is the only input's one element.
        text = Tensor("text_input", "BYTES", (1,), (body,))
        return InferRequest(model, version, [text], may_stream=False), BinaryOutputs(True, {})
    head, rest = _split(body, header_length)
    sent = _parse(head, limits)
    parameters = _object(sent, "parameters")
    inputs, outputs = _list(sent, "inputs"), _list(sent, "outputs")
    if not inputs:
        raise RequestError("The request has no inputs; send at least text_input.", param="inputs")
    names = [_name(output, "outputs") for output in outputs]
    binary = {
        name: bool(_object(output, "parameters")["binary_data"])
        for name, output in zip(names, outputs, strict=True)
        if "binary_data" in _object(output, "parameters")
    }
    for output in outputs:
        _refuse_shared_memory(output)
    request = InferRequest(
        model,
        version,
        list(_tensors(inputs, rest)),
        names,
        _id(sent),
        parameters,
        may_stream=False,
    )
    return request, BinaryOutputs(bool(parameters.get("binary_data_output")), binary)


def write_infer(response: InferResponse, binary: BinaryOutputs) -> tuple[bytes, int | None]:
    """The body of /infer's answer, and the length of its JSON where bytes follow."""
    chunks: list[bytes] = []
    outputs: list[JsonObject] = []
    for tensor in response.outputs:
        shown: JsonObject = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if binary.holds(tensor.name):
            chunks.append(to_bytes(tensor))
            shown["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            shown["data"] = to_json(tensor)
        outputs.append(shown)
    head = _dump({**_heading(response), "outputs": outputs})
    return b"".join([head, *chunks]), len(head) if chunks else None


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    is_length = header_length.strip().isascii() and header_length.strip().isdigit()
    length = int(header_length) if is_length and len(header_length) < 20 else -1
    if not 0 <= length <= len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {header_length[:40]!r} and the body has "
            f"{len(body)} bytes; send the length of the JSON before the tensors' bytes."
        )
    return body[:length], memoryview(body)[length:]


def _tensors(inputs: list[JsonObject], rest: memoryview) -> Iterator[Tensor]:
    start = 0
    for sent in inputs:
        name = _name(sent, "inputs")
        datatype = check_datatype(name, sent.get("datatype"))
        _refuse_shared_memory(sent)
        shape = sent.get("shape")
        if not isinstance(shape, list):
            raise RequestError(f"Input {name!r} has no shape; send a list of sizes.", param=name)
        size = _object(sent, "parameters").get("binary_data_size")
        if (size is None) == ("data" not in sent):
            raise RequestError(
                f"Input {name!r} must have either data or the parameter binary_data_size; send one "
                "of them.",
                param=name,
            )
        if size is None:
            yield from_json(name, datatype, shape, sent["data"])
            continue
        is_size = isinstance(size, int) and not isinstance(size, bool)
        if not is_size or not 0 <= size <= len(rest) - start:
            shown = str(size)[:40] if is_size else "that is no integer"
            raise RequestError(
                f"Input {name!r} says binary_data_size {shown} and {len(rest) - start} "
                "bytes are left of the body; send as many as it says.",
                param=name,
            )
        yield from_bytes(name, datatype, shape, bytes(rest[start : start + size]))
        start += size
    if start != len(rest):
        raise RequestError(
            f"{len(rest) - start} bytes follow the last tensor; send the tensors' bytes alone."
        )


# --- the repository's index


def read_index(body: bytes, limits: Limits) -> bool:
    """
    Whether only models that are ready are asked for; an empty body asks for all.

    Raises:
        RequestError: the body is neither empty nor a JSON object.
    """
    return bool(body.strip()) and _parse(body, limits).get("ready") is True


# --- generate


def read_generate(
    contract: Contract,
    body: bytes,
    model: str,
    version: str,
    limits: Limits,
    *,
    may_stream: bool,
) -> InferRequest:
    """
    The request of /generate: inputs and parameters by name, also one level down in `parameters`.

    Raises:
        RequestError: it is no JSON object, or a value does not fit the input of that name.
    """
    sent = _parse(body, limits)
    nested = _object(sent, "parameters")
    flat = {name: value for name, value in sent.items() if name not in ("id", "parameters")}
    specs = specs_of(contract)
    tensors, parameters = [], {}
    for name, value in (*flat.items(), *nested.items()):
        if name in specs:
            tensors.append(tensor_of(contract, specs[name], value))
        else:
            parameters[name] = value
    return InferRequest(
        model, version, tensors, id=_id(sent), parameters=parameters, may_stream=may_stream
    )


def write_generate(response: InferResponse) -> bytes:
    """The answer of /generate: outputs by name, one value or a list of them."""
    outputs = {tensor.name: _unwrapped(to_json(tensor)) for tensor in response.outputs}
    return _dump({**_heading(response), **outputs})


def _unwrapped(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


# --- JSON


def _heading(response: InferResponse) -> JsonObject:
    heading = {"model_name": response.model, "model_version": response.version}
    return {"id": response.id, **heading} if response.id else heading


def _dump(value: JsonObject) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _parse(body: bytes, limits: Limits) -> JsonObject:
    try:
        sent = read_json(body, limits)
    except json.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error.msg}; send one JSON object.") from None
    if not isinstance(sent, dict):
        raise RequestError("The body is not a JSON object; send one with inputs.")
    return sent


def _object(sent: JsonObject, key: str) -> JsonObject:
    value = sent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(
            f"{key} is {_kind(value)}; send an object of names and values, or leave it out.",
            param=key,
        )
    return value


def _list(sent: JsonObject, key: str) -> list[JsonObject]:
    value = sent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{key} is {_kind(value)}; send a list of objects.", param=key)
    if wrong := [item for item in value if not isinstance(item, dict)]:
        raise RequestError(
            f"{key} has {_kind(wrong[0])} in its list; send a list of objects alone.", param=key
        )
    return value


def _kind(value: Any) -> str:
    """What it is, and never its text, which may be a prompt in the wrong place."""
    return KINDS.get(type(value), "a number")


def _name(sent: JsonObject, key: str) -> str:
    name = sent.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError(f"One of the {key} has no name; send it as a string.", param=key)
    return name


def _id(sent: JsonObject) -> str:
    value = sent.get("id")
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RequestError(f"id is {_kind(value)}; send a string, or leave it out.", param="id")


def _refuse_shared_memory(sent: JsonObject) -> None:
    if SHARED_MEMORY in _object(sent, "parameters"):
        raise RequestError(
            "Shared memory is not served: its regions would be named by clients; send the data.",
            code="not_supported",
            param=SHARED_MEMORY,
        )
