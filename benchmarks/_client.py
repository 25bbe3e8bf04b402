"""
The load: waves of streaming chats from one asyncio process that does as little as it can.

Bytes are kept as they come and parsed when the wave is over, so that the client's CPU time stays
small beside the server's on a machine that they share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import uvloop

HOST = "127.0.0.1"
LAST_CHUNK = b"\r\n0\r\n\r\n"
TIMEOUT_S = 300.0
# Common English words, so that every prompt is about as many tokens as its neighbour.
WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line
"""
WORDS_PER_PROMPT = 24


@dataclass(frozen=True)
class Wave:
    """What one wave of concurrent chats did, by the usage that the server reports."""

    seconds: float
    requests: int
    prompt_tokens: int
    output_tokens: int
    events: int
    received_bytes: int
    client_cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens by the time from the first request's first byte to the last one's end."""
        return self.output_tokens / self.seconds


def prompts(count: int, seed: str) -> list[str]:
    """Distinct prompts of equal word count; the same seed gives the same ones."""
    chosen, words = random.Random(seed), WORDS.split()
    return [
        f"Tell a story with these words: {' '.join(chosen.choices(words, k=WORDS_PER_PROMPT))}."
        for _ in range(count)
    ]


def chat_body(model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """A greedy streaming chat of exactly `max_tokens` output tokens."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def run_wave(port: int, bodies: Sequence[dict[str, Any]]) -> Wave:
    """
    Send every chat at once, each on a connection of its own, and wait for the last one's end.

    Raises:
        RuntimeError: an answer is no 200, breaks off, or has another length than was asked for.
    """
    wave: Wave = uvloop.run(_wave(port, bodies))
    return wave


async def _wave(port: int, bodies: Sequence[dict[str, Any]]) -> Wave:
    loop = asyncio.get_running_loop()
    streams = [Stream(_request(port, body), loop) for body in bodies]
    for stream in streams:
        await loop.create_connection(lambda stream=stream: stream, HOST, port)  # type: ignore[misc]
    gc.collect()
    gc.freeze()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    for stream in streams:
        stream.send()
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(stream.ended for stream in streams))
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    gc.unfreeze()
    usages = [stream.usage() for stream in streams]
    _check(bodies, usages)
    return Wave(
        seconds=seconds,
        requests=len(streams),
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        output_tokens=sum(usage["completion_tokens"] for usage in usages),
        events=sum(stream.received.count(b"data: ") for stream in streams),
        received_bytes=sum(len(stream.received) for stream in streams),
        client_cpu_s=cpu_s,
    )


def _check(bodies: Sequence[dict[str, Any]], usages: Sequence[dict[str, Any]]) -> None:
    for body, usage in zip(bodies, usages, strict=True):
        if usage["completion_tokens"] != body["max_tokens"]:
            raise RuntimeError(f"asked for {body['max_tokens']} tokens, the usage says {usage}")


def _request(port: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Stream(asyncio.Protocol):
    """One connection, one request, and the bytes of its answer."""

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.received = bytearray()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection for `send`."""
        # uvloop's transport has the methods and not the base class.
        self.transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Write the request in one piece."""
        assert self.transport is not None
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes; the answer ends with HTTP's empty chunk."""
        self.received += data
        if self.received.endswith(LAST_CHUNK) and not self.ended.done():
            self.ended.set_result(None)
            assert self.transport is not None
            self.transport.close()
        elif not self.received.startswith(b"HTTP/1.1 200"[: len(self.received)]):
            self._fail(f"the server answered {bytes(self.received[:400])!r}")

    def connection_lost(self, _error: Exception | None) -> None:
        """An end before the empty chunk is a failure."""
        self._fail("the server closed the connection in the middle of an answer")

    def _fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(reason))

    def usage(self) -> dict[str, Any]:
        """The usage in the last event before [DONE]."""
        start = self.received.rfind(b"data: {") + len(b"data: ")
        event = json.loads(self.received[start : self.received.index(b"\n", start)])
        usage: dict[str, Any] = event["usage"]
        return usage
