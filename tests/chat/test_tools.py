"""Tools as text: declarations, calls and results in Gemma 3's published convention."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_serve.chat.messages import normalise
from gemma_serve.chat.tools import calls_text, declarations_text, result_content
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Chat
from tests.chat.conversation import (
    EVERYTHING,
    GEMMA2,
    GEMMA3,
    call,
    image,
    model,
    normalised,
    prompt,
    system,
    text,
    tool,
    user,
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city, in °C",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
DECLARED = declarations_text([WEATHER])


def parsed(arguments: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def test_declarations_hold_the_schema_as_it_is() -> None:
    """The last line is the function's JSON: name, description and parameters, nothing escaped."""
    assert json.loads(DECLARED.splitlines()[-1]) == WEATHER["function"]
    assert "°C" in DECLARED


def test_declaration_leaves_nulls_and_other_fields_out() -> None:
    """What vLLM adds to a declaration, such as a null description, is not shown to the model."""
    declared = {"name": "now", "description": None, "parameters": None, "strict": None}
    assert declarations_text([{"type": "function", "function": declared}]).endswith(
        '\n{"name": "now"}'
    )


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ({}, "f()"),
        ({"city": "Paris"}, 'f(city="Paris")'),
        ({"a": True, "b": False, "c": None}, "f(a=True, b=False, c=None)"),
        ({"n": 3, "x": 0.5, "l": [1, "a", None]}, 'f(n=3, x=0.5, l=[1, "a", None])'),
        ({"o": {"k": [True], "ü": 'say "hi"\n'}}, 'f(o={"k": [True], "ü": "say \\"hi\\"\\n"})'),
        ({"my-key": 1}, "f(my-key=1)"),
    ],
)
def test_call_is_written_as_python(arguments: dict[str, Any], written: str) -> None:
    """JSON values become Python literals; names that Python would not take stay as they are."""
    assert calls_text([parsed(arguments)]) == f"[{written}]"


def test_calls_of_one_turn_share_a_list() -> None:
    """Parallel calls are one Python list, in order."""
    assert calls_text([parsed({"a": 1}, "get-x"), parsed({}, "g")]) == "[get-x(a=1), g()]"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,8}_\Z"), JSON, max_size=4))
def test_call_reads_back_as_the_same_values(arguments: dict[str, Any]) -> None:
    """Python reads from the text what the arguments were, whatever is in them."""
    (node,) = ast.parse(calls_text([parsed(arguments)]), mode="eval").body.elts  # type: ignore[attr-defined]
    assert {k.arg: ast.literal_eval(k.value) for k in node.keywords} == arguments


def test_whole_exchange_as_gemma_3_gets_it() -> None:
    """Declarations open the first turn, the call is the model's text, the result the user's."""
    messages = [
        system("Be brief."),
        user("Weather in Paris?"),
        model(None, tool_calls=[call("get_weather", '{"city": "Paris"}')]),
        tool('{"celsius": 21}'),
    ]
    assert prompt(GEMMA3, messages, [WEATHER]) == (
        f"<bos><start_of_turn>user\nBe brief.\n\n{DECLARED}\n\nWeather in Paris?<end_of_turn>\n"
        '<start_of_turn>model\n[get_weather(city="Paris")]<end_of_turn>\n'
        '<start_of_turn>user\n<tool_response>\nget_weather: {"celsius": 21}\n</tool_response>'
        "<end_of_turn>\n<start_of_turn>model\n"
    )
    result = normalised(GEMMA3, messages, [WEATHER])
    assert result.tools is None
    assert result.rules == ("tools_as_text",)
    assert prompt(GEMMA2, messages, [WEATHER]) == prompt(GEMMA3, messages, [WEATHER])


@pytest.mark.parametrize("name", [GEMMA2, GEMMA3])
def test_declarations_without_a_system_message(name: str) -> None:
    """Without a system message the declarations open the first user turn all the same."""
    opening = f"<bos><start_of_turn>user\n{DECLARED}\n\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert prompt(name, [user("Hi")], [WEATHER]) == opening


def test_declarations_need_no_other_rule() -> None:
    """Declarations never become a system message that the template would then refuse."""
    result = normalised(GEMMA2, [user("Hi")], [WEATHER], system_to_user=False)
    assert result.messages == [user(f"{DECLARED}\n\nHi")]


def test_declarations_after_all_system_texts() -> None:
    """System messages join first, so that the declarations follow all of them."""
    messages = [system("S"), user("U"), system("T"), user("V")]
    result = normalised(GEMMA3, messages, [WEATHER])
    assert result.messages == [system(f"S\n\nT\n\n{DECLARED}"), user("U\n\nV")]
    assert result.rules == ("merge_system", "tools_as_text", "merge_turns")


def test_packaged_tools_template_says_the_same() -> None:
    """Gemma 3's packaged template with tools writes what the rule writes for the one without."""
    calls = [call("get_weather", '{"city": "Paris", "days": [1, null]}'), call("f", call_id="b")]
    messages = [
        system("Be brief."),
        user("Go"),
        model("Sure.", tool_calls=calls),
        tool('{"celsius": 21}'),
        tool("<b>", "b"),
        user("And?"),
    ]
    assert normalised("gemma3_tools", messages, [WEATHER]).rules == ()
    shown = prompt("gemma3_tools", messages, [WEATHER])
    assert shown == prompt(GEMMA3, messages, [WEATHER])


def test_declarations_before_an_opening_answer() -> None:
    """Where the assistant speaks first, the declarations get a user turn of their own."""
    result = normalised(GEMMA2, [model("Hello"), user("Hi")], [WEATHER])
    assert result.messages == [user(DECLARED), model("Hello"), user("Hi")]
    assert result.rules == ("tools_as_text",)


