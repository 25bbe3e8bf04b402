"""The attack suite through HTTP: no text of a client becomes a token of the template's."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.chat.attacks import ATTACKS, Attack, harmless
from tests.servers import Server
from tests.tiny_gemma import BOS, CONTROL_TOKENS

CHAT = "/v1/chat/completions"
RENDER = "/v1/chat/completions/render"
CONTEXT_TOKENS = 4096
# Thousands of control tokens, which as text are many more tokens than the context.
LONG = ("repeated", "repeated with text", "brackets", "half, repeated")
NAMES = ("forged model turn", "many bos", "image, whole", "glued", "across parts")
HANDFUL = [attack for attack in ATTACKS if attack.name in NAMES]


@pytest.fixture
def http(tiny_server: Server) -> httpx.Client:
    """A plain HTTP client."""
    return tiny_server.client()


def _chat(attack: Attack) -> dict[str, Any]:
    tools = {"tools": attack.tools, "tool_choice": "auto"} if attack.tools else {}
    return {"messages": attack.messages, **tools}


def _rendered(http: httpx.Client, body: dict[str, Any]) -> list[int]:
    answer = http.post(RENDER, json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["token_ids"])


def _control(ids: list[int]) -> list[int]:
    """The control tokens of the tiny model's vocabulary have its first ids."""
    return [id_ for id_ in ids if id_ < len(CONTROL_TOKENS)]


@pytest.mark.parametrize(
    "attack", [attack for attack in ATTACKS if attack.name not in LONG], ids=lambda a: a.name
)
def test_chat(http: httpx.Client, attack: Attack) -> None:
    """A chat's control tokens are those of the same chat with harmless words; one is the BOS."""
    control = _control(_rendered(http, _chat(attack)))
    assert control == _control(_rendered(http, harmless(_chat(attack))))
    assert control.count(BOS) == 1
    assert control[0] == BOS


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.name in LONG], ids=lambda a: a.name)
def test_longer_than_the_context(http: httpx.Client, attack: Attack) -> None:
    """Thousands of control tokens are counted as the text they are, and refused; a few are not."""
    answer = http.post(CHAT, json=_chat(attack) | {"max_tokens": 1})
    assert answer.status_code == 400
    assert f"context length is {CONTEXT_TOKENS} tokens" in answer.json()["error"]["message"]

    [message] = attack.messages
    some = Attack(attack.name, [message | {"content": message["content"][:2_000]}])
    assert _control(_rendered(http, _chat(some))) == _control(
        _rendered(http, harmless(_chat(some)))
    )


@pytest.mark.parametrize("attack", HANDFUL, ids=lambda attack: attack.name)
def test_completion(http: httpx.Client, attack: Attack) -> None:
    """The engine gets what was rendered, and answers it."""
    answer = http.post(CHAT, json=_chat(attack) | {"max_tokens": 2, "return_token_ids": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prompt_token_ids"] == _rendered(http, _chat(attack))
    assert answer.json()["usage"]["completion_tokens"] >= 1


@pytest.mark.parametrize("attack", HANDFUL, ids=lambda attack: attack.name)
def test_responses(http: httpx.Client, attack: Attack) -> None:
    """The Responses API gives the engine the same token ids as the chat."""
    body = {"input": _as_input(attack), "max_output_tokens": 1, "enable_response_messages": True}
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    [given] = answer.json()["input_messages"]
    assert given["tokens"] == _rendered(http, _chat(attack))


def _as_input(attack: Attack) -> list[dict[str, Any]]:
    [message] = attack.messages
    if isinstance(message["content"], str):
        return [message]
    return [message | {"content": [p | {"type": "input_text"} for p in message["content"]]}]


@pytest.mark.parametrize("attack", HANDFUL, ids=lambda attack: attack.name)
def test_messages(http: httpx.Client, attack: Attack) -> None:
    """Anthropic's messages get as many tokens as the chat, whose control tokens are checked."""
    body = {"model": "tiny", "messages": attack.messages, "max_tokens": 1}
    answer = http.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["input_tokens"] == len(_rendered(http, _chat(attack)))
