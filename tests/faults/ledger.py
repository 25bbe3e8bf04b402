"""
Requests under load, and a ledger of how each of them ended: nothing may be lost.

A request is lost when its end can't be told from the answer: a success without a finish reason, a
stream that just stops, an error that is followed by `[DONE]`, an answer that never comes. So is one
whose connection breaks: only a server that is killed may leave its clients so.
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
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import httpx

from tests.faults.answers import CUT, Decode, told_by
from tests.faults.asked import KINDS, NUM_TOKENS, body_of, nonce_of, traced_body

ANSWER_S = 60.0
BOUND_S = 300.0  # of a load with a number of requests
SWITCH_S = 0.0002
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
    BROKEN = "broken_off"  # the connection broke, as its client knows
    LOST = "lost"


# What a client that tries again sends once more: nothing of an answer has come.
RETRIED = (End.REFUSED, End.UNREACHABLE)
RETRY_S = 0.5  # doubled each time, as OpenAI's and Anthropic's clients do
Events = Sequence[dict[str, Any] | str]


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
    text: str | None = None  # of a traced answer that is whole
    wrong: str = ""  # what is wrong with it although it is whole
    tries: int = 1

    @property
    def is_traced(self) -> bool:
        """Whether its text can be had again."""
        return self.text is not None

    def was_open(self, at_s: float) -> bool:
        """Whether its client waited for it at that moment."""
        return self.began_s <= at_s < self.ended_s


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
        return [entry for entry in self.entries if entry.end in (End.LOST, End.BROKEN)]

    def wrong(self) -> list[Entry]:
        """Those that are whole and yet not what was asked for."""
        return [entry for entry in self.entries if entry.wrong]

    def summary(self) -> dict[str, int]:
        """How many were sent, and how many ended in each way."""
        ends = collections.Counter(entry.end.value for entry in self.entries)
        return {"sent": self.sent, **ends}


# --- how an answer ended


def end_of_stream(events: Events) -> tuple[End, str]:
    """The end of a stream that was closed in order, by its events: JSON, or `[DONE]`."""
    last = events[-1] if events else {}
    if isinstance(last, dict) and (code := _error_code(last)):
        return End.FAILED, code
    if any(isinstance(event, dict) and _error_code(event) for event in events):
        return End.LOST, "something follows the error"
    reasons = reasons_of(events)
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


def reasons_of(events: Events) -> set[str]:
    """All finish reasons of an answer: the events of a stream, or its one body."""
    return {reason for event in events if isinstance(event, dict) for reason in _reasons(event)}


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
        num_tokens: The length of answers; what stands there when a request is sent.
        kinds: The paths that are asked, in turn.
        headers: Sent with each request; what stands there at that moment.
        decode: The model's tokenizer. With it each request has a prompt of its own, and answers are
            held to it (`answers`).
        answer_s: How long a client waits for the next piece of its answer.
        pause_s: What a client does nothing for between two requests.
        retries: How often a client asks again that got no answer.
    """

    base_url: str
    num_clients: int
    name: str = "load"
    num_requests: int = 0
    num_tokens: int = NUM_TOKENS
    kinds: Sequence[str] = tuple(KINDS)
    headers: Mapping[str, str] = field(default_factory=dict)
    decode: Decode | None = None
    answer_s: float = ANSWER_S
    pause_s: float = 0.0
    retries: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    stopping: threading.Event = field(default_factory=threading.Event)
    open: int = 0
    begun: int = 0  # of those, streams that had an event
    ended: int = 0
    abandon: Callable[[], object] = lambda: None

    def wait_for(self, num_requests: int) -> None:
        """Wait, with a bound, until so many were sent."""
        deadline_s = time.monotonic() + BOUND_S
        while self.ledger.sent < num_requests:
            assert time.monotonic() < deadline_s, self.ledger.summary()
            time.sleep(0.1)

    async def run(self) -> None:
        """Send until told to stop, or until nobody is there any more."""
        clients, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert clients is not None
        self.abandon = lambda: loop.is_closed() or loop.call_soon_threadsafe(clients.cancel)
        # A request on a connection that is being closed is read by nobody: it was never sent.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=self.base_url, timeout=self.answer_s, limits=limits
        ) as client:
            await asyncio.gather(*(self._client(client, i) for i in range(self.num_clients)))

    async def _client(self, client: httpx.AsyncClient, index: int) -> None:
        while not self.stopping.is_set() and not 0 < self.num_requests <= self.ledger.sent:
            path, stream = self.kinds[index % len(self.kinds)], index // len(self.kinds) % 2 == 0
            entry = await self._send(client, path, stream=stream)
            self.ledger.entries.append(entry)
            self.ended += 1
            if entry.end is End.UNREACHABLE:
                return
            await asyncio.sleep(self.pause_s if entry.end is End.COMPLETED else 0.2)
            index += self.num_clients

    async def _send(self, client: httpx.AsyncClient, path: str, *, stream: bool) -> Entry:
        id_, began_s = f"{self.name}-{self.ledger.sent}", time.monotonic()
        self.ledger.sent += 1
        self.open += 1
        num_tokens = self.num_tokens
        times_s: list[float] = []
        if self.decode is None:
            body = body_of(path, num_tokens, stream=stream)
        else:
            body = traced_body(path, num_tokens, nonce_of(id_), stream=stream)
        headers = {**self.headers, "x-request-id": id_}

        def on_event() -> None:
            self.begun += not times_s
            times_s.append(time.monotonic())

        for tries in range(1, self.retries + 2):
            end, detail, events = await _ask(client, path, body, headers, on_event)
            if end not in RETRIED or tries > self.retries:
                break
            await asyncio.sleep(RETRY_S * 2 ** (tries - 1))
        self.open -= 1
        self.begun -= bool(times_s)
        ttft_s = times_s[0] - began_s if times_s else None
        ended_s = time.monotonic()
        entry = Entry(path, stream, end, detail, id_, began_s, ended_s, ttft_s, tries=tries)
        return judged(entry, events, num_tokens, self.decode) if self.decode else entry


