"""Structured outputs that would take all time or memory: refused while other requests stream on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.api.kserve.refusals import COMPILER
from tests.servers import Server

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, INFER = "/v1/messages", "/v2/models/tiny/generate"
USER = {"role": "user", "content": "Hi"}
REFUSED_S = 15  # a bound that a busy machine keeps too; the tiny server compiles for 0.5 s at most
SEEN_S = 2.0
GOOD = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}


def doubling(levels: int) -> dict[str, Any]:
    """Each part twice the one below it: 2^levels alternatives when they are written out."""
    parts: dict[str, Any] = {"d0": {"type": "string", "maxLength": 9}}
    for level in range(1, levels + 1):
        below = {"$ref": f"#/$defs/d{level - 1}"}
        parts[f"d{level}"] = {"oneOf": [{"type": "array", "items": below, "minItems": 2}, below]}
    return {"$defs": parts, "$ref": f"#/$defs/d{levels}"}


def optional(count: int) -> dict[str, Any]:
    """An object of so many members, none of which it needs."""
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}}


# The engine would take seconds for each token of it.
SLOW = {"type": "string", "pattern": "(.{0,9999}){9999}"}
BOMBS: dict[str, dict[str, Any]] = {
    "itself": {"json": {"$ref": "#"}},
    "itself as text": {"json": '{"$ref": "#"}'},
    "endless rule": {"grammar": "root ::= root"},
    "nothing": {"regex": "[^\\s\\S]"},
    "counted twice": {"json": SLOW},
    "counted twice as regex": {"regex": "(.{0,9999}){9999}"},
    "open bracket": {"regex": "("},
    "no grammar": {"grammar": "root ::= ("},
}
# What takes time or not by xgrammar's version, and must not take the server's.
HEAVY: dict[str, dict[str, Any]] = {
    "minLength 10^9": {"json": {"type": "string", "minLength": 10**9}},
    "counted thrice": {"regex": "((a{1,99}b{1,99}){1,99}c){1,99}"},
    "maxLength 10^9": {"json": {"type": "string", "maxLength": 10**9}},
    "minItems 10^9": {"json": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9}},
    "nested plus": {"regex": "(a+)+b"},
    "doubling": {"json": doubling(25)},
    "5000 values": {"json": {"enum": [f"v{i}" for i in range(5000)]}},
    "1000 optional": {"json": optional(1000)},
    "alternatives": {"regex": "(" + "|".join("a" * i for i in range(1, 85)) + ")*"},
    "ambiguous": {"grammar": 'root ::= s\ns ::= s s | "a" | ""'},
}


@pytest.fixture(scope="module")
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client, after the first structured output, which starts the compiler."""
    with tiny_server.client() as client:
        assert _ask(client, {"json": GOOD}).status_code == 200
        yield client


def _ask(http: httpx.Client, structured: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"messages": [USER], "max_tokens": 30, "structured_outputs": structured}
    return http.post(CHAT, json=body | more)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bomb(http: httpx.Client, bomb: dict[str, Any]) -> None:
    """It is a 400 that says so, and the same one again costs nothing."""
    began_s = time.monotonic()
    answer = _ask(http, bomb)
    assert time.monotonic() - began_s < REFUSED_S
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["error"]["message"].startswith("The structured output of this request ")
    again = _ask(http, bomb)
    assert again.content == answer.content


@pytest.mark.parametrize("heavy", HEAVY.values(), ids=HEAVY)
def test_heavy(http: httpx.Client, heavy: dict[str, Any]) -> None:
    """It is served or refused in time, and a good one after it is served."""
    began_s = time.monotonic()
    answer = _ask(http, heavy, max_tokens=3)
    assert time.monotonic() - began_s < REFUSED_S
    assert answer.status_code in (200, 400), answer.text[:300]
    assert _ask(http, {"json": GOOD}).json()["choices"][0]["message"]["content"]


