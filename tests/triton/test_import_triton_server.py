"""What import-triton writes is served, and the repository's clients find what they had."""

from __future__ import annotations

from pathlib import Path

import tritonclient.grpc

from gemma_serve.import_triton import Request, import_triton
from tests.conftest import ServeProfile
from tests.triton.repositories import python_backend

# What a machine of two cores needs, and ports that are free.
OVERRIDES = [
    "server.host=127.0.0.1",
    "server.port=0",
    "server.grpc_port=0",
    "server.metrics_port=0",
    "dtype=fp32",
    "max_model_len=256",
    "kv_cache_memory_gib=0.25",
    "engine.enforce_eager=true",
]


def test_clients_of_a_python_backend(
    tiny_model: Path, serve_profile: ServeProfile, tmp_path: Path
) -> None:
    """The model has the same name, version and inputs, over HTTP and gRPC, and answers."""
    repository = python_backend(tmp_path / "models")
    request = Request(repository, hf_model=str(tiny_model), output=tmp_path / "gemma.yaml")
    written = import_triton(request, print)
    with serve_profile(written.output, OVERRIDES) as server:
        with server.client() as http:
            sent = {"id": "trip-7", "text_input": "Rome is", "max_new_tokens": 4}
            answer = http.post("/v2/models/gemma/versions/1/generate", json=sent)
            config = http.get("/v2/models/gemma/config").json()
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as grpc:
            assert grpc.is_model_ready("gemma", "1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_name"] == "gemma"
    assert isinstance(answer.json()["text_output"], str)
    assert [each["name"] for each in config["input"]] == [
        "text_input",
        "max_length",
        "max_new_tokens",
        "do_sample",
        "top_k",
        "top_p",
        "temperature",
        "repetition_penalty",
        "stream",
    ]
    # triton.inference_trace, which the repository had as enable_inference_trace.
    server.wait_for("trip-7")
    assert "Rome is" not in server.output()
