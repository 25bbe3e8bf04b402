"""How many requests of one gRPC stream run at once; no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.api.kserve.service import InferRequest, InferResponse, KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.schema import Profile, Server

AT_ONCE, MORE = 256, 44
BOUND_S, STILL_S = 60, 0.5


class Waiting(KServe):
    """Answers nobody until it is told to, and counts who waits."""

    def __init__(self, state: ServerState) -> None:
        super().__init__(state)
        self.num_waiting = 0
        self.full, self.go = asyncio.Event(), asyncio.Event()

    async def infer(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """Wait, and answer without a tensor."""
        self.num_waiting += 1
        if self.num_waiting == AT_ONCE:
            self.full.set()
        await self.go.wait()
        yield InferResponse(request.model, "1", request.id, [], final=True)


def test_a_stream_of_more_than_run_at_once() -> None:
    """256 run; the others wait unread in the connection, and are answered in their turn."""
    asyncio.run(send_more())


async def send_more() -> None:
    """Send more requests than run at once, and have them answered when no more come."""
    profile = Profile(model="tiny", server=Server(host="127.0.0.1"))
    service = Waiting(ServerState(profile, Timeline()))
    server = GrpcServer(service)
    port = await server.start(0)

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(AT_ONCE + MORE):
            yield pb.ModelInferRequest(model_name="tiny", id=str(number))

    async def count_and_let_go() -> None:
        await service.full.wait()
        await asyncio.sleep(STILL_S)
        assert service.num_waiting == AT_ONCE
        service.go.set()

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            counting = asyncio.create_task(asyncio.wait_for(count_and_let_go(), BOUND_S))
            stream = stub.ModelStreamInfer(requests(), timeout=BOUND_S)
            said = [response.infer_response.id async for response in stream]
            await counting
    finally:
        await server.stop()
    assert sorted(said, key=int) == [str(number) for number in range(AT_ONCE + MORE)]
