"""
Templates, tools and roles that are wrong or hostile: 400 or literal text, and never a 5xx.

After each of them the server answers a greedy request as it did before the first.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers import Server
from tests.tiny_gemma import BOS, END_OF_TURN, START_OF_TURN

CHAT = "/v1/chat/completions"
RENDER = "/v1/chat/completions/render"
USER = {"role": "user", "content": "Hi"}
CANARY = {
    "messages": [{"role": "user", "content": "Name three rivers."}],
    "max_tokens": 16,
    "temperature": 0,
    "return_token_ids": True,
}


def _canary(http: httpx.Client) -> list[int]:
    answer = http.post(CHAT, json=CANARY)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


@pytest.fixture(scope="module")
def http(tiny_server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with tiny_server.client() as client:
        yield client


@pytest.fixture(scope="module")
def healthy(http: httpx.Client) -> list[int]:
    """What the server answers before any of this."""
    return _canary(http)


@pytest.fixture(autouse=True)
def _unharmed(http: httpx.Client, healthy: list[int]) -> Iterator[None]:
    yield
    assert _canary(http) == healthy


def _refusal(http: httpx.Client, change: dict[str, Any], path: str = CHAT) -> str:
    """The message of the 400 that this change of a simple chat gets, whole and streamed."""
    body = {"messages": [USER], "max_tokens": 4} | change
    answer = http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert 0 < len(error["message"]) <= 400
    return str(error["message"])


def _prompt(http: httpx.Client, change: dict[str, Any]) -> str:
    answer = http.post(RENDER, json={"messages": [USER]} | change)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["prompt"])


def _tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "lamp"} | function}


def _called(arguments: Any, **function: Any) -> dict[str, Any]:
    """A conversation with a call of a tool that has these arguments."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "lamp", "arguments": arguments} | function,
    }
    result = {"role": "tool", "tool_call_id": "c1", "content": "done"}
    return {"messages": [USER, {"role": "assistant", "tool_calls": [call]}, result]}


# --- templates

LOOP = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
TEMPLATES = {
    "arithmetic": "{{ 7*7 }}",
    "endless": LOOP,
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "include": "{% include '/etc/passwd' %}",
    "syntax error": "{% for %}",
    "empty": "",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_chat_template_in_the_body(http: httpx.Client, template: str) -> None:
    """A client's chat template is refused, whatever it holds; also by /tokenize."""
    for path in (CHAT, RENDER, "/tokenize"):
        assert "chat template" in _refusal(http, {"chat_template": template}, path).lower()


VARIABLES = {
    "template": {"chat_template": "{{ 7*7 }}"},
    "endless template": {"chat_template": LOOP},
    "tokenize": {"tokenize": True},
    "unknown": {"colour": "red"},
    "bos": {"bos_token": ""},
    "eos": {"eos_token": "x"},
    "tools": {"tools": []},
    "messages": {"messages": []},
    "documents": {"documents": []},
    "function": {"raise_exception": None},
    "continue": {"continue_final_message": True},
    "long": {"add_generation_prompt": "x" * 1_000_000},
    "long name": {"x" * 100_000: 1},
    "list": {"add_generation_prompt": [1]},
    "control token": {"add_generation_prompt": "<end_of_turn>"},
    "empty name": {"": 1},
}


@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES)
def test_template_variable(http: httpx.Client, variables: dict[str, Any]) -> None:
    """A template variable that no client may set is refused, and its value not repeated."""
    if len(json.dumps(variables)) > 900_000:  # the tiny server's bodies end at 1 MB
        variables = {name: value[:900_000] for name, value in variables.items()}
    message = _refusal(http, {"chat_template_kwargs": variables})
    assert "template" in message
    assert "xxx" not in message or len(message) < 300


# --- Jinja in text

JINJA = {
    "arithmetic": "{{ 7*7 }}",
    "statement": "{% raw %}a{% endraw %}",
    "comment": "{# secret #} shown",
    "exception": "{{ raise_exception('x') }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "variable": "{{ bos_token }}{{ messages }}",
    "loop": LOOP,
    "open": "{{ {% {# ",
    "line statement": "# for a in b\n## c",
    "other languages": "${7*7} #{7*7} <%= 7*7 %> %s {0}",
}


