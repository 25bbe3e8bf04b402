"""
ModelStreamInfer as a script plays it: for behaviour that no honest server shows.

It generates nothing; each test writes the responses, and when they come, itself.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

Script = Callable[[Any, Any], AsyncGenerator[Any, None]]  # of a request and its context


class Hangup(Exception):  # noqa: N818  # no error, but a script's way to end the stream with OK
    """The server has nothing more to say."""


def response(
    text: str = " x",
    *,
    tokens: int | None = 1,
    reason: str | None = "None",
    prompt: int | None = 3,
    final: bool = False,
) -> Any:
    """A response of the vLLM backend; of the python backend where tokens and reason are None."""
    answer = pb.ModelInferResponse(model_name="scripted", model_version="1")
    answer.parameters["triton_final_response"].bool_param = final
    tensors = {"text_output": text, "finish_reason": reason}
    tensors |= {"num_input_tokens": prompt, "num_output_tokens": tokens}
    for name, value in tensors.items():
        if value is not None:
            is_text = isinstance(value, str)
            answer.outputs.add(name=name, datatype="BYTES" if is_text else "UINT32", shape=[1])
            raw = _bytes(value) if is_text else struct.pack("<I", value)
            answer.raw_output_contents.append(raw)
    return pb.ModelStreamInferResponse(infer_response=answer)


def refusal(message: str) -> Any:
    """A response that is an error."""
    return pb.ModelStreamInferResponse(error_message=message)


def inputs(request: Any) -> dict[str, Any]:
    """What a request holds, by name: text, truth values and numbers."""
    readers = {
        "BYTES": lambda raw: raw[4:].decode(),
        "BOOL": lambda raw: bool(raw[0]),
        "INT32": lambda raw: struct.unpack("<i", raw)[0],
        "FP32": lambda raw: struct.unpack("<f", raw)[0],
    }
    pairs = zip(request.inputs, request.raw_input_contents, strict=True)
    return {one.name: readers[one.datatype](raw) for one, raw in pairs}


async def honest(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    """Three tokens in two responses."""
    yield response(" a")
    yield response(" b c", tokens=2, reason="length", final=True)


def _bytes(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


@contextlib.asynccontextmanager
async def scripted_grpc(script: Script) -> AsyncIterator[str]:
    """HOST:PORT of a server that answers each request of a stream by the script, in turn."""

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        async def ModelStreamInfer(  # noqa: N802
            self, requests: AsyncIterator[Any], context: Any
        ) -> AsyncGenerator[Any, None]:
            with contextlib.suppress(Hangup):
                async for request in requests:
                    async for one in script(request, context):
                        yield one

    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)
