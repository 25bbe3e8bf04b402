"""What the harness adds to llama-cpp-python's server, around an ASGI app that stands for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.servers import llamacpp_server
from benchmarks.servers.llamacpp_server import Additions

CHUNKS = [b'data: {"choices": [{"text": "a"}]}\n\n', b"data: [DONE]\n\n"]


class App:
    """Streams two chunks; remembers the body, and what a thread of the request would see."""

    def __init__(self) -> None:
        self.body = b""
        self.asked = llamacpp_server.Asked()

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        self.body = (await receive())["body"]
        self.asked = await asyncio.to_thread(llamacpp_server._asked.get)
        self.asked.prompt_tokens, self.asked.completion_tokens = 7, 3
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in CHUNKS:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


def answer(app: App, body: bytes, pieces: int = 1) -> bytes:
    """Post a body, in so many pieces, and return the answer's bytes."""
    size = -(-len(body) // pieces)
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    scope = {"type": "http", "method": "POST"}
    asyncio.run(Additions(app)(scope, receive, send))
    return b"".join(sent)


def test_usage_comes_before_done_where_asked() -> None:
    """A stream asked for its usage has the counts of its own generation before [DONE]."""
    body = json.dumps({"stream": True, "stream_options": {"include_usage": True}}).encode()

    events = answer(App(), body).split(b"\n\n")

    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert json.loads(events[1].removeprefix(b"data: ")) == {"choices": [], "usage": usage}
    assert events[2] == b"data: [DONE]"


def test_without_asking_nothing_is_added() -> None:
    """A request that asks for nothing is answered byte for byte, and stops where it wants."""
    app = App()

    assert answer(app, b'{"stream": true}') == b"".join(CHUNKS)
    assert not app.asked.ignore_eos


def test_body_in_pieces_reaches_the_server_whole() -> None:
    """The body is read once by us and once by the server, and ignore_eos is known where it runs."""
    app, body = App(), b'{"ignore_eos": true, "prompt": "a long one"}'

    answer(app, body, pieces=5)

    assert app.body == body
    assert app.asked.ignore_eos


def test_body_that_is_no_json_is_the_servers_to_refuse() -> None:
    """What cannot be read is passed on."""
    app = App()

    answer(app, b"[1, 2")

    assert app.body == b"[1, 2"