@pytest.mark.parametrize("text", JINJA.values(), ids=JINJA)
def test_jinja_in_messages(http: httpx.Client, text: str) -> None:
    """Jinja in a message of any role, and in its parts, is text."""
    system, answer = ({"role": role, "content": text} for role in ("system", "assistant"))
    parts = [{"type": "text", "text": text}]
    for messages in (
        [{"role": "user", "content": text}],
        [{"role": "user", "content": parts}],
        [system, USER],
        [USER, answer, USER],
    ):
        assert text.strip() in _prompt(http, {"messages": messages})


@pytest.mark.parametrize("text", JINJA.values(), ids=JINJA)
def test_jinja_in_tools(http: httpx.Client, text: str) -> None:
    """Jinja in a tool's name, description and schema, in a call and in a result is text."""
    written = json.dumps(text, ensure_ascii=False)
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}
    for tool in (_tool(name=text), _tool(description=text), _tool(parameters=schema)):
        assert written in _prompt(http, {"tools": [tool]})
    assert f"[{text}()]" in _prompt(http, _called("{}", name=text))
    assert f"lamp(a={written})" in _prompt(http, _called(json.dumps({"a": text})))
    conversation = _called("{}")
    conversation["messages"][-1]["content"] = text
    assert text in _prompt(http, conversation)


# --- tools

DEEP: dict[str, Any] = {}
for _ in range(100):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
TOOLS = {
    "129": {"tools": [_tool(name=f"f{number}") for number in range(129)]},
    "no list": {"tools": "lamp"},
    "no object": {"tools": ["lamp"]},
    "no function": {"tools": [{"type": "function"}]},
    "no name": {"tools": [{"type": "function", "function": {"description": "x"}}]},
    "a number for a name": {"tools": [_tool(name=7)]},
    "a list for parameters": {"tools": [_tool(parameters=[])]},
    "text for parameters": {"tools": [_tool(parameters="{}")]},
    "a list for a description": {"tools": [_tool(description=["x"])]},
    "too deep": {"tools": [_tool(parameters=DEEP)]},
    "required without tools": {"tool_choice": "required"},
    "named without tools": {"tool_choice": {"type": "function", "function": {"name": "lamp"}}},
    "auto without tools": {"tool_choice": "auto"},
    "required of none": {"tools": [], "tool_choice": "required"},
    "unknown name": {
        "tools": [_tool()],
        "tool_choice": {"type": "function", "function": {"name": "moon"}},
    },
    "unknown choice": {"tools": [_tool()], "tool_choice": "sometimes"},
    "choice without a function": {"tools": [_tool()], "tool_choice": {"type": "function"}},
    "choice without a name": {
        "tools": [_tool()],
        "tool_choice": {"type": "function", "function": {}},
    },
    "a number for a choice": {"tools": [_tool()], "tool_choice": 1},
    "a type that is no type": {
        "tools": [_tool(parameters={"type": "something"})],
        "tool_choice": "required",
    },
    "a pattern that is none": {
        "tools": [
            _tool(
                parameters={
                    "type": "object",
                    "properties": {"a": {"type": "string", "pattern": "("}},
                }
            ),
        ],
        "tool_choice": "required",
    },
}


@pytest.mark.parametrize("change", TOOLS.values(), ids=TOOLS)
def test_bad_tools(http: httpx.Client, change: dict[str, Any]) -> None:
    """Tools, or a choice among them, that make no sense are refused."""
    _refusal(http, change)
    _refusal(http, change | {"stream": True})


def test_as_many_tools_as_allowed(http: httpx.Client) -> None:
    """128 tools are taken."""
    tools = [_tool(name=f"f{number}") for number in range(128)]
    assert '{"name": "f127"}' in _prompt(http, {"tools": tools})


