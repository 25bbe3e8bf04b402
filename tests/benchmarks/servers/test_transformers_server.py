"""The transformers server, a real process on the tiny model, through OpenAI's own client."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.servers import Server, parse_target, started
from benchmarks.servers.transformers_model import Detokenizer

pytestmark = pytest.mark.engine  # it measures who comes first, and shares its cores with nobody
PROMPT = "The assignment statement"


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[Server]:
    """The target `transformers:DIRECTORY`, started."""
    loop = asyncio.new_event_loop()
    context = started(parse_target(f"transformers:{tiny_model}"))
    yield loop.run_until_complete(context.__aenter__())
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    """OpenAI's client on it."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60, max_retries=0)


def events(server: Server, route: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, [DONE] checked and left out."""
    asked = {"temperature": 0, "stream": True, "return_token_ids": True} | body
    answer = httpx.post(f"{server.url}{route}", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    *told, done = [event.removeprefix("data: ") for event in answer.text.strip().split("\n\n")]
    assert done == "[DONE]"
    return [json.loads(event) for event in told]


def ids_of(told: list[dict[str, Any]]) -> list[int]:
    """The token ids of all events."""
    return [number for event in told for c in event["choices"] for number in c["token_ids"]]


def test_completion_is_what_transformers_generates(
    client: openai.OpenAI, server: Server, tiny_model: Path
) -> None:
    """Greedy text and ids are those of a plain call of generate, one event a token."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    told = model.generate(**inputs, do_sample=False, max_new_tokens=12, min_new_tokens=12)
    expected = told[0, inputs["input_ids"].shape[1] :].tolist()

    asked = {"prompt": PROMPT, "max_tokens": 12, "ignore_eos": True}
    streamed = events(server, "/v1/completions", asked)
    whole = client.completions.create(
        model=server.model,
        prompt=PROMPT,
        max_tokens=12,
        temperature=0,
        extra_body={"ignore_eos": True},
    )

    assert ids_of(streamed) == expected
    # One event a token, and one with the finish reason.
    assert len(streamed) == 12 + 1
    assert "".join(event["choices"][0]["text"] for event in streamed) == whole.choices[0].text
    assert whole.choices[0].text == tokenizer.decode(expected)


def test_token_ids_are_taken_as_they_are(server: Server, tiny_model: Path) -> None:
    """A prompt of ids is the prompt that its text would be, nothing put before it."""
    ids = AutoTokenizer.from_pretrained(tiny_model)(PROMPT)["input_ids"]

    by_ids, by_text = (
        events(server, "/v1/completions", {"prompt": prompt, "max_tokens": 6, "ignore_eos": True})
        for prompt in (ids, PROMPT)
    )

    assert ids_of(by_ids) == ids_of(by_text)


def test_chat_streams_with_usage(client: openai.OpenAI, server: Server) -> None:
    """A chat has the template's prompt, exactly max_tokens tokens, and its usage at the end."""
    stream = client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "Hi"}],
        max_completion_tokens=9,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    *told, last = list(stream)

    assert told[-1].choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 9
    # <bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n: more than the text alone.
    assert last.usage.prompt_tokens > 8


def test_one_request_at_a_time(server: Server) -> None:
    """Of two requests sent together, no event of one comes between two events of the other."""
    came: list[int] = []

    def ask(number: int) -> None:
        body = {"prompt": PROMPT, "max_tokens": 8, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
            came.extend(number for line in answer.iter_lines() if '"text"' in line)

    threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # 8 tokens and a finish reason each; reading may run behind, so only the change counts.
    assert len(came) == 2 * 9
    assert sum(one != other for one, other in itertools.pairwise(came)) == 1


def test_client_that_leaves_frees_the_line(server: Server) -> None:
    """A generation whose client has gone is given up: the next request is answered."""
    body = {"prompt": PROMPT, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())

    assert len(events(server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 2})) >= 2


@pytest.mark.parametrize(
    ("extra", "word"), [({"best_of": 2}, "best_of"), ({"n": 2}, "n"), ({"stop": ["x"]}, "stop")]
)
def test_what_it_cannot_do_is_refused(
    client: openai.OpenAI, server: Server, extra: dict[str, Any], word: str
) -> None:
    """A field that would change the answer is the client's error, named, and not ignored."""
    with pytest.raises(openai.BadRequestError, match=rf"\b{word}: "):
        client.completions.create(model=server.model, prompt=PROMPT, max_tokens=2, extra_body=extra)


def test_characters_of_several_tokens_come_whole() -> None:
    """A piece of text never ends in the middle of a character."""
    # Each id is one byte of UTF-8: é has two bytes, € has three.
    pieces = Detokenizer(lambda ids: bytes(ids).decode(errors="replace"))

    assert [pieces.add(byte) for byte in "aé€b".encode()] == ["a", "", "é", "", "", "€", "b"]
