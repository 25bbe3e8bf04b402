"""
A client of Triton's vLLM backend as its samples show one, to run in a process of its own.

Many prompts over one gRPC stream with the asyncio client, sampling in a tensor as strings, and the
pieces of each answer put together by the response's id; JSON on stdout.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc.aio as grpcclient


def tensor(name: str, value: str | bool) -> Any:
    """One value as an input of shape [1]."""
    is_text = isinstance(value, str)
    made = grpcclient.InferInput(name, [1], "BYTES" if is_text else "BOOL")
    data = np.array([value.encode() if is_text else value], np.object_ if is_text else bool)
    made.set_data_from_numpy(data)
    return made


async def requests(ask: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A request for each prompt; its number is its id."""
    sampling = ask["sampling_parameters"]
    for number, prompt in enumerate(ask["prompts"]):
        inputs = [
            tensor("text_input", prompt),
            tensor("stream", ask["stream"]),
            tensor("sampling_parameters", json.dumps(sampling)),
            tensor("exclude_input_in_output", ask["exclude_input_in_output"]),
        ]
        yield {
            "model_name": ask["model"],
            "inputs": inputs,
            "outputs": [grpcclient.InferRequestedOutput("text_output")],
            "request_id": str(number),
            "parameters": sampling,
        }


async def answers(address: str, ask: dict[str, Any]) -> dict[str, list[str]]:
    """The pieces of every answer, by request id; an error ends the program."""
    pieces: dict[str, list[str]] = {}
    async with grpcclient.InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests(ask)):
            if error:
                raise error
            texts = [text.decode() for text in result.as_numpy("text_output")]
            pieces.setdefault(result.get_response().id, []).extend(texts)
    return pieces


if __name__ == "__main__":
    address, ask = sys.argv[1:]
    print(json.dumps(asyncio.run(answers(address, json.loads(ask)))))
