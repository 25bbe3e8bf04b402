"""Triton's generate extension over HTTP with curl and httpx: texts, streams, chats, lengths."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest
import tritonclient.http as httpclient

from tests.api.kserve.triton_clients import (
    CHAT,
    GENERATE,
    GREEDY,
    PROMPTS,
    STREAM,
    TOOLS,
    events_of,
    generated_tokens,
    greedy,
    greedy_chat,
    inputs_of,
    metric,
    num_tokens,
    texts_of,
)
from tests.servers import Server

# --- generate


def test_generate(http: httpx.Client, tiny_server: Server) -> None:
    """One JSON object: the text stripped as python backends do, the id, the model."""
    for prompt in PROMPTS:
        body = {"text_input": prompt, "max_new_tokens": 12, "id": "42", **GREEDY}
        for path in (GENERATE, "/v2/models/tiny/versions/1/generate"):
            answer = http.post(path, json=body)
            assert answer.headers["content-type"] == "application/json"
            text = greedy(tiny_server, prompt, 12).strip()
            names = {"id": "42", "model_name": "tiny", "model_version": "1"}
            assert answer.json() == names | {"text_output": text}


def test_parameters_may_be_nested(http: httpx.Client, tiny_server: Server) -> None:
    """Inputs stand beside text_input or in `parameters`."""
    body = {"text_input": PROMPTS[0], "parameters": {"max_new_tokens": 5, **GREEDY}}
    text = greedy(tiny_server, PROMPTS[0], 5).strip()
    assert http.post(GENERATE, json=body).json()["text_output"] == text


def test_streamed_pieces_are_the_whole_answer(http: httpx.Client, tiny_server: Server) -> None:
    """The pieces of a stream, joined, are the stripped answer, whatever its outer white space."""
    stripped = 0
    for prompt in PROMPTS:
        for max_tokens in (1, 5, 24):
            raw = greedy(tiny_server, prompt, max_tokens)
            stripped += raw != raw.strip()
            body = {"text_input": prompt, "max_new_tokens": max_tokens, "stream": True, **GREEDY}
            answer = http.post(STREAM, json=body)
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            pieces = [event["text_output"] for event in events_of(answer.text)]
            assert "".join(pieces) == raw.strip()
            assert len(pieces) > 1 or max_tokens == 1 or len(raw.split()) < 2
    assert stripped, "no answer had outer white space; choose other prompts"


def test_stream_without_stream(http: httpx.Client, tiny_server: Server) -> None:
    """`generate_stream` without `stream: true` is one event with all of it."""
    answer = http.post(STREAM, json={"text_input": PROMPTS[0], "max_new_tokens": 9, **GREEDY})
    (event,) = events_of(answer.text)
    assert event["text_output"] == greedy(tiny_server, PROMPTS[0], 9).strip()


def test_stream_true_over_generate(http: httpx.Client, tiny_server: Server) -> None:
    """`stream: true`, which Triton refuses on /generate, answers the whole text."""
    body = {"text_input": PROMPTS[0], "max_new_tokens": 9, "stream": True, **GREEDY}
    answer = http.post(GENERATE, json=body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text_output"] == greedy(tiny_server, PROMPTS[0], 9).strip()


def test_every_event_has_the_heading(http: httpx.Client) -> None:
    """Each event of a stream has the request's id, the model and its version."""
    body = {"text_input": PROMPTS[0], "max_new_tokens": 9, "stream": True, "id": "42"}
    events = events_of(http.post("/v2/models/tiny/versions/1/generate_stream", json=body).text)
    assert len(events) > 1
    for event in events:
        del event["text_output"]
        assert event == {"id": "42", "model_name": "tiny", "model_version": "1"}


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_curl_as_in_the_docs(tiny_server: Server, path: str) -> None:
    """curl sends a form's content type unasked; Triton does not look at it, nor do we."""
    stream = json.dumps(path == STREAM)
    body = (
        '{"text_input": "The sea", "max_new_tokens": 12, '
        f'"parameters": {{"stream": {stream}, "do_sample": false}}}}'
    )
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", "-X", "POST"]
    done = subprocess.run(
        [*command, f"{tiny_server.base_url}{path}", "-d", body],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    events = events_of(done.stdout) if path == STREAM else [json.loads(done.stdout)]
    text = "".join(event["text_output"] for event in events)
    assert text == greedy(tiny_server, "The sea", 12).strip()
    assert {event["model_name"] for event in events} == {"tiny"}


# --- chats


def test_chat(http: httpx.Client, tiny_server: Server) -> None:
    """A JSON list of messages gets the chat template, whole or streamed."""
    want = greedy_chat(tiny_server, CHAT, 24)["choices"][0]["message"]["content"].strip()
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 24, **GREEDY}
    assert http.post(GENERATE, json=body).json()["text_output"] == want
    events = events_of(http.post(STREAM, json=body | {"stream": True}).text)
    assert "".join(event["text_output"] for event in events) == want
    # The template makes the difference.
    assert want != greedy(tiny_server, json.dumps(CHAT), 24).strip()


