"""KServe v2 in protobuf: ModelInferRequest read, ModelInferResponse written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from gemma_serve.api.keys import Key
from gemma_serve.api.kserve.service import InferRequest, InferResponse
from gemma_serve.errors import RequestError
from gemma_serve.triton.tensors import (
    Tensor,
    check_datatype,
    from_bytes,
    from_json,
    num_elements,
    to_bytes,
)

SERVICE = "inference.GRPCInferenceService"
# The field of InferTensorContents that holds each datatype; FP16 comes as raw bytes only.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
FINAL = "triton_final_response"


def parameter_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Request parameters by name; one without a value is left out."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in chosen.items() if kind}


def read_request(
    message: Any,
    *,
    may_stream: bool,
    timeout_s: float | None,
    request_id: str,
    trace_headers: Mapping[str, str],
    key: Key | None,
) -> InferRequest:
    """
    A ModelInferRequest.

    Raises:
        RequestError: tensors that are not what they say.
    """
    parameters = parameter_values(message.parameters)
    for tensor in (*message.inputs, *message.outputs):
        if "shared_memory_region" in tensor.parameters:
            raise RequestError(
                "Shared memory is not served: its regions would be named by clients; send the "
                "data.",
                code="not_supported",
            )
    return InferRequest(
        message.model_name,
        message.model_version,
        list(_tensors(message)),
        [output.name for output in message.outputs],
        message.id,
        parameters,
        may_stream,
        timeout_s,
        request_id,
        trace_headers,
        key,
    )


def _tensors(message: Any) -> Iterator[Tensor]:
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; send "
            "one for each, or use contents for all."
        )
    for index, sent in enumerate(message.inputs):
        name, shape = sent.name, list(sent.shape)
        datatype = check_datatype(name, sent.datatype)
        if raw:
            if sent.HasField("contents"):
                raise RequestError(
                    f"Input {name!r} has contents beside raw_input_contents; send one of them.",
                    param=name,
                )
            yield from_bytes(name, datatype, shape, raw[index])
        else:
            yield _from_contents(name, datatype, shape, sent.contents)


def _from_contents(name: str, datatype: str, shape: list[int], contents: Any) -> Tensor:
    if datatype not in CONTENTS:
        raise RequestError(
            f"Input {name!r} is {datatype}, which only raw_input_contents can hold; send it there.",
            param=name,
        )
    if others := {field.name for field, _ in contents.ListFields()} - {CONTENTS[datatype]}:
        raise RequestError(
            f"Input {name!r} is {datatype} and has {', '.join(sorted(others))}; send "
            f"{CONTENTS[datatype]} alone.",
            param=name,
        )
    values = list(getattr(contents, CONTENTS[datatype]))
    if datatype != "BYTES":
        return from_json(name, datatype, shape, values)
    if num_elements(name, shape) != len(values):
        raise RequestError(
            f"The shape of input {name!r} has {num_elements(name, shape)} elements and its "
            f"contents have {len(values)}; send as many as the shape says.",
            param=name,
        )
    return Tensor(name, datatype, tuple(shape), tuple(values))


def write_response(response: InferResponse) -> Any:
    """A ModelInferResponse; its tensors as raw bytes, as Triton sends them."""
    message = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    message.parameters[FINAL].bool_param = response.final
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(to_bytes(tensor))
    return message