def judged(entry: Entry, events: Events, num_tokens: int, decode: Decode) -> Entry:
    """The entry of a traced request, and what is wrong with its answer where that is whole."""
    if entry.end is not End.COMPLETED:
        return entry
    told, cut = told_by(events), bool(reasons_of(events) & CUT)
    wrong = told.faults(entry.path, nonce_of(entry.id), num_tokens, decode, cut=cut)
    return replace(entry, text=told.text, wrong=wrong)


async def _ask(
    client: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
    on_event: Callable[[], None],
) -> tuple[End, str, Events]:
    """How a request ended, why, and the events of its answer: one, where it is no stream."""
    if body["stream"] and path.endswith("/generate"):
        path += "_stream"
    try:
        async with client.stream("POST", path, json=body, headers=headers) as answer:
            if answer.headers["content-type"].startswith("application/json"):
                whole = json.loads(await answer.aread())
                return *end_of_answer(answer.status_code, whole), [whole]
            events = []
            async for line in answer.aiter_lines():
                if line[:6] == DATA:
                    events.append(_parsed(line[6:]))
                    on_event()
            return *end_of_stream(events), events
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return End.UNREACHABLE, type(error).__name__, ()
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
        return End.BROKEN, f"{type(error).__name__}: {error}", ()
    except (httpx.HTTPError, ValueError) as error:
        return End.LOST, f"{type(error).__name__}: {error}", ()


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
    thread = threading.Thread(target=_run, args=(load,))
    # At Python's own 5 ms each of the clients' reads would wait that long for a test that computes:
    # together they stood still for seconds, with connections on which they had asked nothing yet.
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread.start()
    try:
        yield load
        if load.num_requests:
            thread.join(BOUND_S)
    except BaseException:
        load.abandon()  # what went wrong is known
        raise
    finally:
        load.stopping.set()
        thread.join(2 * load.answer_s)
        sys.setswitchinterval(interval_s)
    assert not thread.is_alive(), "requests without an end"
    assert load.ended == load.ledger.sent, load.ledger.summary()


def _run(load: Load) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(load.run())