def test_why(http: httpx.Client) -> None:
    """The message says what is wrong: no answer, too slow, or not valid."""
    messages = {
        name: _ask(http, BOMBS[name]).json()["error"]["message"]
        for name in ("itself", "counted twice", "open bracket")
    }
    assert messages["itself"] == (
        "The structured output of this request allows no answer at all; let its recursion end."
    )
    assert "takes more than" in messages["counted twice"]
    assert "is not valid" in messages["open bracket"]
    assert "/" not in messages["open bracket"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_protocol(http: httpx.Client, stream: bool) -> None:
    """A schema that allows no answer is a 400 in each protocol's shape, also where one streams."""
    endless = {"$ref": "#"}
    named = {"type": "json_schema", "name": "a", "schema": endless}
    bodies = {
        CHAT: {"messages": [USER], "response_format": {"type": "json_schema"}},
        COMPLETIONS: {"prompt": "Hi", "structured_outputs": {"json": endless}},
        RESPONSES: {"input": "Hi", "text": {"format": named}, "store": False},
        MESSAGES: {
            "model": "tiny",
            "max_tokens": 5,
            "messages": [USER],
            "output_config": {"format": {"type": "json_schema", "schema": endless}},
        },
    }
    bodies[CHAT]["response_format"]["json_schema"] = {"name": "a", "schema": endless}
    for path, body in bodies.items():
        answer = http.post(path, json={**body, "stream": stream})
        if stream and path == RESPONSES:  # whose first event comes before the engine is asked
            assert "allows no answer" in answer.text
            assert "response.completed" not in answer.text
            continue
        assert answer.status_code == 400, (path, answer.text[:300])
        assert "allows no answer" in answer.json()["error"]["message"]


def test_tools(http: httpx.Client) -> None:
    """The schema of a tool that has to be called is compiled so too."""
    bomb = {"type": "object", "properties": {"a": SLOW}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": bomb}}
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        body = {"messages": [USER], "tools": [tool], "tool_choice": choice, "max_tokens": 5}
        answer = http.post(CHAT, json=body)
        assert answer.status_code == 400, answer.text[:300]
        assert "takes more than" in answer.json()["error"]["message"]


def test_structural_tag_is_not_compiled_while_it_is_parsed(http: httpx.Client) -> None:
    """vLLM would compile a structural tag in the request's model."""
    bomb = {"type": "json_schema", "json_schema": SLOW}
    body = {"messages": [USER], "response_format": {"type": "structural_tag", "format": bomb}}
    body["max_tokens"] = 5
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 400, answer.text[:300]
    assert "takes more than" in answer.json()["error"]["message"]


def test_others_stream_on(http: httpx.Client, tiny_server: Server) -> None:
    """While bombs arrive, probes answer at once and a stream goes on."""

    def throw(start: int) -> None:
        with tiny_server.client() as client:
            for number in range(start, start + 3):  # none of them compiled before
                answers.append(_ask(client, {"regex": f"(.{{0,9999}}){{{9000 + number}}}"}))

    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=throw, args=[start]) for start in (1, 10)]
    for thread in threads:
        thread.start()
    worst_s, chunks = 0.0, 0
    while any(thread.is_alive() for thread in threads):
        began_s = time.monotonic()
        assert http.get("/livez").status_code == 200
        worst_s = max(worst_s, time.monotonic() - began_s)
        body = {"messages": [USER], "max_tokens": 8, "stream": True}
        with http.stream("POST", CHAT, json=body) as stream:
            chunks += sum(line.startswith("data: {") for line in stream.iter_lines())
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [400] * 6
    assert worst_s < SEEN_S
    assert chunks > 0


def test_compiler_that_dies_is_replaced(http: httpx.Client, tiny_server: Server) -> None:
    """The next structured output starts another process."""
    [compiler] = _compilers(tiny_server)
    compiler.kill()
    compiler.wait(10)
    answer = _ask(http, {"regex": "(red|green) [0-9]{2}"})
    assert answer.status_code == 200, answer.text
    assert _compilers(tiny_server) != [compiler]


def _compilers(server: Server) -> list[psutil.Process]:
    below = psutil.Process(server.process.pid).children()
    return [process for process in below if COMPILER in process.cmdline()]


def test_choices_and_regexes_still_bind(http: httpx.Client) -> None:
    """What is compiled apart binds the answer as before."""
    for structured, words in (
        ({"choice": ["red", "green"]}, {"red", "green"}),
        ({"regex": "[ab]"}, {"a", "b"}),
        ({"grammar": 'root ::= "yes" | "no"'}, {"yes", "no"}),
    ):
        content = _ask(http, structured).json()["choices"][0]["message"]["content"]
        assert content in words
    content = _ask(http, {"json": GOOD}).json()["choices"][0]["message"]["content"]
    assert type(json.loads(content)["on"]) is bool
