"""What gRPC's probes say in each phase of a server's life; no engine."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from gemma_serve.api.kserve.service import KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.engine.watchdog import Progress
from gemma_serve.profile.schema import Profile, Server

BOUND_S = 30
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def probes(channel: Any) -> tuple[bool, bool, int]:
    """ServerLive, ServerReady, and what grpc.health.v1 says."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    live = await stub.ServerLive(pb.ServerLiveRequest())
    ready = await stub.ServerReady(pb.ServerReadyRequest())
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return live.live, ready.ready, health.status


async def live_through(state: ServerState) -> list[int]:
    """Lead a server from its start to its end; return what a watching client was told."""
    server = GrpcServer(KServe(state))
    port = await server.start(0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=BOUND_S
            )
            told = [(await watching.read()).status]
            assert await probes(channel) == (True, False, NOT_SERVING)
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            model = await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))
            assert not model.ready
            state.become_ready()
            told.append((await watching.read()).status)
            assert await probes(channel) == (True, True, SERVING)
            state.progress = Progress.STALLED
            told.append((await watching.read()).status)
            assert await probes(channel) == (True, False, NOT_SERVING)
            state.progress = Progress.IDLE
            told.append((await watching.read()).status)
            state.begin_draining()
            told.append((await watching.read()).status)
            assert await probes(channel) == (True, False, NOT_SERVING)
            watching.cancel()
    finally:
        await server.stop()
    return told


def test_from_the_start_to_the_end() -> None:
    """Live throughout; ready and SERVING while more requests are welcome; a change is told."""
    profile = Profile(model="tiny", server=Server(host="127.0.0.1"))
    told = asyncio.run(live_through(ServerState(profile, Timeline())))
    assert told == [NOT_SERVING, SERVING, NOT_SERVING, SERVING, NOT_SERVING]
