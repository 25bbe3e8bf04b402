"""What the tests of KServe v2's bad sides share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
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
