"""Class L: the bytes of good requests, changed here and there; the same for the same seed."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.api.kserve.refusals import Witness
from tests.reliability.case import (
    ADDRESS,
    CHAT,
    COMPLETIONS,
    GENERATE,
    LEAKS,
    MESSAGES,
    RESPONSES,
    TOKENIZE,
)
from tests.reliability.sending import in_batches

# A changed length may leave the server waiting for a body that never comes.
PATIENCE_S = 2.0
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
INTERESTING = (
    *(b"\0", b"\xff", b"\r\n", b"\r\n\r\n", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\"),
    *(b"-1", b"0", b"1e400", b"NaN", b"null", b"true", b"9" * 40, b"\\ud800", b"\xed\xa0\x80"),
    *(b"<bos>", b"<end_of_turn>", b"../", b"%00", b"{{ 7*7 }}", b"A" * 2000),
)


@dataclass
class Mutated:
    """What became of the mutated requests."""

    sent: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    growth_mib: float = 0.0


def seeds() -> list[bytes]:
    """Good requests of every API, as they stand on the wire."""
    turn = {"role": "user", "content": "Rome is"}
    tool = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
    short = {"max_tokens": 2}
    bodies: dict[str, list[dict[str, object]]] = {
        CHAT: [
            {"messages": [turn], **more, **short}
            for more in (
                {},
                {"stream": True, "stream_options": {"include_usage": True}},
                {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 1, "n": 2},
                {"logprobs": True, "top_logprobs": 2, "stop": ["a", "b"]},
                {"tools": [tool], "tool_choice": "auto"},
                {"response_format": {"type": "json_object"}},
                {"logit_bias": {"5": 1}, "presence_penalty": 0.5, "frequency_penalty": 0.5},
            )
        ],
        COMPLETIONS: [
            {"prompt": prompt, **more, **short}
            for prompt in ("Rome is", ["a", "b"], [2, 300, 301])
            for more in ({}, {"stream": True}, {"echo": True, "logprobs": 1})
        ],
        RESPONSES: [
            {"input": "Rome is", "max_output_tokens": 2, "stream": s} for s in (True, False)
        ],
        MESSAGES: [
            {"model": "tiny", "messages": [turn], **more, **short}
            for more in ({}, {"stream": True}, {"system": "Be brief.", "stop_sequences": ["a"]})
        ],
        f"{MESSAGES}/count_tokens": [{"model": "tiny", "messages": [turn]}],
        TOKENIZE: [{"prompt": "Rome is"}, {"messages": [turn]}],
        "/detokenize": [{"tokens": [300, 301]}],
        GENERATE: [{"text_input": "Rome is", "max_new_tokens": 2}],
        f"{GENERATE}_stream": [{"text_input": "Rome is", "max_new_tokens": 2}],
        "/v2/models/tiny/infer": [
            {
                "id": "1",
                "inputs": [
                    {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Rome is"]},
                    {"name": "max_new_tokens", "datatype": "INT32", "shape": [1], "data": [2]},
                ],
                "outputs": [{"name": "text_output"}],
            }
        ],
    }
    posts = [_wire("POST", path, json.dumps(b).encode()) for path, of in bodies.items() for b in of]
    gets = ("/v1/models", "/v1/info", "/readyz", "/metrics", "/v2", "/v2/models/tiny/config")
    return posts + [_wire("GET", path, b"") for path in gets]


def _wire(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: tiny\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """`count` requests, each a seed with one to four changes; two thirds of them in the body."""
    draw = random.Random(seed)
    of = seeds()
    for number in range(count):
        request = of[number % len(of)]
        for _ in range(draw.randint(1, 4)):
            request = _changed(request, draw)
        yield request


def _changed(request: bytes, draw: random.Random) -> bytes:
    head, mark, body = request.partition(b"\r\n\r\n")
    if not body or draw.random() < 1 / 3:
        return _spoiled(head, draw) + mark + body
    body = _spoiled(body, draw)
    # Most often the length is told truly, so that the body is read to its end.
    if draw.random() < 0.9:
        head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head)
    return head + mark + body


def _spoiled(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.choice((1, 2, 4, 16)))
    match draw.randrange(6):
        case 0:  # a bit flips
            return (
                data[:at]
                + bytes([(data[at : at + 1] or b"\0")[0] ^ 1 << draw.randrange(8)])
                + data[at + 1 :]
            )
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:end] * draw.choice((1, 2, 50)) + data[end:]
        case 3:
            return data[:at] + draw.randbytes(end - at) + data[end:]
        case 4:
            return data[:at] + draw.choice(INTERESTING) + data[end:]
    return data[:at] + draw.choice(INTERESTING) + data[at:]


def send(witness: Witness, requests: Iterable[bytes]) -> Mutated:
    """Send them in batches; whatever they are, the answer is no 5xx, or the port closes."""
    found = Mutated()
    for batch in in_batches(witness, found, requests):
        asyncio.run(_send_batch(witness.server.base_url, batch, found))
    return found


async def _send_batch(base_url: str, batch: list[bytes], found: Mutated) -> None:
    where = urlsplit(base_url)

    async def one(request: bytes) -> None:
        answer = await _answer(where.hostname or "", where.port or 80, request)
        found.sent += 1
        status = STATUS.match(answer)
        word = status[1].decode() if status else ("closed" if not answer else "no HTTP")
        found.by_status[word] += 1
        if word == "no HTTP" or word.startswith("5") or _leaks(answer):
            found.faults.append(f"{request!r} got {answer[:300]!r}")

    await asyncio.gather(*(one(request) for request in batch))


def _leaks(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head[9:10] != b"4":
        return False
    text = body.decode(errors="replace")
    return any(leak in text for leak in LEAKS) or ADDRESS.search(text) is not None


async def _answer(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        writer.write(request)
        # The server closes where it was asked to; a mutation may have taken that away.
        while piece := await asyncio.wait_for(reader.read(65_536), PATIENCE_S):
            answer += piece
    except (TimeoutError, OSError):
        pass
    finally:
        writer.close()
    return answer
