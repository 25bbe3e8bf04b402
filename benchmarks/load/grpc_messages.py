"""
ModelStreamInfer's messages: a request from a body of names and values, a response as one.

Source: KServe v2's protobuf as Triton extends it (tritonclient's grpc_service.proto).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

FINAL = "triton_final_response"
# As protobuf writes it: an entry of `parameters` with this key, and an InferParameter whose
# bool_param is true.
FINAL_BYTES = b"\x0a\x15" + FINAL.encode() + b"\x12\x02\x08\x01"
# The tag of error_message, the first field of a ModelStreamInferResponse.
ERROR_TAG = b"\x0a"


def infer_request(model: str, asked: dict[str, Any], *, batched: bool) -> bytes:
    """
    A ModelInferRequest with an input for each name.

    Args:
        model: Its name there.
        asked: Strings, booleans, integers (INT32) and floats (FP32).
        batched: The inputs have a batch dimension, of 1.
    """
    request = pb.ModelInferRequest(model_name=model)
    # Without it a backend that sends its last response before it says so would end no answer.
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, value in asked.items():
        datatype, raw = _tensor(value)
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1] if batched else [1])
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def _tensor(value: str | bool | float) -> tuple[str, bytes]:
    if isinstance(value, str):
        data = value.encode()
        return "BYTES", struct.pack("<I", len(data)) + data
    if isinstance(value, bool):
        return "BOOL", struct.pack("<?", value)
    if isinstance(value, int):
        return "INT32", struct.pack("<i", value)
    return "FP32", struct.pack("<f", value)


def ends_answer(message: bytes) -> bool:
    """
    Whether nothing of this request follows: the final response, or an error.

    While requests run, a message is parsed only if its bytes look like the end.
    """
    if FINAL_BYTES not in message and not message.startswith(ERROR_TAG):
        return False
    try:
        parsed = pb.ModelStreamInferResponse.FromString(message)
    except DecodeError:
        return True  # to wait for more of something else would be in vain
    return bool(parsed.error_message or parsed.infer_response.parameters[FINAL].bool_param)


def read_response(message: bytes) -> dict[str, Any]:
    """
    A ModelStreamInferResponse as generate_stream's JSON has it: outputs by name, or an error.

    Raises:
        ValueError: it is none, or its tensors are not what they say.
    """
    try:
        parsed = pb.ModelStreamInferResponse.FromString(message)
        if parsed.error_message:
            return {"error": parsed.error_message}
        answer = parsed.infer_response
        outputs = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {output.name: _values(output.datatype, raw) for output, raw in outputs}
    except (DecodeError, struct.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        return [one.decode(errors="replace") for one in deserialize_bytes_tensor(raw)]
    return list(np.frombuffer(raw, dtype=triton_to_np_dtype(datatype)).tolist())
