"""The prompt layer through HTTP: one prompt for every protocol, one BOS, and what was changed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.chat.conversation import GEMMA3, call, model, normalised, system, text, tool, user
from tests.servers import Server, serving
from tests.tiny_gemma import BOS, END_OF_TURN, EOS, START_OF_TURN, VOCAB_SIZE

CHAT = "/v1/chat/completions"
RENDER = "/v1/chat/completions/render"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
HEADER = "x-gemma-serve-prompt"
CONTEXT_TOKENS = 4096

TURNS = [user("Name a river."), model("The Po."), user("And another?")]
MERGED = [user("Name a river."), user("A long one.")]
PREFILLED = [user("Name a river."), model("The Po and")]
LAMP = {
    "type": "function",
    "function": {
        "name": "lamp",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
MOON = {"type": "function", "function": {"name": "moon", "parameters": {"type": "object"}}}


@pytest.fixture
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with tiny_server.client() as client:
        yield client


@pytest.fixture
def openai_client(tiny_server: Server) -> openai.OpenAI:
    """OpenAI's client as a user makes it."""
    return openai.OpenAI(base_url=f"{tiny_server.base_url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def anthropic_client(tiny_server: Server) -> anthropic.Anthropic:
    """Anthropic's client as a user makes it."""
    return anthropic.Anthropic(base_url=tiny_server.base_url, api_key="none", max_retries=0)


def _posted(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _rendered(http: httpx.Client, messages: list[Any], **fields: Any) -> dict[str, Any]:
    return _posted(http, RENDER, {"messages": messages} | fields)


def _refused(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    return dict(answer.json()["error"])


def _completed(http: httpx.Client, prompt: Any, **fields: Any) -> dict[str, Any]:
    """The first choice of a completion, with token ids."""
    ask = {"prompt": prompt, "max_tokens": 1, "return_token_ids": True}
    return dict(_posted(http, COMPLETIONS, ask | fields)["choices"][0])


# --- one prompt for every protocol


def test_render(http: httpx.Client) -> None:
    """Rendering shows the prompt's text and ids, where the answer stops, and the rules applied."""
    rendered = _rendered(http, MERGED, model="tiny")
    assert rendered["prompt"] == (
        "<bos><start_of_turn>user\nName a river.\n\nA long one.<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert rendered["token_ids"][:2] == [BOS, START_OF_TURN]
    assert rendered["num_tokens"] == len(rendered["token_ids"])
    assert rendered["stop_token_ids"] == [EOS, END_OF_TURN]
    assert rendered["rules"] == ["merge_turns"]


def test_render_knows_the_models(http: httpx.Client) -> None:
    """Rendering for a model that is not served is a 404."""
    answer = http.post(RENDER, json={"model": "other", "messages": TURNS})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("messages", [TURNS, MERGED, PREFILLED], ids=["plain", "merged", "prefill"])
def test_openai_protocols_give_the_same_prompt(
    http: httpx.Client, openai_client: openai.OpenAI, messages: list[Any]
) -> None:
    """Chat, responses, tokenize and render make the same token ids of the same conversation."""
    ids = _rendered(http, messages)["token_ids"]
    chat = openai_client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, extra_body={"return_token_ids": True}
    )
    assert chat.prompt_token_ids == ids

    response = openai_client.responses.create(
        model="tiny",
        input=messages,
        max_output_tokens=1,
        extra_body={"enable_response_messages": True},
    )
    assert response.input_messages[0]["tokens"] == ids
    assert _posted(http, "/tokenize", {"messages": messages})["tokens"] == ids


def test_anthropic_gives_the_same_prompt(
    http: httpx.Client, anthropic_client: anthropic.Anthropic
) -> None:
    """A message and count_tokens have as many tokens as the same chat, tools included."""
    tools = [{"name": "lamp", "input_schema": LAMP["function"]["parameters"]}]
    ask = {"model": "tiny", "messages": TURNS, "system": "Be brief.", "tools": tools}
    rendered = _rendered(http, [system("Be brief."), *TURNS], tools=[LAMP], tool_choice="auto")
    counted = anthropic_client.messages.count_tokens(**ask)
    answer = anthropic_client.messages.create(**ask, max_tokens=1)
    assert counted.input_tokens == answer.usage.input_tokens == rendered["num_tokens"]


def test_instructions_are_a_system_message(http: httpx.Client) -> None:
    """The instructions of the Responses API open the prompt as a system message does."""
    ask = {"input": "Hi", "instructions": "Be brief.", "max_output_tokens": 1}
    answer = _posted(http, RESPONSES, ask | {"enable_response_messages": True})
    rendered = _rendered(http, [system("Be brief."), user("Hi")])
    assert answer["input_messages"][0]["tokens"] == rendered["token_ids"]


def test_prefill(http: httpx.Client) -> None:
    """A last message of the assistant is continued: its turn is not closed, and no other opened."""
    rendered = _rendered(http, PREFILLED)
    assert rendered["prompt"].endswith("<start_of_turn>model\nThe Po and")
    assert rendered["rules"] == ["prefill"]
    answer = _posted(http, CHAT, {"messages": PREFILLED, "max_tokens": 2, "temperature": 0})
    assert answer["usage"]["completion_tokens"] == 2
    assert not answer["choices"][0]["message"]["content"].startswith("The Po and")


def test_a_client_says_how_the_prompt_ends(http: httpx.Client) -> None:
    """What is continued by the rule is by the client's own word too; without both it is closed."""
    asked = {"add_generation_prompt": False, "continue_final_message": True}
    assert _rendered(http, PREFILLED, **asked) == _rendered(http, PREFILLED)
    closed = _rendered(http, PREFILLED, add_generation_prompt=False)
    assert closed["prompt"].endswith("<start_of_turn>model\nThe Po and<end_of_turn>\n")
    assert closed["rules"] == []


TOOL_TURNS = [
    user("Light?"),
    model("Yes.", tool_calls=[call("lamp", '{"on": true}')]),
    tool("It is on."),
]


@pytest.mark.parametrize(
    "messages",
    [
        [user("Name a river."), {"role": "model", "content": "The Po."}, user("And another?")],
        [user("Name a river."), {"role": "model", "content": "The Po and"}],
        [{"role": "developer", "content": "Be brief."}, user("Hi")],
        [user("Hi"), system("Be brief."), system("Be kind.")],
        [user([text("Name"), "a river."]), model([text("The"), text("Po.")]), user("Why?")],
        [model("Hi"), user("Hi"), model(None), user(None)],
        TOOL_TURNS,
        [*TOOL_TURNS[:2], {"role": "function", "name": "lamp", "content": "It is on."}],
    ],
    ids=["model", "prefill", "developer", "system", "parts", "empty", "tool", "function"],
)
def test_responses_mend_what_a_chat_mends(http: httpx.Client, messages: list[Any]) -> None:
    """Messages as chat clients send them give the same prompt by the same rules in Responses."""
    rendered = _rendered(http, messages)
    body = {"input": messages, "max_output_tokens": 1, "enable_response_messages": True}
    answer = http.post(RESPONSES, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["input_messages"][0]["tokens"] == rendered["token_ids"]
    assert answer.headers.get(HEADER, "") == ", ".join(rendered["rules"])


def test_responses_keep_all_texts_of_an_answer(http: httpx.Client) -> None:
    """An earlier answer of several texts is shown whole, which vLLM would cut to the first."""
    texts = [{"type": "output_text", "text": word, "annotations": []} for word in ("The", "Po.")]
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    body = {"input": [user("Name a river."), answer | {"content": texts}, user("Why?")]}
    answered = _posted(
        http, RESPONSES, body | {"max_output_tokens": 1, "enable_response_messages": True}
    )
    chat = [user("Name a river."), model([text("The"), text("Po.")]), user("Why?")]
    assert answered["input_messages"][0]["tokens"] == _rendered(http, chat)["token_ids"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "robot", "content": "Hi"}, "input[1].role"),
        ({"role": "user", "content": 5}, "input[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "input[1].content[0].text"),
        ({"role": "assistant", "tool_calls": [5]}, "input[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}, "id": 5}]}, "input"),
        ({"type": "hologram", "role": "user"}, "input"),
        ({"type": "function_call", "name": "f"}, "input"),
        ({"content": "Hi"}, "input"),
        ("Hi", "input"),
    ],
    ids=repr,
)
def test_bad_item_of_responses(http: httpx.Client, item: Any, param: str) -> None:
    """What is no item is a 400 that says where and why, in one sentence."""
    error = _refused(http, RESPONSES, {"input": [user("Hi"), item], "max_output_tokens": 1})
    assert error["param"] == param
    assert error["message"].startswith(param)
    assert "more)" not in error["message"]


# --- what was changed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": MERGED, "max_tokens": 1}),
        (RESPONSES, {"input": MERGED, "max_output_tokens": 1}),
        (MESSAGES, {"model": "tiny", "messages": MERGED, "max_tokens": 1}),
    ],
    ids=["chat", "responses", "messages"],
)
def test_header(http: httpx.Client, path: str, body: dict[str, Any], stream: bool) -> None:
    """The header names the rules that changed the prompt, and is left out where none did."""
    changed = http.post(path, json=body | {"stream": stream})
    assert changed.status_code == 200, changed.text
    assert changed.headers[HEADER] == "merge_turns"

    key = "input" if "input" in body else "messages"
    unchanged = http.post(path, json=body | {"stream": stream, key: TURNS})
    assert unchanged.status_code == 200, unchanged.text
    assert HEADER not in unchanged.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_metric(http: httpx.Client, stream: bool) -> None:
    """A rule that changed a prompt is counted once a request."""
    before = _count(http, "merge_turns")
    assert http.post(CHAT, json={"messages": TURNS, "max_tokens": 1}).status_code == 200
    assert _count(http, "merge_turns") == before
    http.post(CHAT, json={"messages": MERGED * 2, "max_tokens": 1, "stream": stream, "n": 2})
    assert _count(http, "merge_turns") == before + 1


def _count(http: httpx.Client, rule: str) -> float:
    series = re.escape(f'gemma_serve_prompt_rules_total{{rule="{rule}"}}')
    found = re.search(rf"^{series} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0


TRANSFER = {"type": "function", "function": {"name": "transfer_to_agent"}}
REPORTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "huggingface/chat-ui#1386": ([system(""), user("Hola"), model("¡Hola!"), user("Sí?")], None),
    "sgl-project/sglang#892": ([system("You are helpful."), user("List 3 countries.")], None),
    "vllm-project/guidellm#67": ([system("Call me Ishmael. Some years ago")], None),
    "google/adk-python#1373": (
        [
            {"role": "developer", "content": "You give weather reports."},
            user("What is the weather in Taipei?"),
            user([text("For context:"), text("[root_agent] called tool `transfer_to_agent`")]),
            user([text("For context:"), text("[root_agent] `transfer_to_agent` returned")]),
        ],
        [TRANSFER],
    ),
    "huggingface/text-generation-inference#3198": (
        [
            system("You are a personal assistant...."),
            user("Hi"),
            model(None, tool_calls=[call("get-profile", '{"actor_id":"22"}', "0")]),
            tool('{"errors":{"detail":"Not Found"}}', "0"),
        ],
        None,
    ),
    "microsoft/autogen#3597": ([system("You write."), model("Draft."), user("Too long.")], None),
    "google/adk-python#5655": (
        [
            user("Time?"),
            model(None, tool_calls=[call("clock")]),
            {"role": "tool_responses", "tool_call_id": "call_1", "content": "12:00"},
        ],
        None,
    ),
}


@pytest.mark.parametrize(("messages", "tools"), REPORTS.values(), ids=REPORTS)
def test_requests_of_reports(
    http: httpx.Client, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> None:
    """What people reported as refused is answered, and the header says what was done for it."""
    body: dict[str, Any] = {"messages": messages, "max_tokens": 2}
    answer = http.post(CHAT, json=body | ({"tools": tools} if tools else {}))
    assert answer.status_code == 200, answer.text
    rules = normalised(GEMMA3, messages, tools).rules
    assert answer.headers.get(HEADER) == (", ".join(rules) or None)


# --- one BOS


def test_one_bos_in_completions(http: httpx.Client) -> None:
    """Text gets one BOS, however many it brings at its start."""
    prompts = ["The sea", "<bos>The sea", "<bos><bos>The sea"]
    ids = [_completed(http, prompt)["prompt_token_ids"] for prompt in prompts]
    assert ids[0] == ids[1] == ids[2]
    assert ids[0].count(BOS) == 1
    assert ids[0][0] == BOS

    choices = _posted(
        http, COMPLETIONS, {"prompt": prompts, "max_tokens": 1, "return_token_ids": True}
    )["choices"]
    assert [choice["prompt_token_ids"] for choice in choices] == ids


def test_completion_of_a_whole_prompt(http: httpx.Client) -> None:
    """A prompt that is already templated, sent as raw text, gives the ids of the chat."""
    rendered = _rendered(http, TURNS)
    choice = _completed(http, rendered["prompt"])
    assert choice["prompt_token_ids"] == rendered["token_ids"]


@pytest.mark.parametrize("given", [[5, 6], [BOS, 5, 6], [BOS, BOS, 5, 6]], ids=str)
def test_one_bos_before_token_ids(http: httpx.Client, given: list[int]) -> None:
    """Token ids get one BOS, however many they begin with."""
    assert _completed(http, given)["prompt_token_ids"] == [BOS, 5, 6]


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_add_special_tokens(http: httpx.Client, add_special_tokens: bool) -> None:
    """A prompt has its one BOS whatever add_special_tokens says; a piece of text has none."""
    fields = {"add_special_tokens": add_special_tokens}
    ids = _completed(http, "The sea")["prompt_token_ids"]
    assert _completed(http, "The sea", **fields)["prompt_token_ids"] == ids
    assert _rendered(http, TURNS, **fields)["token_ids"] == _rendered(http, TURNS)["token_ids"]
    tokens = _posted(http, "/tokenize", {"prompt": "The sea"} | fields)["tokens"]
    assert tokens == (ids if add_special_tokens else ids[1:])


@pytest.mark.parametrize("kept", [1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_prompt_keeps_its_bos(http: httpx.Client, kept: int, side: str) -> None:
    """A prompt that is truncated still begins with its one BOS, and else is the side kept."""
    text = "The sea is wide and blue"
    fields = {"truncate_prompt_tokens": kept, "truncation_side": side}
    ids = _completed(http, text, **fields)["prompt_token_ids"]
    _, *words = _completed(http, text)["prompt_token_ids"]
    end = len(words) if side == "left" else kept - 1
    assert ids == [BOS, *words[end - (kept - 1) : end]]


def test_a_cut_chat_still_asks_for_the_answer(http: httpx.Client) -> None:
    """A chat that is cut from the left ends as the whole one does."""
    whole = _rendered(http, TURNS)["token_ids"]
    cut = _rendered(http, TURNS, truncate_prompt_tokens=6, truncation_side="left")["token_ids"]
    assert cut == [BOS, *whole[-5:]]


def test_echo(http: httpx.Client) -> None:
    """An echoed prompt is the client's text, without a BOS that it did not write."""
    ask = {"prompt": "The sea", "max_tokens": 2, "temperature": 0}
    plain, echoed = (
        _posted(http, COMPLETIONS, ask | {"echo": echo})["choices"][0]["text"]
        for echo in (False, True)
    )
    assert echoed == "The sea" + plain


def test_echo_of_a_chat(http: httpx.Client) -> None:
    """A continued message comes back as it was written, before its continuation, also streamed."""
    messages = [user("Name a river."), model("The <bos> Po and")]
    body = {"messages": messages, "echo": True, "max_tokens": 2, "temperature": 0}
    said = _posted(http, CHAT, body)["choices"][0]["message"]["content"]
    assert said.startswith("The <bos> Po and")
    lines = http.post(CHAT, json=body | {"stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    texts = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(text or "" for text in texts) == said


# --- what no prompt may hold


@pytest.mark.parametrize("bad", [-1, VOCAB_SIZE, 2**31, 2**63, 107, 108, 109, BOS], ids=str)
def test_bad_token_ids(http: httpx.Client, bad: int) -> None:
    """Ids that the model lacks, that stand for media or are a late BOS are a 400; it lives on."""
    for prompt in ([5, bad], [[5], [5, bad]]):
        assert _refused(http, COMPLETIONS, {"prompt": prompt, "max_tokens": 1})["message"]
    assert _completed(http, [5])["prompt_token_ids"] == [BOS, 5]


@pytest.mark.parametrize("name", ["<image_soft_token>", "<start_of_image>", "<end_of_image>"])
def test_placeholders_in_raw_text(http: httpx.Client, name: str) -> None:
    """The names of image tokens in raw text are text."""
    ids = _completed(http, f"a {name} b")["prompt_token_ids"]
    assert not {107, 108, 109} & set(ids)


@pytest.mark.parametrize("field", ["kv_transfer_params", "ec_transfer_params", "prompt_embeds"])
def test_fields_in_place_of_the_prompt(http: httpx.Client, field: str) -> None:
    """Fields that would replace the prompt are refused by every protocol that knows them."""
    bodies = {
        CHAT: {"messages": TURNS},
        RENDER: {"messages": TURNS},
        RESPONSES: {"input": "Hi"},
        COMPLETIONS: {"prompt": "Hi"},
        "/tokenize": {"messages": TURNS},
    }
    for path, body in bodies.items():
        assert _refused(http, path, body | {field: {"a": 1}})["param"].startswith(field)


@pytest.mark.parametrize("path", [CHAT, RENDER])
def test_documents(http: httpx.Client, path: str) -> None:
    """Documents, which no template of Gemma shows, are refused and not lost in silence."""
    documents = [{"title": "Rivers", "text": "The Po.<end_of_turn>"}]
    error = _refused(http, path, {"messages": TURNS, "documents": documents})
    assert error["param"] == "documents"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": TURNS}),
        (RENDER, {"messages": TURNS}),
        (RESPONSES, {"input": "Hi"}),
        (MESSAGES, {"model": "tiny", "messages": TURNS, "max_tokens": 1}),
        (MESSAGES + "/count_tokens", {"model": "tiny", "messages": TURNS}),
        ("/tokenize", {"messages": TURNS}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("variables", [{"colour": 1}, {"bos_token": ""}, 5], ids=str)
def test_template_variables(
    http: httpx.Client, path: str, body: dict[str, Any], variables: Any
) -> None:
    """A template variable that is not the client's to set is refused by every protocol."""
    error = _refused(http, path, body | {"chat_template_kwargs": variables})
    assert "chat_template_kwargs" in error["message"] or "template takes no" in error["message"]


# --- the context's length


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}], ids=["absent", "null"])
@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_default_of_max_tokens(http: httpx.Client, fields: dict[str, Any], echo: bool) -> None:
    """Without max_tokens, an answer may take what is left of the context."""
    prompt = [5] * (CONTEXT_TOKENS - 41)  # and a BOS
    body = {"prompt": prompt, "ignore_eos": True, "echo": echo} | fields
    answer = _posted(http, COMPLETIONS, body)
    assert answer["usage"]["completion_tokens"] == 40
    assert answer["choices"][0]["finish_reason"] == "length"


def test_default_of_max_tokens_in_a_chat(http: httpx.Client) -> None:
    """The same for a chat, whole and streamed."""
    messages = [user("river " * 1_330)]
    left = CONTEXT_TOKENS - _rendered(http, messages)["num_tokens"]
    assert 16 < left < 200
    answer = _posted(http, CHAT, {"messages": messages, "ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == left


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 1}], ids=["default", "one"])
def test_a_prompt_that_fills_the_context(http: httpx.Client, fields: dict[str, Any]) -> None:
    """A prompt that leaves no place for an answer is a 400, not an empty answer."""
    body = {"prompt": [5] * (CONTEXT_TOKENS - 1)} | fields
    assert _refused(http, COMPLETIONS, body)["message"]
    assert http.post(COMPLETIONS, json=body | {"stream": True}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [user("river " * 6000)]}),
        (RENDER, {"messages": [user("river " * 6000)]}),
        (RESPONSES, {"input": "river " * 6000}),
        (MESSAGES, {"model": "tiny", "messages": [user("river " * 6000)], "max_tokens": 1}),
        (COMPLETIONS, {"prompt": "river " * 6000}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_prompt_over_the_context(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """A prompt longer than the context is a 400 with both numbers."""
    message = _refused(http, path, body)["message"]
    assert f"context length is {CONTEXT_TOKENS} tokens" in message
    assert re.search(r"prompt contains 18\d{3} input tokens", message)


def test_an_answer_over_the_context(http: httpx.Client) -> None:
    """More max_tokens than the context has is a 400 with the numbers."""
    body = {"messages": TURNS, "max_tokens": CONTEXT_TOKENS + 1}
    message = _refused(http, CHAT, body)["message"]
    assert str(CONTEXT_TOKENS) in message
    assert str(CONTEXT_TOKENS + 1) in message


# --- sampling and stopping


@pytest.mark.parametrize("stop", [EOS, END_OF_TURN])
def test_stop_tokens(http: httpx.Client, stop: int) -> None:
    """An answer ends at each of Gemma's stop tokens, which are no part of its text."""
    body = {"messages": TURNS, "max_tokens": 5, "logit_bias": {str(stop): 100}}
    [choice] = _posted(http, CHAT, body)["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] in ("", None)


def test_sampling_defaults(http: httpx.Client) -> None:
    """Gemma's temperature stands where the checkpoint says none; what it says is kept."""
    answer = _posted(http, RESPONSES, {"input": "Hi", "max_output_tokens": 1})
    assert (answer["temperature"], answer["top_p"]) == (1.0, 0.95)
    settings = {setting["key"]: setting for setting in http.get("/v1/info").json()["settings"]}
    assert settings["override_generation_config"]["value"] == {"temperature": 1.0}


# --- tools


def test_tool_choice_auto_and_none(http: httpx.Client) -> None:
    """Tools are declared in the prompt, unless the model must not call any."""
    shown = _rendered(http, TURNS, tools=[LAMP])
    assert '"name": "lamp"' in shown["prompt"]
    assert shown["rules"] == ["tools_as_text"]
    assert _rendered(http, TURNS, tools=[LAMP], tool_choice="auto") == shown
    hidden = _rendered(http, TURNS, tools=[LAMP], tool_choice="none")
    assert hidden == _rendered(http, TURNS)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_in_words_becomes_a_call(http: httpx.Client, stream: bool) -> None:
    """What the model answers in Gemma 3's convention is the tool call that the client reads."""
    said = {"structured_outputs": {"choice": ["[lamp(on=True)]"]}, "max_tokens": 50}
    body = {"messages": TURNS, "tools": [LAMP], "tool_choice": "auto", "stream": stream} | said
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(event) for event in events] if stream else [answer.json()]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    calls = [
        call["function"]
        for choice in choices
        for call in choice["delta" if stream else "message"].get("tool_calls") or ()
    ]
    assert "".join(call.get("name") or "" for call in calls) == "lamp"
    assert json.loads("".join(call.get("arguments") or "" for call in calls)) == {"on": True}
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_named_tool(openai_client: openai.OpenAI) -> None:
    """A tool chosen by name is the one that is called, whatever else there is."""
    answer = openai_client.chat.completions.create(
        model="tiny",
        messages=TURNS,
        tools=[MOON, LAMP],
        tool_choice={"type": "function", "function": {"name": "lamp"}},
        max_tokens=200,
        temperature=0,
    )
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["lamp"]


def test_required_tool_of_responses(openai_client: openai.OpenAI) -> None:
    """The Responses API forces a call as the chat does."""
    answer = openai_client.responses.create(
        model="tiny",
        input="Light, please.",
        tools=[{"type": "function", **LAMP["function"]}],
        tool_choice="required",
        max_output_tokens=400,
        temperature=0,
    )
    assert {item.type for item in answer.output} == {"function_call"}
    assert {item.name for item in answer.output} == {"lamp"}


def test_any_tool_of_anthropics(anthropic_client: anthropic.Anthropic) -> None:
    """Anthropic's tool_choice any forces a call."""
    answer = anthropic_client.messages.create(
        model="tiny",
        messages=TURNS,
        tools=[{"name": "lamp", "input_schema": LAMP["function"]["parameters"]}],
        tool_choice={"type": "any"},
        max_tokens=400,
        extra_body={"temperature": 0},
    )
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert calls
    assert {block.name for block in calls} == {"lamp"}


# --- a profile that says otherwise


@pytest.fixture(scope="module")
def eos_only(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as converters leave one: its files name <eos> as the only end."""
    directory = tmp_path_factory.mktemp("eos-only") / "gemma"
    shutil.copytree(tiny_model, directory)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((directory / name).read_text()) | {"eos_token_id": EOS}
        (directory / name).write_text(json.dumps(values))
    return directory


@pytest.fixture(scope="module")
def strict(
    tiny_profile: Path,
    eos_only: Path,
    engine_slot: ExitStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> httpx.Client:
    """A client of a server that changes nothing, forces no tools and answers briefly."""
    engine_slot.close()
    overrides = [
        "chat.strict=true",
        "chat.merge_turns=false",
        "chat.tool_call_parser=gemma4",
        "limits.max_tokens=5",
        "limits.max_body_bytes=67108864",
        f"model={eos_only}",
    ]
    log = tmp_path_factory.mktemp("log") / "strict.log"
    server = engine_slot.enter_context(serving(tiny_profile, overrides, log, dict(os.environ)))
    return server.client()


@pytest.mark.engine
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": REPORTS["google/adk-python#5655"][0]}),
        (RENDER, {"messages": REPORTS["google/adk-python#5655"][0]}),
        ("/tokenize", {"messages": REPORTS["google/adk-python#5655"][0]}),
        (RESPONSES, {"input": "Hi", "tools": [{"type": "function", "name": "lamp"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_strict(strict: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """With chat.strict, what a rule would change is a 400 that names the rule."""
    error = _refused(strict, path, body)
    assert error["code"] == "strict_prompt"
    assert "tools_as_text" in error["message"]
    assert "chat.strict" in error["message"]


@pytest.mark.engine
def test_strict_in_anthropics_shape(strict: httpx.Client) -> None:
    """Under /v1/messages the refusal has Anthropic's shape."""
    tools = [{"name": "lamp", "input_schema": {"type": "object"}}]
    body = {"model": "tiny", "messages": TURNS, "max_tokens": 1, "tools": tools}
    error = _refused(strict, MESSAGES, body)
    assert set(error) == {"type", "message"}
    assert error["type"] == "invalid_request_error"
    assert "tools_as_text" in error["message"]


@pytest.mark.engine
def test_strict_changes_nothing(strict: httpx.Client) -> None:
    """With chat.strict, a conversation that the template takes is answered, and no answer open."""
    answer = strict.post(CHAT, json={"messages": TURNS})
    assert answer.status_code == 200, answer.text
    assert HEADER not in answer.headers
    rendered = _rendered(strict, PREFILLED)
    assert rendered["prompt"].count("<end_of_turn>") == 2
    assert rendered["rules"] == []


@pytest.mark.engine
def test_a_rule_that_is_off(strict: httpx.Client) -> None:
    """Where a rule is off, the template refuses, and the refusal names the rule."""
    for path, body in ((CHAT, {"messages": MERGED}), (RESPONSES, {"input": MERGED})):
        message = _refused(strict, path, body)["message"]
        assert "roles must alternate" in message
        assert "The profile has chat.merge_turns off" in message


@pytest.mark.engine
@pytest.mark.parametrize("fields", [{}, {"max_tokens": 50}], ids=["default", "more"])
@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, {"messages": TURNS}), (COMPLETIONS, {"prompt": "Hi"})],
    ids=["chat", "completion"],
)
def test_limit_of_max_tokens(
    strict: httpx.Client, path: str, body: dict[str, Any], fields: dict[str, Any]
) -> None:
    """No answer is longer than limits.max_tokens."""
    answer = _posted(strict, path, body | {"ignore_eos": True} | fields)
    assert answer["usage"]["completion_tokens"] == 5


@pytest.mark.engine
@pytest.mark.parametrize("stop", [EOS, END_OF_TURN])
def test_stop_tokens_that_the_checkpoint_leaves_out(strict: httpx.Client, stop: int) -> None:
    """An answer ends with the turn also where generation_config.json names <eos> alone."""
    assert _rendered(strict, TURNS)["stop_token_ids"] == [EOS, END_OF_TURN]
    for path, body in ((CHAT, {"messages": TURNS}), (COMPLETIONS, {"prompt": "Hi"})):
        [choice] = _posted(strict, path, body | {"logit_bias": {str(stop): 100}})["choices"]
        assert choice["finish_reason"] == "stop"


@pytest.mark.engine
@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "lamp"}}],
    ids=["required", "named"],
)
def test_a_parser_that_forces_no_tools(strict: httpx.Client, choice: Any) -> None:
    """Where vLLM has no grammar for a parser's calls, a forced call is a 400 that says so."""
    body = {"messages": TURNS, "tools": [LAMP], "tool_choice": choice}
    error = _refused(strict, CHAT, body)
    assert error["param"] == "tool_choice"
    assert "can't be enforced" in error["message"]
    assert "use 'auto' or 'none'" in error["message"]


@pytest.mark.engine
def test_five_megabytes_of_text(strict: httpx.Client) -> None:
    """Five million characters are a 413 of their own, where the body's limit is higher."""
    much = "river " * 833_334
    bodies = {
        CHAT: {"messages": [user(much)]},
        RENDER: {"messages": [user([text(much)])]},
        RESPONSES: {"input": much},
        COMPLETIONS: {"prompt": much},
        "/tokenize": {"prompt": much},
    }
    for path, body in (*bodies.items(), (COMPLETIONS, {"prompt": [much[:1_000_000]] * 5})):
        answer = strict.post(path, json=body)
        assert answer.status_code == 413, (path, answer.text[:500])
        assert answer.json()["error"]["code"] == "request_too_large"
        assert "limits.max_text_chars" in answer.json()["error"]["message"]
    body = {"model": "tiny", "messages": [user(much)], "max_tokens": 1}
    for path in (MESSAGES, f"{MESSAGES}/count_tokens"):
        answer = strict.post(path, json=body)
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "request_too_large"
