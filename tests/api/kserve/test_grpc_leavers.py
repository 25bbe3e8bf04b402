"""Clients of KServe's gRPC that leave in the middle: nothing of theirs is left running."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.api.kserve.bad_messages import contents_of, message, tensor
from tests.api.kserve.refusals import Witness
from tests.servers import Server

LEAVERS = 20
CONNECT_S = 10


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


def long_message(id_: str = "") -> Any:
    """A request whose answer takes long."""
    inputs = [tensor("stream"), tensor("do_sample", contents=contents_of("BOOL", [False]))]
    length = tensor("max_new_tokens", contents=contents_of("INT32", [4000]))
    request = message(tensor(), length, *inputs)
    request.id = id_
    return request


def test_a_call_cancelled(stub: Any, witness: Witness) -> None:
    """A cancelled ModelInfer ends in the engine too."""
    before = witness.failures()
    call = stub.ModelInfer.future(long_message())
    witness.await_running()
    call.cancel()
    witness.await_failures(before + 1)


def test_a_stream_cancelled(stub: Any, witness: Witness) -> None:
    """A cancelled stream ends all of its requests, those that have not begun to answer too."""
    before = witness.failures()
    sent: queue.Queue[Any] = queue.Queue()
    answers = stub.ModelStreamInfer(iter(sent.get, None))
    for number in range(LEAVERS):
        sent.put(long_message(str(number)))
    seen = {next(answers).infer_response.id for _ in range(3 * LEAVERS)}
    assert seen <= {str(number) for number in range(LEAVERS)}
    answers.cancel()
    sent.put(None)
    witness.await_failures(before + LEAVERS)


def test_a_connection_closed(tiny_server: Server, witness: Witness) -> None:
    """So does a connection that goes away with its stream."""
    before = witness.failures()
    sent: queue.Queue[Any] = queue.Queue()
    with grpc.insecure_channel(tiny_server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = stub.ModelStreamInfer(iter(sent.get, None))
        sent.put(long_message())
        assert next(answers).error_message == ""
    sent.put(None)
    witness.await_failures(before + 1)


def test_a_deadline_that_passes(stub: Any, witness: Witness) -> None:
    """A call whose client's deadline passes ends as well."""
    before = witness.failures()
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(long_message(), timeout=0.5)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    witness.await_failures(before + 1)


JUNK = {
    "HTTP/1.1": b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "preface alone": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "preface and junk": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_on_the_grpc_port(tiny_server: Server, junk: bytes) -> None:
    """Bytes that are no gRPC do no harm."""
    host, _, port = tiny_server.grpc_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=CONNECT_S) as connection:
        connection.sendall(junk)
