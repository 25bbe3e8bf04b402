"""A client of gRPC that stands still has left, as over HTTP; no engine."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Any

from gemma_serve.api.kserve.service import InferRequest, KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.schema import Limits, Profile, Server

CLIENT = "tests.api.kserve.streaming_client"
ASK = {
    "model": "tiny",
    "prompts": ["a"],
    "stream": True,
    "sampling_parameters": {},
    "exclude_input_in_output": True,
}
TIMEOUT_S, PINGS, BOUND_S = 2.0, 3, 60


class Waiting(KServe):
    """Answers nothing, and tells when a request has come and when it has left."""

    def __init__(self, state: ServerState) -> None:
        super().__init__(state)
        self.came, self.left = asyncio.Event(), asyncio.Event()

    async def infer(self, request: InferRequest) -> AsyncGenerator[Any, None]:
        """Wait for the client's end."""
        self.came.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            self.left.set()


def test_a_client_that_stands_still() -> None:
    """One that waits is waited for; stopped, it answers no ping, and its calls end."""
    asyncio.run(stop_a_client())


async def stop_a_client() -> None:
    """Have a client wait for some pings, and stop it."""
    limits, address = Limits(write_timeout_s=TIMEOUT_S), Server(host="127.0.0.1")
    profile = Profile(model="tiny", server=address, limits=limits)
    service = Waiting(ServerState(profile, Timeline()))
    server = GrpcServer(service)
    port = await server.start(0)
    words = (sys.executable, "-m", CLIENT, f"127.0.0.1:{port}", json.dumps(ASK))
    client = await asyncio.create_subprocess_exec(*words)
    try:
        await asyncio.wait_for(service.came.wait(), BOUND_S)
        await asyncio.sleep(PINGS * TIMEOUT_S)
        assert not service.left.is_set()
        client.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(service.left.wait(), BOUND_S)
    finally:
        client.kill()
        await client.wait()
        await server.stop()
