"""Sends recorded requests, each over a connection of its own, and reads the whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from gemma_serve.errors import GemmaServeError
from gemma_serve.triton_check.golden import Request

CONNECT_S = 5.0
MAX_ANSWER_BYTES = 32 * 2**20
UNREACHABLE = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class UnreachableError(GemmaServeError):
    """No server answers at the address."""

    exit_code = 3


@dataclass(frozen=True)
class Target:
    """The server, and how it is asked."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    concurrency: int = 1

    def unreachable(self, reason: str) -> UnreachableError:
        """Nothing was answered at all."""
        return UnreachableError(
            f"No answer from {self.url} ({reason}); start the server, or name another with --url."
        )


@dataclass(frozen=True)
class Answer:
    """A whole answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Failure:
    """No answer, or no whole one."""

    reason: str
    reachable: bool = True

    def __str__(self) -> str:
        return f"{'no whole answer' if self.reachable else 'could not be sent'} ({self.reason})"


async def send_all(
    requests: Sequence[Request], target: Target, on_answer: Callable[[int, Answer | Failure], bool]
) -> None:
    """
    Send requests in their order, as many at a time as the target says.

    Args:
        on_answer: Called with a request's index as soon as its answer is complete; returns whether
            more should be sent.
    """
    waiting = iter(enumerate(requests))

    async def work(client: httpx.AsyncClient) -> None:
        for index, request in waiting:
            answer = await _send(client, request, target)
            if not on_answer(index, answer):
                # The other workers take from the same iterator.
                for _ in waiting:
                    pass

    client = httpx.AsyncClient(
        timeout=httpx.Timeout(target.timeout_s, connect=CONNECT_S),
        # A connection that the server closes between two requests would lose the second.
        limits=httpx.Limits(max_connections=target.concurrency, max_keepalive_connections=0),
    )
    async with client, asyncio.TaskGroup() as workers:
        for _ in range(target.concurrency):
            workers.create_task(work(client))


async def _send(client: httpx.AsyncClient, request: Request, target: Target) -> Answer | Failure:
    body = bytearray()
    try:
        async with client.stream(
            request.method,
            target.url.rstrip("/") + request.path,
            content=request.content(),
            headers=request.sent_headers() | dict(target.headers),
        ) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return Failure(f"more than {MAX_ANSWER_BYTES} bytes")
    except UNREACHABLE as error:
        return Failure(type(error).__name__, reachable=False)
    except httpx.HTTPError as error:
        return Failure(type(error).__name__)
    return Answer(response.status_code, dict(response.headers), bytes(body))