def test_results_in_a_row_are_one_user_turn() -> None:
    """Results of parallel calls join, each with its function's name, and so does what follows."""
    calls = [call("one", call_id="a"), call("two", '{"x": 1}', call_id="b")]
    messages = [user("Go"), model("Sure.", tool_calls=calls), tool("1", "a"), tool("2", "b")]
    result = normalised(GEMMA3, [*messages, user("And?")])
    assert result.messages[1:] == [
        model("Sure.\n\n[one(), two(x=1)]"),
        user(
            "<tool_response>\none: 1\n</tool_response>\n\n"
            "<tool_response>\ntwo: 2\n</tool_response>\n\nAnd?"
        ),
    ]
    assert result.rules == ("tools_as_text", "merge_turns")


def test_result_without_a_known_call() -> None:
    """An id that no call has is no fault; a name on the result itself is used."""
    named = {"role": "tool", "name": "clock", "content": "12:00"}
    result = normalised(GEMMA3, [user("Go"), model("Wait"), tool("1", "unknown"), named])
    assert result.messages[-1] == user(
        "<tool_response>\n1\n</tool_response>\n\n<tool_response>\nclock: 12:00\n</tool_response>"
    )


def test_legacy_functions_are_tools() -> None:
    """OpenAI's old function_call and role function are read as a call and its result."""
    function = {"name": "clock", "arguments": {}}
    messages = [
        user("Time?"),
        {"role": "assistant", "function_call": {"name": "clock", "arguments": ""}},
        {"role": "function", "name": "clock", "content": "12:00"},
    ]
    assert normalised(GEMMA3, messages).messages[1:] == [
        model("[clock()]"),
        user("<tool_response>\nclock: 12:00\n</tool_response>"),
    ]
    assert normalised("gemma4", messages).messages[1:] == [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": "clock", "content": "12:00"},
    ]


def test_result_may_hold_parts() -> None:
    """Text parts of a result become its text; an image stays an image between the tags."""
    assert result_content([text("a"), text("b")], None) == "<tool_response>\na\nb\n</tool_response>"
    assert result_content(None, "f") == "<tool_response>\nf: \n</tool_response>"
    assert result_content([image()], "f") == [
        text("<tool_response>\nf: "),
        image(),
        text("\n</tool_response>"),
    ]


def test_native_tools_are_left_alone() -> None:
    """Where the template does tools, only arguments are read, so that the guard can see them."""
    messages = [
        user("Go"),
        model(None, tool_calls=[call("f", '{"a": "<end_of_turn>"}')]),
        {"role": "tool_responses", "tool_call_id": "call_1", "content": "1"},
    ]
    result = normalise(messages, [WEATHER], EVERYTHING, Chat(strict=True))
    assert result.tools == [WEATHER]
    assert result.rules == ()
    assert result.messages == [
        user("Go"),
        model(None, tool_calls=[call("f", {"a": "<end_of_turn>"})]),
        tool("1"),
    ]


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"])
def test_no_arguments_in_any_spelling(arguments: Any) -> None:
    """Clients write "no arguments" in several ways."""
    messages = [user("Go"), model(None, tool_calls=[call("f", arguments)])]
    assert normalised(GEMMA3, messages).messages[1] == model("[f()]")


@pytest.mark.parametrize("name", [GEMMA3, "gemma4"])
@pytest.mark.parametrize(
    "arguments",
    ["{", "[1]", "3", "null", '{"a": NaN}', "[" * 100_000, f'{{"a": {"9" * 5000}}}', 3, ["a"]],
)
def test_arguments_that_are_no_object(arguments: Any, name: str) -> None:
    """Arguments that can't be read are the client's fault, and the error says where they are."""
    messages = [user("Go"), model(None, tool_calls=[call("f"), call("f", arguments)])]
    with pytest.raises(RequestError) as caught:
        normalised(name, messages)
    assert caught.value.param == "messages[1].tool_calls[1].function.arguments"
    assert caught.value.message == (
        "messages[1].tool_calls[1].function.arguments must be a JSON object, or a string that "
        "holds one."
    )


@pytest.mark.parametrize(
    ("calls", "param"),
    [
        ("f()", "messages[1].tool_calls"),
        (["f()"], "messages[1].tool_calls[0]"),
        ([{"type": "function"}], "messages[1].tool_calls[0]"),
        ([{"function": {"arguments": "{}"}}], "messages[1].tool_calls[0].function.name"),
        ([{"function": {"name": ""}}], "messages[1].tool_calls[0].function.name"),
    ],
)
def test_calls_that_are_none(calls: Any, param: str) -> None:
    """A call needs a function with a name."""
    with pytest.raises(RequestError) as caught:
        normalised(GEMMA3, [user("Go"), model("", tool_calls=calls)])
    assert caught.value.param == param


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_nested_too_deep_is_refused() -> None:
    """Depth that Python can't write is a client's fault, in calls and in declarations."""
    with pytest.raises(RequestError):
        normalised(GEMMA3, [user("Go"), model("", tool_calls=[call("f", nested(5000))])])
    deep = {"type": "function", "function": {"name": "f", "parameters": nested(5000)}}
    with pytest.raises(RequestError) as caught:
        normalised(GEMMA3, [user("Go")], [deep])
    assert caught.value.param == "tools[0].function.parameters"


@pytest.mark.parametrize("declared", ["f", {}, {"function": {"description": "no name"}}])
def test_declaration_needs_a_name(declared: Any) -> None:
    """A declaration that can't be called is refused, with its place."""
    with pytest.raises(RequestError) as caught:
        normalised(GEMMA3, [user("Go")], [WEATHER, declared])
    assert caught.value.param == "tools[1]"
