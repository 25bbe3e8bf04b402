"""
Requests under load, and a ledger of how each of them ended: nothing may be lost.

A request is lost when its end can't be told from the answer: a success without a finish reason, a
stream that just stops, an error that is followed by `[DONE]`, an answer that never comes.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

ANSWER_S = 60.0
BOUND_S = 300.0  # of a load with a number of requests
NUM_TOKENS = 150
SWITCH_S = 0.0002
CHAT = {"messages": [{"role": "user", "content": "Tell me a long story."}]}
# Path -> body of requests that run for a while; each is sent as a stream and as a whole.
KINDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT | {"ignore_eos": True},
    "/v1/completions": {"prompt": "The sea", "ignore_eos": True},
    "/v1/messages": CHAT | {"model": "tiny"},
    "/v1/responses": {"input": "The sea"},
    "/v2/models/tiny/generate": {"text_input": "The sea"},
}
# How each API calls the length of its answer, where it is not `max_tokens`.
LENGTHS = {"/v1/responses": "max_output_tokens", "/v2/models/tiny/generate": "max_new_tokens"}
FINISHED = {
    *("stop", "length", "tool_calls"),  # OpenAI
    *("end_turn", "max_tokens", "stop_sequence", "tool_use"),  # Anthropic
    *("completed", "incomplete"),  # Responses
}


class End(StrEnum):
    """How a request ended, as its client sees it."""

    COMPLETED = "completed"
    REFUSED = "refused"  # an error instead of an answer
    FAILED = "failed_explicit"  # an error after the first events
    LEFT = "client_gone"
    UNREACHABLE = "never_connected"
    LOST = "lost"


@dataclass(frozen=True)
class Entry:
    """One request of the ledger."""

    path: str
    stream: bool
    end: End
    detail: str = ""
    id: str = ""  # its x-request-id
    began_s: float = 0.0
    ended_s: float = 0.0
    ttft_s: float | None = None  # of a stream


@dataclass
class Ledger:
    """All requests that were sent."""

    sent: int = 0
    entries: list[Entry] = field(default_factory=list)

    def count(self, end: End) -> int:
        """Requests that ended so."""
        return sum(entry.end is end for entry in self.entries)

    def lost(self) -> list[Entry]:
        """Those that a client can't tell the end of."""
        return [entry for entry in self.entries if entry.end is End.LOST]

    def summary(self) -> dict[str, int]:
        """How many were sent, and how many ended in each way."""
        ends = collections.Counter(entry.end.value for entry in self.entries)
        return {"sent": self.sent, **ends}


# --- how an answer ended


def end_of_stream(events: Sequence[dict[str, Any] | str]) -> tuple[End, str]:
    """The end of a stream that was closed in order, by its events: JSON, or `[DONE]`."""
    last = events[-1] if events else {}
    if isinstance(last, dict) and (code := _error_code(last)):
        return End.FAILED, code
    if any(isinstance(event, dict) and _error_code(event) for event in events):
        return End.LOST, "something follows the error"
    reasons = {reason for event in events if isinstance(event, dict) for reason in _reasons(event)}
    if not reasons <= FINISHED:
        return End.LOST, f"finish reasons {sorted(reasons)}"
    if isinstance(last, dict) and "text_output" in last:
        return End.COMPLETED, "kserve"  # where the end of the stream is the end
    is_over = last == "[DONE]" or last.get("type") in ("message_stop", "response.completed")
    if is_over and reasons:
        return End.COMPLETED, ""
    return End.LOST, f"{len(events)} events, the last {str(last)[:200]}"


def end_of_answer(status: int, body: dict[str, Any]) -> tuple[End, str]:
    """The end of an answer in one piece."""
    if status != 200:
        code = _error_code(body)
        return (End.REFUSED, code) if code else (End.LOST, f"{status} without an error")
    reasons = _reasons(body)
    if "text_output" in body or (reasons and reasons <= FINISHED):
        return End.COMPLETED, ""
    return End.LOST, f"finish reasons {sorted(reasons)}"


def _error_code(event: dict[str, Any]) -> str:
    """What kind of error this says; nothing if it says none."""
    if event.get("type") == "error":
        error = event.get("error") or event
        return str(error.get("code") or error.get("type"))
    error = event.get("error")
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or "error")
    return "error" if error else ""


