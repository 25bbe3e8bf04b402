"""What the tests of KServe v2 share: clients, and a witness of what bad requests leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.http as httpclient
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.refusals import Witness
from tests.servers import Server


@pytest.fixture(scope="module")
def witness(tiny_server: Server) -> Iterator[Witness]:
    """Knows the server as it was before the module's tests."""
    witness = Witness(tiny_server)
    yield witness
    witness.close()


@pytest.fixture(scope="module")
def channel(tiny_server: Server) -> Iterator[Any]:
    """A connection to the gRPC port."""
    with grpc.insecure_channel(tiny_server.grpc_address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    """The inference service, in plain protobuf."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def client(tiny_server: Server) -> Iterator[httpclient.InferenceServerClient]:
    """The client as a user makes it."""
    address = tiny_server.base_url.removeprefix("http://")
    with httpclient.InferenceServerClient(address, concurrency=8) as client:
        yield client


@pytest.fixture
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with tiny_server.client() as client:
        yield client
