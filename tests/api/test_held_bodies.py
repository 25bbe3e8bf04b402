"""The bodies of all requests together are bounded: 2,048 connections could hold gigabytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
from fastapi import FastAPI, Request

from gemma_serve.api.errors import install_error_handlers
from gemma_serve.api.held import HeldBytes
from gemma_serve.api.limits import LimitBody

BODY = b"x" * 600


def test_bodies_of_all_requests_are_bounded() -> None:
    """Beside one that is answered a second has no room, announced or in chunks; later it has."""
    asyncio.run(fill_and_go_on())


async def fill_and_go_on() -> None:
    """Hold one body, try a second, let the first go."""
    routes, answering, go_on = FastAPI(), asyncio.Event(), asyncio.Event()
    install_error_handlers(routes)

    @routes.post("/v1/slow")
    async def slow(request: Request) -> int:
        num_bytes = len(await request.body())
        answering.set()
        await go_on.wait()
        return num_bytes

    held = HeldBytes(1000)
    app = LimitBody(routes, max_bytes=1000, held=held)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://server"
    ) as client:
        first = asyncio.create_task(client.post("/v1/slow", content=BODY))
        await answering.wait()
        for content in (BODY, in_chunks(BODY)):
            refused = await client.post("/v1/slow", content=content)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "engine_overloaded"
            assert held.num_bytes == len(BODY)
        go_on.set()
        assert (await first).json() == 600
        assert (await client.post("/v1/slow", content=in_chunks(BODY))).json() == 600
    assert held.num_bytes == 0


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """The body without its length."""
    for at in range(0, len(body), 100):
        yield body[at : at + 100]
