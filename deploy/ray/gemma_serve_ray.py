"""
A Ray Serve application whose replicas are gemma-serve's own server.

    serve run --app-dir deploy/ray gemma_serve_ray:build profile=gemma-3-4b-it

A replica starts `gemma-serve serve PROFILE` as a process of its own, on a free port of the
loopback, and hands requests on to it. So the server, its environment and its drain are the same as
without Ray, and Ray's packages need not suit vLLM's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import aclosing
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HOST = "127.0.0.1"
POLL_S = 0.2
CONNECT_S = 5.0
HEALTH_S = 10.0
# The server's drain (limits.drain_s, 30 s), 10 s for vLLM's processes, and some more. Serve waits
# for open requests first, within the same time.
GRACE_S = 60.0
# What the last bytes of a server that has ended get to reach their clients.
LAST_BYTES_S = 1.0
# Source: RFC 9110, 7.6.1. Serve's proxy says server, date and x-request-id itself.
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"} | {
    b"transfer-encoding",
    b"upgrade",
}
NOT_SENT = HOP_BY_HOP | {b"expect"}
NOT_ANSWERED = HOP_BY_HOP | {b"server", b"date", b"x-request-id"}


class Arguments(BaseModel):
    """What the application is built from: `args` in Serve's config, KEY=VALUE in a command."""

    model_config = ConfigDict(extra="forbid")

    profile: str = Field(description="Name or path of a profile, on the replicas' machines.")
    overrides: list[str] = Field([], description="KEY=VALUE, each as with --set.")
    command: list[str] = Field(
        [sys.executable, "-m", "gemma_serve"],
        description="How gemma-serve is started: another environment's, such as "
        "[/opt/gemma-serve/.venv/bin/gemma-serve].",
    )
    start_timeout_s: float = Field(1800, gt=0, description="Seconds until it must be ready.")