def test_one_question_as_a_chat(http: httpx.Client, tiny_server: Server) -> None:
    """The parameter `chat` makes plain text one user message."""
    body = {"text_input": "Name three rivers.", "max_new_tokens": 24, **GREEDY, "chat": True}
    want = greedy_chat(tiny_server, CHAT[:1], 24)["choices"][0]["message"]["content"].strip()
    assert http.post(GENERATE, json=body).json()["text_output"] == want


def test_chats_are_mended_by_rule(http: httpx.Client) -> None:
    """What Gemma's template refuses is mended as for OpenAI's clients, and named."""
    twice = [{"role": "system", "content": "Be brief."}, *CHAT[:1], *CHAT[:1]]
    for path in (GENERATE, STREAM):
        answer = http.post(path, json={"text_input": json.dumps(twice), "max_new_tokens": 2})
        assert answer.status_code == 200
        assert "merge_turns" in answer.headers["x-gemma-serve-prompt"]


def prompt_tokens(server: Server) -> float:
    """As many as the server has counted for its clients."""
    return metric(server, "gemma_serve_prompt_tokens_total", model="tiny")


@pytest.mark.parametrize("as_string", [False, True], ids=["JSON", "string"])
def test_tools(http: httpx.Client, tiny_server: Server, *, as_string: bool) -> None:
    """Tools are part of the prompt; the output tool_calls is there, and empty without a call."""
    usage = greedy_chat(tiny_server, CHAT, 8, tools=TOOLS)["usage"]
    without = greedy_chat(tiny_server, CHAT, 8)["usage"]
    before = prompt_tokens(tiny_server)
    tools = json.dumps(TOOLS) if as_string else TOOLS
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 8, "tools": tools, **GREEDY}
    answer = http.post(GENERATE, json=body).json()
    assert json.loads(answer["tool_calls"]) == []
    assert answer["text_output"]
    assert prompt_tokens(tiny_server) - before == usage["prompt_tokens"]
    assert usage["prompt_tokens"] > without["prompt_tokens"]


def test_a_stream_with_tools_is_one_piece(http: httpx.Client) -> None:
    """With tools vLLM's chat takes the answer apart, so that its stream is one event."""
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 8, "tools": TOOLS, **GREEDY}
    (event,) = events_of(http.post(STREAM, json=body | {"stream": True}).text)
    assert event == http.post(GENERATE, json=body).json()


def test_a_tool_that_must_be_called(http_client: Any) -> None:
    """tool_choice makes even random weights call; the arguments fit the schema."""
    choice = {"type": "function", "function": {"name": "lamp"}}
    values = {"text_input": json.dumps(CHAT), "max_new_tokens": 200, **GREEDY}
    result = http_client.infer(
        "tiny",
        inputs_of(httpclient, values),
        parameters={"tools": json.dumps(TOOLS), "tool_choice": json.dumps(choice)},
    )
    ((call,),) = map(json.loads, texts_of(result, "tool_calls"))
    assert call["function"]["name"] == "lamp"
    assert type(json.loads(call["function"]["arguments"])["on"]) is bool


def test_length_of_a_chat_with_tools(http: httpx.Client, tiny_server: Server) -> None:
    """With tools, max_new_tokens says how long the answer may be, and is needed."""
    body = {"text_input": json.dumps(CHAT), "tools": TOOLS, **GREEDY}
    before = generated_tokens(tiny_server)
    assert http.post(GENERATE, json=body | {"max_new_tokens": 7}).status_code == 200
    assert generated_tokens(tiny_server) - before == 7
    for lengths in ({}, {"max_length": 500}):
        answer = http.post(GENERATE, json=body | lengths)
        assert answer.status_code == 400
        assert "send max_new_tokens" in answer.json()["error"]


