"""What gRPC's messages and decompressed bodies hold counts with all other bodies; no engine."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from starlette.testclient import TestClient
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.api.app import build_app
from gemma_serve.api.held import Hold
from gemma_serve.api.kserve.service import InferRequest, KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.schema import Limits, Profile, Server
from tests.api.kserve.bad_messages import contents_of, message, tensor

SENTENCE = (
    "Open requests hold bodies of 1000 bytes (limits.max_held_bytes) or nearly; retry in 1 s, or "
    "on another instance."
)


def starting_state() -> ServerState:
    """A server whose engine starts, and that holds 1000 bytes."""
    limits, server = Limits(max_held_bytes=1000), Server(host="127.0.0.1")
    return ServerState(Profile(model="tiny", server=server, limits=limits), Timeline())


class Observed(KServe):
    """Keeps how much was held when a request came so far."""

    held_bytes = 0

    async def infer(self, request: InferRequest) -> AsyncGenerator[Any, None]:
        """See, and refuse as before the start is over."""
        self.held_bytes = self.state.held.num_bytes
        async for response in super().infer(request):
            yield response


def test_messages() -> None:
    """Where bodies of HTTP hold most of it, a message is UNAVAILABLE, also in a stream."""
    asyncio.run(send_beside_a_body())


async def send_beside_a_body() -> None:
    """Send one message beside a body of 600 bytes, and again when that is gone."""
    state = starting_state()
    service = Observed(state)
    server = GrpcServer(service)
    port = await server.start(0)
    asked = message(tensor(contents=contents_of("BYTES", ["x" * 600])))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def said() -> tuple[str, str]:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.ModelInfer(asked)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                (answer,) = [one async for one in stub.ModelStreamInfer(iter([asked]))]
                return refused.value.details(), answer.error_message

            with Hold(state.held) as body:
                body.add(600)
                assert await said() == (SENTENCE, SENTENCE)
                assert (state.held.num_bytes, service.held_bytes) == (600, 0)
            assert all("still loading" in sentence for sentence in await said())
            assert (state.held.num_bytes, service.held_bytes) == (0, asked.ByteSize())
    finally:
        await server.stop()


def test_decompressed_bodies() -> None:
    """What comes out of a compressed body counts, beside what came in."""
    state = starting_state()
    client = TestClient(build_app(state))
    for num_bytes, status in ((900, 200), (1100, 503)):
        body = gzip.compress(b"{}".ljust(num_bytes))
        headers = {"content-encoding": "gzip"}
        answer = client.post("/v2/repository/index", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert state.held.num_bytes == 0
    assert answer.json() == {"error": SENTENCE}