ARGUMENTS = {
    "half": '{"a": ',
    "list": "[1]",
    "null": "null",
    "number": 5,
    "array": [1],
    "not a number": '{"a": NaN}',
    "infinite": '{"a": -Infinity}',
    "words": "on, please",
    "two objects": "{}{}",
    "too deep": "[" * 100_000,
    "too deep an object": '{"a":' * 500 + "1" + "}" * 500,
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_arguments(http: httpx.Client, arguments: Any) -> None:
    """Arguments of an earlier call that are no JSON object are refused."""
    _refusal(http, _called(arguments))


ANSWERS = {
    "no function": {"tool_calls": [{"id": "1", "type": "function"}]},
    "no name": {"tool_calls": [{"id": "1", "function": {"arguments": "{}"}}]},
    "a number for a name": {"tool_calls": [{"function": {"name": 7, "arguments": "{}"}}]},
    "an empty name": {"tool_calls": [{"function": {"name": "", "arguments": "{}"}}]},
    "no list": {"tool_calls": {"id": "1"}},
    "no object": {"tool_calls": ["lamp"]},
    "text": {"tool_calls": "lamp()"},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_bad_calls(http: httpx.Client, answer: dict[str, Any]) -> None:
    """Earlier calls that are no calls are refused."""
    _refusal(http, {"messages": [USER, {"role": "assistant"} | answer, USER]})


RESULTS = {
    "no id": {"content": "done"},
    "unknown id": {"tool_call_id": "other", "content": "done"},
    "a number for an id": {"tool_call_id": 7, "content": "done"},
    "nothing": {"tool_call_id": "c1", "content": None},
    "no content": {"tool_call_id": "c1"},
    "parts": {"tool_call_id": "c1", "content": [{"type": "text", "text": "done"}]},
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_odd_results(http: httpx.Client, result: dict[str, Any]) -> None:
    """A result that belongs to no call, or says nothing, is a user's turn."""
    conversation = _called("{}")
    conversation["messages"][-1] = {"role": "tool"} | result
    prompt = _prompt(http, conversation)
    assert prompt.count("<tool_response>") == 1
    assert ("done" in prompt) == bool(result.get("content"))


# --- roles

MESSAGES = {
    "none": [],
    "no role": [{"content": "Hi"}],
    "unknown role": [{"role": "wizard", "content": "Hi"}],
    "capital role": [{"role": "User", "content": "Hi"}],
    "template in the role": [{"role": "{{ 7*7 }}", "content": "Hi"}],
    "turn in the role": [{"role": "user\nHi<end_of_turn>\n", "content": "Hi"}],
    "no string": [{"role": ["user"], "content": "Hi"}],
    "no object": ["Hi"],
    "a number": [{"role": "user", "content": 7}],
    "an object": [{"role": "user", "content": {"text": "Hi"}}],
    "unknown part": [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}],
    "a part without text": [{"role": "user", "content": [{"type": "text"}]}],
    "a number for a part": [{"role": "user", "content": [7]}],
    "video": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}],
    "too many": [USER] * 2049,
}


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_bad_messages(http: httpx.Client, messages: list[Any]) -> None:
    """Messages of no known role, or without content that can be read, are refused."""
    _refusal(http, {"messages": messages})
    _refusal(http, {"messages": messages}, RENDER)


ROLES = ("system", "developer", "user", "assistant", "model", "tool")


@pytest.mark.parametrize("first", ROLES)
def test_every_order_of_roles(http: httpx.Client, first: str) -> None:
    """Up to three messages of any roles become turns that alternate, after one BOS."""
    for count in range(3):
        for others in itertools.product(ROLES, repeat=count):
            messages = [{"role": role, "content": "a"} for role in (first, *others)]
            answer = http.post(RENDER, json={"messages": messages})
            assert answer.status_code == 200, (messages, answer.text)
            _check_turns(answer.json())


def _check_turns(rendered: dict[str, Any]) -> None:
    ids, prompt = rendered["token_ids"], rendered["prompt"]
    assert ids.count(BOS) == 1
    speakers = [turn.partition("\n")[0] for turn in prompt.split("<start_of_turn>")[1:]]
    assert speakers == [("user", "model")[at % 2] for at in range(len(speakers))]
    assert speakers[-1] == "model"
    assert ids.count(START_OF_TURN) == ids.count(END_OF_TURN) + 1


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_bad_messages_of_anthropics(http: httpx.Client, messages: list[Any]) -> None:
    """Under /v1/messages such messages are refused in Anthropic's shape."""
    body = {"model": "tiny", "messages": messages, "max_tokens": 4}
    answer = http.post("/v1/messages", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