def test_template_variables(http: httpx.Client) -> None:
    """chat_template_kwargs go to the template; what it does not declare is refused."""
    body = {"text_input": json.dumps(CHAT), "max_new_tokens": 2}
    refused = http.post(GENERATE, json=body | {"chat_template_kwargs": {"opening": "Hi"}})
    assert refused.status_code == 400
    assert "chat_template_kwargs" in refused.json()["error"] or "opening" in refused.json()["error"]


# --- lengths and sampling


def test_max_length_counts_the_prompt(http: httpx.Client, tiny_server: Server) -> None:
    """max_length less the prompt's tokens is what the answer has; 20 where nothing is sent."""
    prompt = PROMPTS[0]
    count = num_tokens(tiny_server, prompt)
    for max_length in (None, 20, count + 1, count + 5, count + 30):
        room = (max_length or 20) - count
        sent = {} if max_length is None else {"max_length": max_length}
        before = generated_tokens(tiny_server)
        answer = http.post(GENERATE, json={"text_input": prompt, **GREEDY, **sent})
        assert answer.json()["text_output"] == greedy(tiny_server, prompt, room).strip()
        assert generated_tokens(tiny_server) - before == 2 * room  # ours and the reference
    for max_length in (1, count):
        answer = http.post(GENERATE, json={"text_input": prompt, "max_length": max_length})
        assert answer.status_code == 400
        assert f"The prompt has {count} tokens and max_length {max_length}" in answer.text


def test_max_new_tokens_wins(http: httpx.Client, tiny_server: Server) -> None:
    """With both, max_new_tokens decides, also where max_length leaves no room."""
    for max_length in (1, 500):
        body = {"text_input": PROMPTS[0], "max_length": max_length, "max_new_tokens": 7, **GREEDY}
        text = http.post(GENERATE, json=body).json()["text_output"]
        assert text == greedy(tiny_server, PROMPTS[0], 7).strip()


def test_max_new_tokens_beyond_the_context(http: httpx.Client, tiny_server: Server) -> None:
    """Asked for more than the context has left, the answer is as long as it has, as in Triton."""
    prompt = "river " * 1300
    room = 4096 - num_tokens(tiny_server, prompt)
    body = {"text_input": prompt, **GREEDY}
    for lengths in ({"max_new_tokens": 100_000}, {"max_length": 100_000}):
        before = generated_tokens(tiny_server)
        answer = http.post(GENERATE, json=body | lengths)
        assert answer.status_code == 200, answer.text
        assert generated_tokens(tiny_server) - before == room


def test_prompt_beyond_the_context(http: httpx.Client) -> None:
    """A prompt that the context can't hold is refused by its length."""
    answer = http.post(GENERATE, json={"text_input": "river " * 6000, "max_new_tokens": 1})
    assert answer.status_code == 400
    assert "4096" in answer.json()["error"]


def test_sampling(http: httpx.Client) -> None:
    """Sampling without a seed gives other texts, also unasked: the checkpoint says do_sample."""

    def answers(**values: Any) -> set[str]:
        body = {"text_input": PROMPTS[0], "max_new_tokens": 16, **values}
        return {http.post(GENERATE, json=body).json()["text_output"] for _ in range(3)}

    assert len(answers(do_sample=True)) == 3
    assert len(answers()) == 3
    (likeliest,) = answers(do_sample=False)
    assert answers(do_sample=False, temperature=2.0, top_k=5) == {likeliest}
    assert answers(do_sample=False, repetition_penalty=5.0) != {likeliest}


def test_sampling_with_one_candidate(http: httpx.Client, tiny_server: Server) -> None:
    """top_k 1, top_p 0 or hardly any temperature leave the likeliest token."""
    # One token, and one that is ahead: bf16 logits of a tiny model often tie.
    body = {"model": "tiny", "prompt": PROMPTS[0], "max_tokens": 1, "logprobs": 2, "temperature": 0}
    (position,) = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"][
        "top_logprobs"
    ]
    first, second = sorted(position.values())[::-1]
    assert first - second > 0.03
    likeliest = greedy(tiny_server, PROMPTS[0], 1).strip()

    def answers(**values: Any) -> set[str]:
        body = {"text_input": PROMPTS[0], "max_new_tokens": 1, "do_sample": True, **values}
        return {http.post(GENERATE, json=body).json()["text_output"] for _ in range(8)}

    for one in ({"top_k": 1}, {"top_p": 0.0}, {"temperature": 0.001}):
        assert answers(**one) == {likeliest}
    assert len(answers(temperature=2.0, top_k=0)) > 1