# Serve's config changes any of these, under deployments. Its autoscaler counts what it calls the
# queue length: requests that a replica answers or keeps waiting, and those that none has taken yet.
@serve.deployment(
    max_ongoing_requests=1024,  # Serve's 5 would starve the batch; limits.max_queued_requests holds
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 1,
        "target_ongoing_requests": 96,
        "upscale_delay_s": 30,
        "downscale_delay_s": 600,
    },
    health_check_period_s=5,
    health_check_timeout_s=2 * HEALTH_S,
    graceful_shutdown_timeout_s=GRACE_S + 10,
    ray_actor_options={"num_cpus": 1},
)
class GemmaServe:
    """A replica: one server, from its start to its drain."""

    async def __init__(self, arguments: Arguments) -> None:  # type: ignore[misc]  # Serve awaits it
        """
        Start the server and wait until it is ready.

        Raises:
            RuntimeError: it ended, or was not ready in time; Serve tries again, and says so.
        """
        port = free_port()
        self.client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}",
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            # A connection for each request: an idle one may be closed just as it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )
        self.process = start(arguments, port)
        self.stopping = False
        await self._until_ready(arguments.start_timeout_s)
        self.watching = asyncio.create_task(self._end_with_the_server())

    async def __call__(self, request: Request) -> Response:
        """Hand a request on."""
        return Forwarded(self.client, request)

    async def check_health(self) -> None:
        """
        Ask the server whether it lives; Serve replaces the replica after three failures.

        Raises:
            RuntimeError: it does not.
        """
        answer = await self.client.get("/livez", timeout=HEALTH_S)
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"/livez of {self.client.base_url} is {answer.status_code}.")

    async def __del__(self) -> None:
        """Drain: Serve calls this once it has waited for the replica's requests."""
        self.stopping = True
        self.process.terminate()
        for _ in range(round(GRACE_S / POLL_S)):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(POLL_S)
        self.process.kill()
        await self.client.aclose()

    async def _until_ready(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not await self._is_ready():
            if (code := self.process.poll()) is not None:
                raise RuntimeError(
                    f"gemma-serve ended with {code} before it was ready; its last line, in this "
                    "replica's log (worker-*.err), says why."
                )
            if time.monotonic() > deadline_s:
                self.process.kill()
                raise RuntimeError(
                    f"gemma-serve was not ready after start_timeout_s {timeout_s:.0f}; "
                    "raise it, or see this replica's log (worker-*.err)."
                )
            await asyncio.sleep(POLL_S)

    async def _is_ready(self) -> bool:
        try:
            answer = await self.client.get("/readyz", timeout=HEALTH_S)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    async def _end_with_the_server(self) -> None:
        """
        End the replica's process when the server has ended.

        Three health checks later would do for Serve, but until then a replica that answers at once
        looks like the least loaded one, and gets the requests of all.
        """
        while True:
            await asyncio.sleep(POLL_S)
            if self.process.poll() is not None and not self.stopping:
                await asyncio.sleep(LAST_BYTES_S)
                os._exit(1)


class Forwarded(Response):
    """
    The server's answer to a request, chunk by chunk as it comes.

    When the client goes, Serve cancels the call; that closes the connection to the server, which
    then stops the request. But Serve's proxy looks for the client only where it has no more to hand
    on: an answer that comes faster than it works would be written to its end.
    """

    def __init__(self, client: httpx.AsyncClient, request: Request) -> None:
        self.client, self.request = client, request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the server, and send what it answers."""
        try:
            answer = await self.client.send(outgoing(self.client, self.request), stream=True)
        except httpx.TransportError:
            await gone()(scope, receive, send)
            return
        async with aclosing(answer):
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status_code,
                    "headers": kept(answer.headers.raw, NOT_ANSWERED),
                }
            )
            leaving = asyncio.create_task(until_client_leaves(self.request))
            try:
                async for chunk in answer.aiter_raw():
                    if leaving.done():
                        return
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                leaving.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def outgoing(client: httpx.AsyncClient, request: Request) -> httpx.Request:
    """The request as the server gets it; x-request-id is the client's own, or Serve's."""
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    target = path + (b"?" + query if (query := request.scope["query_string"]) else b"")
    has_body = {"content-length", "transfer-encoding"} & set(request.headers)
    return httpx.Request(
        request.method,
        client.base_url.copy_with(raw_path=target),
        headers=kept(request.headers.raw, NOT_SENT),
        content=request.stream() if has_body else None,
        extensions={"timeout": client.timeout.as_dict()},
    )


async def until_client_leaves(request: Request) -> None:
    """Wait for it; the request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def kept(headers: list[tuple[bytes, bytes]], without: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Headers that go on, by their names in lower case."""
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name not in without]


def gone() -> Response:
    """The answer of a replica whose server has just ended; another replica has one."""
    error = {
        "message": "This replica's server has ended; try again.",
        "type": "service_unavailable_error",
        "param": None,
        "code": "engine_dead",
    }
    return Response(
        json.dumps({"error": error}),
        status_code=httpx.codes.SERVICE_UNAVAILABLE,
        headers={"retry-after": "1", "content-type": "application/json"},
    )


def start(arguments: Arguments, port: int) -> subprocess.Popen[bytes]:
    """
    Start the server; its output goes to the replica's log.

    A replica that is killed can't end its server: the kernel does it, by prctl(2)'s
    PR_SET_PDEATHSIG. setpriv asks for that between fork and exec, where a process with Ray's
    threads must not run Python.
    """
    options = [f"--set={override}" for override in [*arguments.overrides, f"server.port={port}"]]
    below = ["setpriv", "--pdeathsig", signal.SIGTERM.name.removeprefix("SIG")]
    return subprocess.Popen([*below, *arguments.command, "serve", arguments.profile, *options])


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def build(arguments: dict[str, Any]) -> serve.Application:
    """
    Build the application, for `serve run gemma_serve_ray:build` and a config's import_path.

    Raises:
        ValidationError: pydantic's; an argument is missing, unknown or no such value.
    """
    application: serve.Application = GemmaServe.bind(  # type: ignore[attr-defined]
        Arguments.model_validate(arguments)
    )
    return application
