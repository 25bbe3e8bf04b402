"""F13: ten times more requests in one second than the queue takes."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.machine import ahead_of_servers
from tests.faults.asked import KINDS, nonce_of, traced_body
from tests.faults.figures import Figures, figures, percentiles
from tests.faults.ledger import End, Entry, end_of_answer, end_of_stream, judged
from tests.faults.site import Scale, Site, site_of
from tests.reliability.trends import Check

BATCH = 10
QUEUE = 3 * BATCH  # the default
TIMES, WITHIN_S = 10, 1.0
REFUSED_S, IN_TESTS_S = 0.1, 5.0
NUM_TOKENS = 48
REJECTIONS = "gemma_serve_admission_rejections_total"


@dataclass(frozen=True)
class Answer:
    """A raw answer, with the times of its first byte and its last."""

    path: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes
    began_s: float
    first_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        """How long its client knew nothing."""
        return self.first_s - self.began_s

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of an answer that is no stream."""
        body: dict[str, Any] = json.loads(self.content)
        return body

    def events(self) -> list[dict[str, Any] | str]:
        """What a stream has sent; else the one body."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            return [self.body]
        lines = [line[6:] for line in self.content.decode().splitlines() if line[:6] == "data: "]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@dataclass(frozen=True)
class Request:
    """What is sent: to where, with which headers, and what."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    def as_bytes(self) -> bytes:
        """The request, after whose answer the connection ends."""
        content = json.dumps(self.body).encode()
        head = {
            "host": "tiny",
            "content-type": "application/json",
            "content-length": str(len(content)),
            "connection": "close",
            **self.headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {of}" for name, of in head.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def storm(url: str, requests: Sequence[Request], within_s: float = WITHIN_S) -> list[Answer]:
    """
    Send all of them in this time, one after the other, whatever becomes of those before.

    Over connections that are open by then, each read as soon as there is something: what is
    measured is the server's time, as far as two programs on one machine allow.
    """
    with ahead_of_servers():
        return uvloop.run(_storm(url, requests, within_s))


async def _storm(url: str, requests: Sequence[Request], within_s: float) -> list[Answer]:
    where = urlsplit(url)
    sent = [request.as_bytes() for request in requests]
    connections = [await asyncio.open_connection(where.hostname, where.port) for _ in requests]
    begin_s = time.monotonic()

    async def ask(at: int) -> tuple[bytes, float, float, float]:
        reader, writer = connections[at]
        await asyncio.sleep(begin_s + at * within_s / len(sent) - time.monotonic())
        began_s = time.monotonic()
        writer.write(sent[at])
        came = await reader.read(65_536)
        first_s = time.monotonic()
        came += await reader.read()
        ended_s = time.monotonic()
        writer.close()
        return came, began_s, first_s, ended_s

    found = await asyncio.gather(*map(ask, range(len(sent))))
    return [_answer(request.path, *each) for request, each in zip(requests, found, strict=True)]


def _answer(path: str, came: bytes, began_s: float, first_s: float, ended_s: float) -> Answer:
    response = http.client.HTTPResponse(_Came(came))  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(path, response.status, headers, response.read(), began_s, first_s, ended_s)


class _Came:
    """Bytes that came, as the socket that http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


# --- the fault


def more_than_the_queue(profile: Path, directory: Path, scale: Scale) -> Figures:
    """
    The excess is refused at once, with the time to come back; what was accepted is answered whole;
    nothing is a 500.
    """
    small = (f"engine.max_num_seqs={BATCH}", f"limits.max_queued_requests={QUEUE}")
    with site_of(profile, directory, *small) as site:
        before, rejected = site.finished(), site.value(REJECTIONS, reason="requests")
        requests = [_request(site, number) for number in range(TIMES * QUEUE)]
        answers = storm(site.url, requests)
        entries = [_entry(site, *both) for both in zip(requests, answers, strict=True)]
        site.join(entries)
        site.assert_at_rest()
        completed = sum(entry.end is End.COMPLETED for entry in entries)
        refused = [answer for answer in answers if answer.status != 200]
        assert completed == site.finished() - before == len(answers) - len(refused)
        assert len(refused) == site.value(REJECTIONS, reason="requests") - rejected
    assert completed >= QUEUE
    for answer in refused:
        assert answer.status == (529 if answer.path == "/v1/messages" else 503), answer
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    seconds = [answer.seconds for answer in refused]
    most_s = scale.most(REFUSED_S, IN_TESTS_S)
    return figures(
        entries,
        checks=[Check("s until the last refusal", max(seconds), most_s)],
        refused_s=percentiles(seconds),
        sent_within_s=round(max(answer.began_s for answer in answers) - answers[0].began_s, 2),
    )


def _request(site: Site, number: int) -> Request:
    paths, id_ = list(KINDS), f"F13-{number}"
    path, stream = paths[number % len(paths)], number // len(paths) % 2 == 0
    body = traced_body(path, NUM_TOKENS, nonce_of(id_), stream=stream)
    headers = {"x-request-id": id_, **site.server.headers}
    if stream and path.endswith("/generate"):
        path += "_stream"
    return Request(path, headers, body)


def _entry(site: Site, request: Request, answer: Answer) -> Entry:
    """The client's ledger of one request, which is held to its own prompt."""
    path, id_ = request.path.removesuffix("_stream"), request.headers["x-request-id"]
    events, is_stream = answer.events(), bool(request.body["stream"])
    if answer.status == 200 and is_stream:
        end, detail = end_of_stream(events)
    else:
        end, detail = end_of_answer(answer.status, answer.body)
    entry = Entry(path, is_stream, end, detail, id_, answer.began_s, answer.ended_s)
    return judged(entry, events, NUM_TOKENS, site.decode)
