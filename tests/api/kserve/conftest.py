"""What the tests of KServe v2 share: servers, clients, a witness of what bad requests do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import yaml
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.refusals import GENERATE_CANARY, Witness
from tests.api.kserve.vllm_backend import ADAPTER
from tests.conftest import TINY, free_port
from tests.servers import Server, serving
from tests.tiny_gemma_vision import make_tiny_gemma_vision
from tests.tiny_lora import RANK, make_tiny_lora

# For the first log probabilities vLLM compiles a kernel, which is no sign of life for a while.
PATIENT = ("limits.stall_s=60", "limits.wedge_s=300")

# --- servers


@pytest.fixture(scope="module")
def server(tiny_server: Server) -> Server:
    """The server that a file's clients talk to; a file that has another says so by this name."""
    return tiny_server


@pytest.fixture(scope="session")
def tensorrtllm_server(
    tiny_profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """The tiny model with TensorRT-LLM's names."""
    overrides = [
        "triton.contract=tensorrtllm",
        "server.grpc_port=0",
        "chat.tool_call_parser=pythonic",
        *PATIENT,
    ]
    log = tmp_path_factory.mktemp("tensorrtllm") / "server.log"
    engine_slot.close()
    return engine_slot.enter_context(serving(tiny_profile, overrides, log, {**os.environ}))


@pytest.fixture(scope="session")
def vllm_backend_metrics_port() -> int:
    """Where the vLLM backend's server shows its metrics too."""
    return free_port()


@pytest.fixture(scope="session")
def multimodal_server(
    engine_slot: contextlib.ExitStack,
    tmp_path_factory: pytest.TempPathFactory,
    vllm_backend_metrics_port: int,
) -> Server:
    """
    A multimodal model with an adapter and the tensors of Triton's vLLM backend.

    It has the names of Triton's documentation beside our own.
    """
    directory = tmp_path_factory.mktemp("multimodal")
    adapter = make_tiny_lora(directory / "lora", "model.language_model")
    keys = {
        "model": str(make_tiny_gemma_vision(directory / "gemma")),
        **TINY,
        "served_model_name": ["tiny", "vllm_model", "mymodel"],
        "images_per_prompt": 3,
        "lora": {"adapters": {ADAPTER: str(adapter)}, "max_lora_rank": RANK},
        "triton": {"contract": "vllm-backend", "inference_trace": True},
        "server": {"grpc_port": 0, "metrics_port": vllm_backend_metrics_port},
    }
    profile = directory / "profile.yaml"
    profile.write_text(yaml.safe_dump(keys))
    engine_slot.close()
    log = directory / "server.log"
    return engine_slot.enter_context(serving(profile, PATIENT, log, {**os.environ}))


# --- clients


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with server.client() as client:
        yield client


@pytest.fixture
def http_client(server: Server) -> Iterator[httpclient.InferenceServerClient]:
    """Triton's HTTP client, as a user makes it."""
    address = server.base_url.removeprefix("http://")
    with httpclient.InferenceServerClient(address, concurrency=8) as client:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    """Triton's gRPC client, as a user makes it."""
    with grpcclient.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[Any]:
    """A connection to the gRPC port."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    """The inference service, in plain protobuf."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


# --- the witness


@pytest.fixture(scope="module")
def canary() -> Mapping[str, Any]:
    """A greedy request of /generate, by the contract of the file's server."""
    return GENERATE_CANARY


@pytest.fixture(scope="module")
def witness(server: Server, canary: Mapping[str, Any]) -> Iterator[Witness]:
    """Knows the server as it was before the module's tests."""
    witness = Witness(server, canary)
    yield witness
    witness.close()