def _reasons(event: dict[str, Any]) -> set[str]:
    """The finish reasons that an event or a body gives."""
    response = event.get("response") if event.get("type") == "response.completed" else event
    found = [choice.get("finish_reason") for choice in event.get("choices") or ()]
    delta = event.get("delta")  # text, in the Responses API
    found.append(delta.get("stop_reason") if isinstance(delta, dict) else None)
    found += [event.get("stop_reason"), (response or {}).get("status")]
    return {str(reason) for reason in found if reason}


# --- the clients


@dataclass
class Load:
    """
    Clients in a thread of their own, each sending one request after the other.

    Args:
        name: What the requests' ids begin with.
        num_requests: So many in all; 0 is until told to stop.
        kinds: The paths that are asked, in turn.
        headers: Sent with each request; what stands there at that moment.
    """

    base_url: str
    num_clients: int
    name: str = "load"
    num_requests: int = 0
    num_tokens: int = NUM_TOKENS
    kinds: Sequence[str] = tuple(KINDS)
    headers: Mapping[str, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    stopping: threading.Event = field(default_factory=threading.Event)
    open: int = 0

    async def run(self) -> None:
        """Send until told to stop, or until nobody is there any more."""
        # A request on a connection that is being closed is read by nobody: it was never sent.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=self.base_url, timeout=ANSWER_S, limits=limits
        ) as client:
            await asyncio.gather(*(self._client(client, i) for i in range(self.num_clients)))

    async def _client(self, client: httpx.AsyncClient, index: int) -> None:
        while not self.stopping.is_set() and not 0 < self.num_requests <= self.ledger.sent:
            path, stream = self.kinds[index % len(self.kinds)], index // len(self.kinds) % 2 == 0
            entry = await self._send(client, path, stream)
            self.ledger.entries.append(entry)
            if entry.end is End.UNREACHABLE:
                return
            if entry.end is not End.COMPLETED:
                await asyncio.sleep(0.2)
            index += self.num_clients

    async def _send(self, client: httpx.AsyncClient, path: str, stream: bool) -> Entry:
        id_, began_s = f"{self.name}-{self.ledger.sent}", time.monotonic()
        self.ledger.sent += 1
        self.open += 1
        body = body_of(path, self.num_tokens) | {"stream": stream}
        times_s: list[float] = []
        headers = {**self.headers, "x-request-id": id_}
        end, detail = await _ask(
            client, path, body, headers, lambda: times_s.append(time.monotonic())
        )
        self.open -= 1
        ttft_s = times_s[0] - began_s if times_s else None
        return Entry(path, stream, end, detail, id_, began_s, time.monotonic(), ttft_s)


def body_of(path: str, num_tokens: int) -> dict[str, Any]:
    """A request of this API for an answer of so many tokens."""
    return KINDS[path] | {LENGTHS.get(path, "max_tokens"): num_tokens}


async def _ask(
    client: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
    on_event: Callable[[], None],
) -> tuple[End, str]:
    if body["stream"] and path.endswith("/generate"):
        path += "_stream"
    try:
        async with client.stream("POST", path, json=body, headers=headers) as answer:
            if answer.headers["content-type"].startswith("application/json"):
                return end_of_answer(answer.status_code, json.loads(await answer.aread()))
            events = []
            async for line in answer.aiter_lines():
                if line[:6] == DATA:
                    events.append(_parsed(line[6:]))
                    on_event()
            return end_of_stream(events)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return End.UNREACHABLE, type(error).__name__
    except (httpx.HTTPError, ValueError) as error:
        return End.LOST, f"{type(error).__name__}: {error}"


DATA = "data: "


def _parsed(data: str) -> dict[str, Any] | str:
    if data == "[DONE]":
        return data
    event: dict[str, Any] = json.loads(data)
    return event


@contextlib.contextmanager
def under_load(base_url: str, num_clients: int, **options: Any) -> Iterator[Load]:
    """Clients at work for the length of a with block; at its end every request has its end."""
    load = Load(base_url, num_clients, **options)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()))
    # At Python's own 5 ms each of the clients' reads would wait that long for a test that computes:
    # together they stood still for seconds, with connections on which they had asked nothing yet.
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread.start()
    try:
        yield load
        if load.num_requests:
            thread.join(BOUND_S)
    finally:
        load.stopping.set()
        thread.join(2 * ANSWER_S)
        sys.setswitchinterval(interval_s)
    assert not thread.is_alive(), "requests without an end"
