"""Our texts of Gemma 3's chat template render what the published one renders."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.chat.stock import outcome, packaged
from tests.official_gemma3 import official_gemma3

OURS = packaged("gemma3")
TOOLS = packaged("gemma3_tools")


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The published template."""
    directory = official_gemma3(tmp_path_factory.getbasetemp())
    template: str = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
    return template


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def model(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": value}


WORDS = st.text(max_size=12) | st.sampled_from(
    ["", " ", "\n", " padded \n", "<end_of_turn>", "{{ bos_token }}", "{% raw %}", "'\"\\n", "\t"]
)
PARTS = st.lists(
    st.builds(text, WORDS)
    | st.sampled_from(
        [
            {"type": "image"},
            {"type": "image", "text": "unused"},
            {"type": "audio"},
            {"type": "text"},
            {"text": "no type"},
            text(None),
            text(3),
            "bare",
            None,
        ]
    ),
    max_size=4,
)
CONTENT = (
    WORDS
    | PARTS
    | st.sampled_from([None, 7, True, {}, {"type": "text", "text": "a"}, ("a", "b"), [["text"]]])
)
ORDERLY = st.lists(st.tuples(WORDS | PARTS, WORDS | PARTS), min_size=1, max_size=3).map(
    lambda pairs: [turn for ask, answer in pairs for turn in (user(ask), model(answer))]
)
OPENED = st.tuples(WORDS | PARTS, ORDERLY).map(lambda pair: [system(pair[0]), *pair[1]])
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "developer", "model", "", None, 1])
DISORDERLY = st.lists(
    st.fixed_dictionaries({}, optional={"role": ROLES, "content": CONTENT}), max_size=5
)


@settings(max_examples=1500, deadline=None)
@given(
    messages=ORDERLY | OPENED | DISORDERLY,
    add_generation_prompt=st.booleans(),
    bos_token=st.sampled_from(["<bos>", ""]),
)
@example([], True, "<bos>")
@example([system("alone")], True, "<bos>")
@example([system(" both "), model("first")], True, "<bos>")
@example([system([]), user("a")], False, "<bos>")
@example([user("a"), user("b")], False, "<bos>")
@example([user("a"), system("late")], False, "<bos>")
@example([user("a"), {"role": "tool", "content": "late"}], False, "<bos>")
@example([user(None)], False, "<bos>")
def test_renders_what_the_published_template_renders(
    stock: str, messages: Any, add_generation_prompt: bool, bos_token: str
) -> None:
    """Byte for byte the same text, or the same error; gemma3_tools too, where no tool speaks."""
    variables = {"add_generation_prompt": add_generation_prompt, "bos_token": bos_token}
    assert outcome(OURS, messages, **variables) == outcome(stock, messages, **variables)
    if all(message.get("role") != "tool" for message in messages):
        assert outcome(TOOLS, messages, **variables) == outcome(stock, messages, **variables)


def test_absent_variables_render_alike(stock: str) -> None:
    """Without bos_token and add_generation_prompt both leave the same parts out."""
    assert outcome(OURS, [user("a")]) == outcome(stock, [user("a")])


def test_renders_a_conversation() -> None:
    """The format itself: system text opens the first turn, texts are trimmed, one <bos>."""
    messages = [system("Be brief."), user(" Hi "), model("Hello"), user([{"type": "image"}])]
    assert outcome(OURS, messages, bos_token="<bos>", add_generation_prompt=True) == (
        "rendered",
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\n<start_of_image><end_of_turn>\n"
        "<start_of_turn>model\n",
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([model("a")], "Conversation roles must alternate user/assistant/user/assistant/..."),
        ([user(None)], "Invalid content type"),
    ],
)
def test_refusals_carry_the_published_sentences(messages: Any, message: str) -> None:
    """What the template refuses, it refuses in the published words, which clients match on."""
    assert outcome(OURS, messages, bos_token="<bos>") == ("TemplateError", message)
