"""The official anthropic client, against a real server of the tiny model."""

from __future__ import annotations

import anthropic
import pytest

from tests.servers import Server

MESSAGES = [{"role": "user", "content": "Name three rivers."}]


@pytest.fixture
def client(tiny_server: Server) -> anthropic.Anthropic:
    """The client as a user makes it."""
    return anthropic.Anthropic(base_url=tiny_server.base_url, api_key="none", max_retries=0)


def test_message(client: anthropic.Anthropic) -> None:
    """A message is answered, with usage and a stop reason."""
    answer = client.messages.create(model="tiny", max_tokens=8, messages=MESSAGES)
    assert answer.role == "assistant"
    assert answer.content[0].text
    assert 1 <= answer.usage.output_tokens <= 8
    assert answer.stop_reason in ("max_tokens", "end_turn")


def test_stream(client: anthropic.Anthropic) -> None:
    """The streamed text is the whole answer's."""
    greedy = {"temperature": 0}
    ask = {"model": "tiny", "max_tokens": 12, "messages": MESSAGES, "extra_body": greedy}
    whole = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_count_tokens(client: anthropic.Anthropic) -> None:
    """count_tokens says what a message will be charged for, system prompt included."""
    ask = {"model": "tiny", "messages": MESSAGES, "system": "Answer in one line."}
    counted = client.messages.count_tokens(**ask).input_tokens
    assert counted == client.messages.create(**ask, max_tokens=1).usage.input_tokens
    assert counted > client.messages.count_tokens(model="tiny", messages=MESSAGES).input_tokens


def test_errors_are_anthropics(client: anthropic.Anthropic) -> None:
    """Refusals have Anthropic's shape and type."""
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="claude", max_tokens=4, messages=MESSAGES)
    assert unknown.value.body["type"] == "error"
    assert unknown.value.body["error"]["type"] == "not_found_error"

    with pytest.raises(anthropic.BadRequestError) as empty:
        client.messages.create(model="tiny", max_tokens=0, messages=MESSAGES)
    assert empty.value.body["error"]["type"] == "invalid_request_error"
