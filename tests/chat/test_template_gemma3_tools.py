"""gemma3_tools.jinja writes tools in the words that the rule tools_as_text writes."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_serve.chat.abilities import Abilities, abilities_of
from gemma_serve.chat.messages import normalise
from gemma_serve.chat.tools import declarations_text
from gemma_serve.profile.schema import Chat
from tests.chat.stock import outcome, packaged

PLAIN, TOOLS = packaged("gemma3"), packaged("gemma3_tools")
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "Où"}}}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY},
}
NOW = {"type": "function", "function": {"name": "now", "strict": True}}
ARGUMENTS = {
    "city": 'Zürich "<old>"\n',
    "days": [1, 2.5, None],
    "exact": True,
    "more": {"a": {}, "b": [False]},
}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def model(content: Any, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"tool_calls": [*calls]} if calls else {})


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def call(name: str, call_id: str | None = None, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "function": function} | ({"id": call_id} if call_id else {})


def result(content: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **keys}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def abilities(template: str) -> Abilities:
    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        kind, text = outcome(template, messages, tools, bos_token="", add_generation_prompt=True)
        assert kind == "rendered"
        return text

    return abilities_of(render)


def prompt(template: str, messages: Any, tools: Any) -> tuple[str, str]:
    """The prompt of a conversation that the rules have mended for the template."""
    normal = normalise(messages, tools, abilities(template), Chat())
    variables = {"bos_token": "<bos>", "add_generation_prompt": True}
    return outcome(template, normal.messages, normal.tools, **variables)


ASK = user(" Weather? ")
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CALLED = [ASK, model(None, call("get_weather", "1", **ARGUMENTS), call("now", "2"))]
ANSWERED = [*CALLED, result("19 C", tool_call_id="1"), result("noon\n", tool_call_id="2")]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([ASK], id="declared"),
        pytest.param([system(" Be brief. \n"), ASK], id="after the system text"),
        pytest.param([system(""), ASK], id="empty system text"),
        pytest.param([system([text("One."), text("Two.")]), ASK], id="system parts"),
        pytest.param([user([IMAGE, text(" Where? ")])], id="image"),
        pytest.param([ASK, model(" Let me see. ", call("now"))], id="words and a call"),
        pytest.param([ASK, model([text("I "), text(" see")], call("now"))], id="parts and a call"),
        pytest.param([ASK, model("", call("now"))], id="empty words and a call"),
        pytest.param(CALLED, id="calls"),
        pytest.param(ANSWERED, id="results"),
        pytest.param([*ANSWERED, model("19."), user("Thanks")], id="answer after results"),
        pytest.param([*ANSWERED, user("\nSo? ")], id="user after results"),
        pytest.param([*ANSWERED, user([text(" So? "), text(" Well? ")])], id="parts after results"),
        pytest.param([*ANSWERED, user("")], id="empty user after results"),
        pytest.param(
            [*ANSWERED, model(None, call("now", "3")), result("1", tool_call_id="3")], id="rounds"
        ),
        pytest.param([user(" Hi"), result("x")], id="result nobody asked for"),
        pytest.param([*CALLED, result("x", tool_call_id="9", name="other")], id="unknown id, name"),
        pytest.param([*CALLED, result("x", tool_call_id="9")], id="unknown id, no name"),
        pytest.param(
            [*CALLED, result([text("a "), text(" b")], tool_call_id="1")], id="result parts"
        ),
        pytest.param([*CALLED, result([text("a "), IMAGE], tool_call_id="1")], id="result image"),
        pytest.param([*CALLED, result([], tool_call_id="1")], id="no result parts"),
        pytest.param([*CALLED, result(None, tool_call_id="1")], id="null result"),
        pytest.param([*CALLED, result("", tool_call_id="1")], id="empty result"),
        pytest.param([model("Hello"), ASK], id="assistant first"),
        pytest.param([ASK, user("Now?")], id="two users"),
    ],
)
@pytest.mark.parametrize("tools", [[WEATHER, NOW], [NOW], None], ids=["two", "one", "none"])
def test_same_prompt_as_the_rule_writes(messages: Any, tools: Any) -> None:
    """A conversation with tools gives one prompt, whether the rule or the template writes them."""
    kind, text = prompt(TOOLS, messages, tools)
    assert kind == "rendered"
    assert text == prompt(PLAIN, messages, tools)[1]


def test_can_do_what_gemma3_can_and_tools() -> None:
    """The template's abilities are those of gemma3.jinja, and tools."""
    plain = abilities(PLAIN)
    assert not plain.tools
    assert abilities(TOOLS) == Abilities(**{**plain.__dict__, "tools": True})


def test_writes_declarations_calls_and_results() -> None:
    """The format itself: JSON before the first words, a Python list, results in a user turn."""
    messages = [*CALLED, result("19 C", tool_call_id="1")]
    variables = {"bos_token": "<bos>", "add_generation_prompt": True}
    assert outcome(TOOLS, messages, [NOW], **variables) == (
        "rendered",
        "<bos><start_of_turn>user\n" + declarations_text([NOW]) + "\n\nWeather?<end_of_turn>\n"
        "<start_of_turn>model\n"
        '[get_weather(city="Zürich \\"<old>\\"\\n", days=[1, 2.5, None], exact=True, '
        'more={"a": {}, "b": [False]}), now()]<end_of_turn>\n'
        "<start_of_turn>user\n<tool_response>\nget_weather: 19 C\n</tool_response><end_of_turn>\n"
        "<start_of_turn>model\n",
    )


def test_refuses_arguments_that_are_no_object() -> None:
    """Arguments as a string would be quoted as one value; the template says what it takes."""
    wrong = {"id": "1", "function": {"name": "now", "arguments": "{}"}}
    sentence = "The arguments of a tool call must be an object"
    assert outcome(TOOLS, [ASK, model(None, wrong)]) == ("TemplateError", sentence)
