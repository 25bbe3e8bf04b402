"""Triton's documentation of its vLLM backend and of generate: its requests pass as they stand."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from http.client import HTTPResponse
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from prometheus_client.parser import text_string_to_metric_families

from tests.api.kserve import streaming_client
from tests.api.kserve.triton_clients import events_of, greedy
from tests.api.kserve.vllm_backend import ADAPTER, WAIT_S
from tests.servers import Server


@pytest.fixture(scope="module")
def server(multimodal_server: Server) -> Server:
    """A multimodal model with an adapter, under the names of Triton's documentation."""
    return multimodal_server


def curl_text(server: Server, path: str, body: str) -> str:
    """As written there, but for the address."""
    address = server.base_url.removeprefix("http://")
    command = ["curl", "--silent", "--show-error", "-X", "POST", f"{address}{path}", "-d", body]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, check=True
    ).stdout


def curl(server: Server, path: str, body: str) -> Any:
    """The same, where the answer is one object."""
    return json.loads(curl_text(server, path, body))


def test_first_inference_of_the_readme(server: Server) -> None:
    """vllm_backend, README.md, "Sending Your First Inference"."""
    body = (
        '{"text_input": "What is Triton Inference Server?", '
        '"parameters": {"stream": false, "temperature": 0}}'
    )
    prompt = "What is Triton Inference Server?"
    assert curl(server, "/v2/models/vllm_model/generate", body) == {
        "model_name": "vllm_model",
        "model_version": "1",
        "text_output": prompt + greedy(server, prompt, 16),
    }


@pytest.mark.parametrize(
    "body",
    [
        '{"id": "42", "text_input": "client input", '
        '"parameters": {"stream": false, "temperature": 0}}',
        # As older releases of the page had it.
        '{"text_input": "client input", "parameters": {"stream": false, "temperature": 0}}',
    ],
    ids=["with an id", "without"],
)
@pytest.mark.parametrize("middle", ["", "/versions/1"])
def test_example_of_the_generate_extension(server: Server, middle: str, body: str) -> None:
    """server, docs/protocol/extension_generate.md, "Example Request", by both of its URLs."""
    heading = {"model_name": "mymodel", "model_version": "1"}
    if "id" in json.loads(body):
        heading["id"] = "42"
    text = greedy(server, "client input", 16)
    path = f"/v2/models/mymodel{middle}/generate"
    assert curl(server, path, body) == heading | {"text_output": f"client input{text}"}
    # Both URLs expect the same; the answer to `stream` false is one event.
    said = curl_text(server, f"{path}_stream", body)
    assert events_of(said) == [heading | {"text_output": f"client input{text}"}]


# The same page, below the command line; with the length that it leaves open.
RAW_BODY = b"""{
  "id" : "42",
  "text_input" :  "client input",
  "parameters" :
    {
      "stream": false,
      "temperature": 0
    }
}
"""
RAW_HEAD = b"""\
POST /v2/models/mymodel/generate HTTP/1.1
Host: localhost:8000
Content-Type: application/json
Content-Length: %d

"""


def test_raw_example_of_the_generate_extension(server: Server) -> None:
    """The request as it goes over the wire, and an answer of the keys that the page has."""
    url = httpx.URL(server.base_url)
    head = (RAW_HEAD % len(RAW_BODY)).replace(b"\n", b"\r\n")
    with socket.create_connection((url.host, url.port), timeout=WAIT_S) as connection:
        connection.sendall(head + RAW_BODY)
        answer = HTTPResponse(connection)
        answer.begin()
        said = json.loads(answer.read())
    assert (answer.status, answer.getheader("content-type")) == (200, "application/json")
    assert said.keys() == {"id", "model_name", "model_version", "text_output"}


@pytest.mark.parametrize("end", ["generate", "generate_stream"])
def test_error_of_the_generate_extension(http: httpx.Client, end: str) -> None:
    """The page's "Example Error": a request that fails before inference is JSON, by both URLs."""
    body = {"text_input": "client input", "parameters": {"stream": True, "temperature": -1}}
    answer = http.post(f"/v2/models/mymodel/{end}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    (message,) = answer.json().values()
    assert answer.json() == {"error": message}
    assert "temperature" in message


# vllm_backend, README.md, "Triton Metrics", by the names that vLLM has today.
VLLM_SERIES = {
    *("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    *(
        f"vllm:{name}_{end}"
        for name in (
            *("time_to_first_token_seconds", "inter_token_latency_seconds"),
            *("e2e_request_latency_seconds", "request_params_n"),
            *("request_prompt_tokens", "request_generation_tokens"),
        )
        for end in ("count", "sum", "bucket")
    ),
}


def test_metrics_of_the_readme(server: Server, vllm_backend_metrics_port: int) -> None:
    """`curl localhost:8002/metrics` has vLLM's series after the first inference."""
    assert curl(server, "/v2/models/vllm_model/generate", '{"text_input": "client input"}')
    command = ["curl", "--silent", "--show-error", f"localhost:{vllm_backend_metrics_port}/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    families = text_string_to_metric_families(done.stdout)
    assert {sample.name for family in families for sample in family.samples} >= VLLM_SERIES


def test_example_of_additional_outputs(server: Server) -> None:
    """vllm_backend, docs/additional_outputs.md, "Add Finish Reason to Outputs"."""
    inputs = [grpcclient.InferInput("text_input", [1], "BYTES")]
    inputs[-1].set_data_from_numpy(np.array([b"example prompt"], dtype=np.object_))
    inputs.append(grpcclient.InferInput("return_finish_reason", [1], "BOOL"))
    inputs[-1].set_data_from_numpy(np.array([True], dtype=bool))
    reasons = []

    def callback(result: Any, error: Any) -> None:
        reasons.append(error or result.as_numpy(name="finish_reason").tolist())

    with grpcclient.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(callback)
        client.async_stream_infer("vllm_model", inputs=inputs)
        client.stop_stream()
    assert reasons in ([[b"length"]], [[b"stop"]])


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_sample_client(server: Server, *, streams: bool, adapter: str | None) -> None:
    """A client as in the backend's samples, in its own process: numbers as strings, one stream."""
    prompts = ["The sea", "Hello, my name is\n", "def read(path):\n", "Story of a river"]
    strings = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "20"}
    ask = {
        "model": "vllm_model",
        "prompts": prompts,
        "stream": streams,
        "exclude_input_in_output": streams,
        "sampling_parameters": strings | ({"lora_name": adapter} if adapter else {}),
    }
    command = [sys.executable, streaming_client.__file__, server.grpc_address, json.dumps(ask)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers.keys() == {str(number) for number in range(len(prompts))}
    for number, prompt in enumerate(prompts):
        pieces = answers[str(number)]
        assert (len(pieces) > 1) == streams
        assert "".join(pieces).startswith(prompt) != streams
