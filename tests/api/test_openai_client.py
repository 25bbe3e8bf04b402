"""The official openai client, against a real server of the tiny model."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from tests.servers import Server

MESSAGES = [{"role": "user", "content": "Name three rivers."}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lamp",
            "description": "Switch the lamp.",
            "parameters": {
                "type": "object",
                "properties": {"on": {"type": "boolean"}},
                "required": ["on"],
                "additionalProperties": False,
            },
        },
    }
]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


@pytest.fixture
def client(tiny_server: Server) -> openai.OpenAI:
    """The client as a user makes it."""
    return openai.OpenAI(base_url=f"{tiny_server.base_url}/v1", api_key="none", max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    """The served name is listed, with the context length."""
    [model] = client.models.list().data
    assert model.id == "tiny"
    assert model.max_model_len == 4096


def test_chat(client: openai.OpenAI) -> None:
    """A chat is answered, with usage and a finish reason."""
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=12, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_streamed_chat_equals_the_whole_one(client: openai.OpenAI) -> None:
    """The pieces of a greedy stream add up to the greedy answer; usage comes last when asked."""
    whole = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=16, temperature=0
    )
    stream = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=16,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_async_client_with_many_streams(tiny_server: Server) -> None:
    """Sixteen concurrent streams of the async client all complete."""

    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        stream = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": f"Story {number}"}],
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        return [chunk async for chunk in stream][-1].usage.completion_tokens

    async def all_of_them() -> list[int]:
        base_url = f"{tiny_server.base_url}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
            return await asyncio.gather(*(one(client, number) for number in range(16)))

    assert asyncio.run(all_of_them()) == [20] * 16


def test_required_and_named_tools(client: openai.OpenAI) -> None:
    """tool_choice required and named give a call whose arguments fit the schema."""
    for choice in ("required", {"type": "function", "function": {"name": "lamp"}}):
        answer = client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            tools=TOOLS,
            tool_choice=choice,
            max_tokens=200,
            temperature=0,
        )
        [call] = answer.choices[0].message.tool_calls
        assert call.function.name == "lamp"
        assert type(json.loads(call.function.arguments)["on"]) is bool


def test_structured_output(client: openai.OpenAI) -> None:
    """A JSON schema binds even a model of random weights."""
    answer = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=100,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True},
        },
    )
    content = json.loads(answer.choices[0].message.content)
    assert content["colour"] in SCHEMA["properties"]["colour"]["enum"]


def test_logprobs_n_and_seed(client: openai.OpenAI) -> None:
    """n choices, logprobs of each token, and the same seed gives the same text."""
    ask = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "seed": 7}
    many = client.chat.completions.create(**ask, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2]
    tokens = many.choices[0].logprobs.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)

    once, again = (client.chat.completions.create(**ask).choices[0].message for _ in range(2))
    assert once.content == again.content


def test_stop_string(client: openai.OpenAI) -> None:
    """Generation ends before a stop string, which is not part of the answer."""
    ask = {"model": "tiny", "prompt": "The sea", "max_tokens": 30, "temperature": 0}
    text = client.completions.create(**ask).choices[0].text
    stop = text.split()[3]
    cut = client.completions.create(**ask, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == text[: text.index(stop)]


def test_completion_of_token_ids_has_one_bos(client: openai.OpenAI) -> None:
    """Raw text gets one BOS; token ids are taken as they are."""
    text = client.completions.create(
        model="tiny", prompt="Hello", max_tokens=1, extra_body={"return_token_ids": True}
    )
    ids = text.choices[0].prompt_token_ids
    assert ids.count(2) == 1
    assert ids[0] == 2

    exact = client.completions.create(
        model="tiny", prompt=ids, max_tokens=1, extra_body={"return_token_ids": True}
    )
    assert exact.choices[0].prompt_token_ids == ids


def test_chat_prompt_has_one_bos(client: openai.OpenAI) -> None:
    """A chat's prompt is Gemma's: one BOS, the turns, and the opened turn of the model."""
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=1, extra_body={"return_token_ids": True}
    )
    ids = answer.prompt_token_ids
    assert ids[:2] == [2, 105]
    assert ids.count(2) == 1
    assert ids.count(105) == 2
    assert ids.count(106) == 1


def test_responses_api(client: openai.OpenAI) -> None:
    """The Responses API answers, and streams to its last event."""
    answer = client.responses.create(model="tiny", input="Hi", max_output_tokens=6, temperature=0)
    assert answer.output_text
    assert answer.usage.output_tokens <= 6

    with client.responses.stream(
        model="tiny", input="Hi", max_output_tokens=6, temperature=0
    ) as stream:
        events = list(stream)
    # vLLM 0.32 says completed where OpenAI says incomplete; either ends the stream.
    assert events[-1].type in ("response.completed", "response.incomplete")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == answer.output_text


def test_cache_salt(client: openai.OpenAI) -> None:
    """A salt is taken; greedy answers with different salts are the same."""
    answers = {
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=6,
            temperature=0,
            extra_body={"cache_salt": salt},
        )
        .choices[0]
        .message.content
        for salt in ("one", "two")
    }
    assert len(answers) == 1


def test_embeddings_are_refused(client: openai.OpenAI) -> None:
    """Embeddings get a 404 that says what there is instead."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="tiny", input="x")
    assert caught.value.body["message"] == (
        "This server generates text with Gemma and has no embeddings; "
        "use /v1/chat/completions, /v1/responses or /v1/messages."
    )


def test_unknown_model(client: openai.OpenAI) -> None:
    """An unknown model is the client's NotFoundError, with OpenAI's code."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_too_long_a_prompt(client: openai.OpenAI) -> None:
    """A prompt beyond the context is a 400, streamed or not."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="4096"):
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "river " * 6000}],
                stream=stream,
            )
