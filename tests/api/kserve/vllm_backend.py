"""What the tests of Triton's vLLM backend's contract share: its requests, over HTTP and gRPC."""

from __future__ import annotations

import base64
import io
import json
import queue
import random
from typing import Any

import httpx
import tritonclient.grpc as grpcclient
from PIL import Image

from tests.api.kserve.triton_clients import inputs_of

PROMPT = "The sea"
GENERATE = "/v2/models/vllm_model/generate"
FLAGS = {
    f"return_{name}": True
    for name in (
        *("finish_reason", "cumulative_logprob", "logprobs"),
        *("num_input_tokens", "num_output_tokens"),
    )
}
ADAPTER = "poet"
WAIT_S = 60


def sampling(**values: Any) -> str:
    """The tensor sampling_parameters."""
    return json.dumps({"temperature": 0, "ignore_eos": True} | values)


def infer(client: Any, values: dict[str, Any], **options: Any) -> Any:
    """The whole answer over gRPC."""
    return client.infer("vllm_model", inputs_of(grpcclient, values), **options)


def stream(client: Any, values: dict[str, Any]) -> list[Any]:
    """All responses of one request over ModelStreamInfer."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("vllm_model", inputs_of(grpcclient, {**values, "stream": True}))
    results = []
    final = False
    while not final:
        result, error = answers.get(timeout=WAIT_S)
        assert error is None, error
        results.append(result)
        final = result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    return results


def generate(http: httpx.Client, **body: Any) -> dict[str, Any]:
    """The answer of /generate."""
    answer = http.post(GENERATE, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(http: httpx.Client, **body: Any) -> str:
    """The sentence of a 400 of /generate."""
    answer = http.post(GENERATE, json=body)
    assert answer.status_code == 400, answer.text
    (message,) = answer.json().values()
    return str(message)


def png(seed: int) -> str:
    """A picture of noise in base64."""
    pixels = random.Random(seed).randbytes(60 * 40 * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (60, 40), pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
