"""Requests that people reported as refused by Gemma, and the prompts that they become here."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_serve.chat.tools import declarations_text
from tests.chat.conversation import (
    GEMMA1,
    GEMMA2,
    GEMMA3,
    call,
    model,
    normalised,
    prompt,
    render,
    system,
    text,
    tool,
    user,
)

ALL = (GEMMA1, GEMMA2, GEMMA3)
MODEL = "<start_of_turn>model\n"
END = "<end_of_turn>\n"
PARAGRAPH = "\n\n"


def turn(content: str) -> str:
    return f"<start_of_turn>user\n{content}{END}"


def assert_refused(name: str, messages: list[dict[str, Any]], sentence: str) -> None:
    """The template by itself refuses the request, which is what was reported."""
    with pytest.raises(Exception, match=sentence):
        render(name, messages)


@pytest.mark.parametrize("name", [GEMMA1, GEMMA2])
@pytest.mark.parametrize("preprompt", ["", "Answer in Spanish."])
def test_chat_ui_1386(name: str, preprompt: str) -> None:
    """huggingface/chat-ui#1386: the page puts a system message first, empty if none was set."""
    messages = [system(preprompt), user("Hola"), model("¡Hola!"), user("¿Qué tal?")]
    assert_refused(name, messages, "System role not supported")
    opening = f"{preprompt}\n\nHola" if preprompt else "Hola"
    assert prompt(name, messages) == (
        f"<bos>{turn(opening)}{MODEL}¡Hola!{END}{turn('¿Qué tal?')}{MODEL}"
    )
    assert normalised(name, messages).rules == ("system_to_user",)


@pytest.mark.parametrize("name", [GEMMA1, GEMMA2])
def test_sglang_892(name: str) -> None:
    """sgl-project/sglang#892: OpenAI's client with a system message, answered by a 500 there."""
    messages = [
        system("You are a helpful AI assistant"),
        user("List 3 countries and their capitals."),
    ]
    assert_refused(name, messages, "System role not supported")
    opening = "You are a helpful AI assistant\n\nList 3 countries and their capitals."
    assert prompt(name, messages) == f"<bos>{turn(opening)}{MODEL}"


@pytest.mark.parametrize("name", ALL)
def test_guidellm_67(name: str) -> None:
    """vllm-project/guidellm#67: a benchmark sent each prompt as a lone system message."""
    messages = [system("Call me Ishmael. Some years ago")]
    if name != GEMMA3:
        assert_refused(name, messages, "System role not supported")
    assert prompt(name, messages) == f"<bos>{turn('Call me Ishmael. Some years ago')}{MODEL}"
    assert normalised(name, messages).rules == ("system_to_user",)


TRANSFER = {
    "type": "function",
    "function": {
        "name": "transfer_to_agent",
        "description": "Transfer the question to another agent.",
        "parameters": {"type": "object", "properties": {"agent_name": {"type": "string"}}},
    },
}
CALLED = "[root_agent] called tool `transfer_to_agent` with parameters: {'agent_name': 'weather'}"
RETURNED = "[root_agent] `transfer_to_agent` tool returned result: {'result': None}"
# What the second agent sends: its instructions as developer, the question, and what happened so
# far as the user's words, in parts.
TRANSFERRED = [
    {"role": "developer", "content": "You give weather reports."},
    user("What is the weather in Taipei?"),
    user([text("For context:"), text(CALLED)]),
    user([text("For context:"), text(RETURNED)]),
]


@pytest.mark.parametrize("name", ALL)
def test_adk_1373(name: str) -> None:
    """google/adk-python#1373: a transfer between agents, on Gemma 3 behind vLLM."""
    # Gemma 2 wants strings, where parts are lines; Gemma 3's template runs parts together.
    line = "" if name == GEMMA3 else "\n"
    alternate = "Conversation roles must alternate"
    assert_refused(name, TRANSFERRED, alternate)
    assert prompt(name, TRANSFERRED, [TRANSFER]) == (
        f"<bos><start_of_turn>user\nYou give weather reports.\n\n{declarations_text([TRANSFER])}"
        "\n\nWhat is the weather in Taipei?\n\n"
        f"For context:{line}{CALLED}\n\nFor context:{line}{RETURNED}{END}{MODEL}"
    )
    assert normalised(name, TRANSFERRED, [TRANSFER]).rules[:2] == (
        "developer_to_system",
        "tools_as_text",
    )


@pytest.mark.parametrize("name", ALL)
def test_adk_1373_first_agent(name: str) -> None:
    """The same, seen by the first agent: a call and its result, then a new question."""
    messages = [
        {"role": "developer", "content": "You route questions."},
        user("What is the weather in Taipei?"),
        model(None, tool_calls=[call("transfer_to_agent", '{"agent_name": "weather"}')]),
        tool('{"result": null}'),
        user("And tomorrow?"),
    ]
    assert prompt(name, messages) == (
        f"<bos>{turn('You route questions.' + PARAGRAPH + 'What is the weather in Taipei?')}"
        f'{MODEL}[transfer_to_agent(agent_name="weather")]{END}'
        "<start_of_turn>user\n"
        '<tool_response>\ntransfer_to_agent: {"result": null}\n</tool_response>'
        f"\n\nAnd tomorrow?{END}{MODEL}"
    )


def test_text_generation_inference_3198() -> None:
    """huggingface/text-generation-inference#3198: a call and its result, on Gemma 3."""
    messages = [
        system("You are a personal assistant...."),
        user("Hi"),
        model(None, tool_calls=[call("get-profile", '{"actor_id":"22"}', "0")]),
        tool('{"errors":{"detail":"Not Found"}}', "0"),
    ]
    assert_refused(GEMMA3, messages, "Invalid content type")
    assert prompt(GEMMA3, messages) == (
        f"<bos>{turn('You are a personal assistant....' + PARAGRAPH + 'Hi')}"
        f'{MODEL}[get-profile(actor_id="22")]{END}'
        "<start_of_turn>user\n"
        '<tool_response>\nget-profile: {"errors":{"detail":"Not Found"}}\n</tool_response>'
        f"{END}{MODEL}"
    )


@pytest.mark.parametrize("name", ALL)
def test_autogen_3597(name: str) -> None:
    """microsoft/autogen#3597: in a group chat, an agent sees only others, or itself first."""
    others = [system("You are a critic."), user("Draft one."), user("Draft two.")]
    assert prompt(name, others) == (
        f"<bos>{turn('You are a critic.' + PARAGRAPH + 'Draft one.' + PARAGRAPH + 'Draft two.')}"
        f"{MODEL}"
    )
    itself = [system("You are a writer."), model("Draft one."), user("Too long.")]
    opening = "You are a writer." + (PARAGRAPH if name == GEMMA3 else "")
    assert prompt(name, itself) == (
        f"<bos>{turn(opening)}{MODEL}Draft one.{END}{turn('Too long.')}{MODEL}"
    )


@pytest.mark.parametrize("role", ["tool", "tool_responses"])
def test_adk_5655(role: str) -> None:
    """google/adk-python#5655: to Gemma 4 the agent kit sends results as role tool_responses."""
    messages = [
        user("Time?"),
        model(None, tool_calls=[call("clock")]),
        {"role": role, "tool_call_id": "call_1", "content": "12:00"},
    ]
    shown = prompt("gemma4", messages)
    assert "<|tool_call>call:clock{}<tool_call|>" in shown
    assert shown.count("12:00") == 1
    assert "tool_responses" not in shown
