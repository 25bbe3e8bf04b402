"""Conversations that Gemma's templates refuse become ones that they take, and nothing is lost."""

from __future__ import annotations

import base64
import copy
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gemma_serve.chat.messages import helpful, normalise
from gemma_serve.chat.rules import RULES
from gemma_serve.chat.tools import declarations_text
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Chat
from tests.chat.conversation import (
    EVERYTHING,
    GEMMA1,
    GEMMA2,
    GEMMA3,
    abilities,
    call,
    image,
    model,
    normalised,
    render,
    system,
    text,
    tool,
    user,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
PREFILL = ("prefill",)


def developer(content: Any) -> dict[str, Any]:
    return {"role": "developer", "content": content}


def gemini(content: Any) -> dict[str, Any]:
    return {"role": "model", "content": content}


CASES: list[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]], tuple[str, ...]]] = [
    (
        "system opens the first user turn where the template has none",
        GEMMA2,
        [system("S"), user("U")],
        [user("S\n\nU")],
        ("system_to_user",),
    ),
    (
        "system before an answer is a user turn of its own",
        GEMMA2,
        [system("S"), model("A"), user("U")],
        [user("S"), model("A"), user("U")],
        ("system_to_user",),
    ),
    (
        "an empty system message leaves no trace",
        GEMMA2,
        [system(""), user("U")],
        [user("U")],
        ("system_to_user",),
    ),
    (
        "a system message alone is a user turn, because Gemma 3 would show nothing of it",
        GEMMA3,
        [system("S")],
        [user("S")],
        ("system_to_user",),
    ),
    (
        "an image in a system message takes it to the user turn, where Gemma 3 shows images",
        GEMMA3,
        [system([text("S"), image()]), user("U")],
        [user([text("S"), image(), text("U")])],
        ("system_to_user",),
    ),
    (
        "several system parts become one text, because Gemma 3 shows only the first",
        GEMMA3,
        [system([text("S"), text("T")]), user("U")],
        [system("S\nT"), user("U")],
        ("text_parts",),
    ),
    (
        "later system messages join the leading one",
        GEMMA3,
        [system("S"), user("U"), system("T"), model("A"), system("V"), user("W")],
        [system("S\n\nT\n\nV"), user("U"), model("A"), user("W")],
        ("merge_system",),
    ),
    (
        "a system message in mid-conversation leads where none does",
        GEMMA3,
        [user("U"), model("A"), system("S"), user("V")],
        [system("S"), user("U"), model("A"), user("V")],
        ("merge_system",),
    ),
    (
        "a system message after the last answer is what the model has to answer",
        GEMMA3,
        [system("S"), user("U"), model("A"), system("T"), system("V")],
        [system("S"), user("U"), model("A"), user("T\n\nV")],
        ("merge_system", "merge_turns"),
    ),
    (
        "several system messages open the first user turn of Gemma 2",
        GEMMA2,
        [system("S"), system("T"), user("U")],
        [user("S\n\nT\n\nU")],
        ("merge_system", "system_to_user"),
    ),
    (
        "developer is system",
        GEMMA3,
        [developer("D"), user("U")],
        [system("D"), user("U")],
        ("developer_to_system",),
    ),
    (
        "developer and system join",
        GEMMA2,
        [developer("D"), system("S"), user("U")],
        [user("D\n\nS\n\nU")],
        ("developer_to_system", "merge_system", "system_to_user"),
    ),
    (
        "turns of one role in a row join",
        GEMMA3,
        [user("U"), user("V"), model("A"), model("B"), user("W")],
        [user("U\n\nV"), model("A\n\nB"), user("W")],
        ("merge_turns",),
    ),
    (
        "texts that meet become one part, parts that are no text stay apart",
        GEMMA3,
        [user([image(), text("U")]), user("V"), user([text("W"), image()]), user([image()])],
        [user([image(), text("U\n\nV\n\nW"), image(), image()])],
        ("merge_turns",),
    ),
    (
        "an empty turn joins without an empty line",
        GEMMA3,
        [user(""), user("U"), user([]), user(None)],
        [user("U")],
        ("empty_content", "merge_turns"),
    ),
    (
        "reasoning of answers that join is kept beside them",
        GEMMA3,
        [user("U"), model("A", reasoning="R"), model("B", reasoning="Q"), user("V")],
        [user("U"), model("A\n\nB", reasoning="R\n\nQ"), user("V")],
        ("merge_turns",),
    ),
    (
        "an opening answer gets an empty user turn before it",
        GEMMA2,
        [model("A"), user("U")],
        [user(""), model("A"), user("U")],
        ("assistant_first",),
    ),
    (
        "an opening answer after the system message too",
        GEMMA3,
        [system("S"), model("A"), user("U")],
        [system("S"), user(""), model("A"), user("U")],
        ("assistant_first",),
    ),
    (
        "null and missing content are empty",
        GEMMA3,
        [user(None), {"role": "assistant"}, user("U")],
        [user(""), model(""), user("U")],
        ("empty_content",),
    ),
    (
        "empty answers at the end ask to begin",
        GEMMA3,
        [user("U"), model(""), model([text(" \n")]), model(None)],
        [user("U")],
        ("empty_content",),
    ),
    ("silence is an empty user turn", GEMMA3, [model("")], [user("")], ("empty_content",)),
    (
        "text parts become a string where one is wanted, joined as vLLM joins them",
        GEMMA2,
        [user([text("U"), "V"]), model([{"type": "output_text", "text": "A"}]), user([])],
        [user("U\nV"), model("A"), user("")],
        ("text_parts",),
    ),
    (
        "text parts stay where they are taken",
        GEMMA3,
        [user([text("U"), text("V")])],
        [user([text("U"), text("V")])],
        (),
    ),
    (
        "role model is assistant",
        GEMMA3,
        [user("U"), gemini("A"), user("V")],
        [user("U"), model("A"), user("V")],
        ("model_role",),
    ),
]


@pytest.mark.parametrize(
    ("name", "messages", "expected", "rules"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_rule(
    name: str,
    messages: list[dict[str, Any]],
    expected: list[dict[str, Any]],
    rules: tuple[str, ...],
) -> None:
    """Each case of the table: what is sent, what the template gets, which rules did it."""
    before = copy.deepcopy(messages)
    result = normalised(name, messages)
    assert result.messages == expected
    assert result.rules == rules
    assert not result.continue_final_message
    assert messages == before
    assert render(name, result.messages)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_gemma_4_needs_no_rule(case: tuple[Any, ...]) -> None:
    """What Gemma 4 takes by itself reaches it as it was sent, and its template renders it."""
    messages = case[2]
    result = normalised("gemma4", messages)
    assert set(result.rules) <= {"model_role", "empty_content"}
    if not result.rules:
        wrapped = [text("U"), text("V")]
        plain = [m if m.get("content") != [text("U"), "V"] else user(wrapped) for m in messages]
        assert result.messages == plain
    assert render("gemma4", result.messages)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_strict_names_what_would_have_helped(case: tuple[Any, ...]) -> None:
    """With chat.strict the same requests are refused, with the rules' names; nothing is changed."""
    _, name, messages, _, rules = case
    if not rules:
        result = normalised(name, messages, strict=True)
        assert (result.messages, result.rules) == (messages, ())
        return
    with pytest.raises(RequestError) as caught:
        normalised(name, messages, strict=True)
    assert caught.value.message == (
        f"The messages need {', '.join(rules)} to fit the model's chat template, and chat.strict "
        "changes nothing; send them as the template takes them, or serve with chat.strict: false."
    )
    assert caught.value.status == 400
    assert caught.value.param == "messages"


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_rules_that_are_off_do_nothing_and_are_named(case: tuple[Any, ...]) -> None:
    """With every rule off nothing changes, and `helpful` says which rules are missed."""
    _, name, messages, _, rules = case
    off = {rule: False for rule, _ in RULES}
    result = normalised(name, messages, **off)
    assert result.rules == ()
    assert helpful(messages, None, abilities(name), Chat(**off)) == rules
    assert helpful(messages, None, abilities(name), Chat()) == ()


def test_one_rule_off_leaves_the_others() -> None:
    """A rule that is off is skipped alone, and only that one is named as missed."""
    messages = [developer("D"), user("U"), user("V")]
    chat = Chat(merge_turns=False)
    result = normalise(messages, None, abilities(GEMMA3), chat)
    assert result.messages == [system("D"), user("U"), user("V")]
    assert helpful(messages, None, abilities(GEMMA3), chat) == ("merge_turns",)


def test_later_system_messages_as_user_turns() -> None:
    """merge_system: user leaves later system messages where they are, as the user's words."""
    messages = [system("S"), user("U"), system("T"), model("A"), system("V"), user("W")]
    result = normalised(GEMMA3, messages, merge_system="user")
    assert result.messages == [system("S"), user("U\n\nT"), model("A"), user("V\n\nW")]
    assert result.rules == ("merge_system", "merge_turns")


def test_dropping_an_opening_answer() -> None:
    """assistant_first: drop drops it, unless no user turn would be left to answer."""
    dropped = normalised(GEMMA3, [system("S"), model("A"), model("B"), user("U")],
                         assistant_first="drop")  # fmt: skip
    assert dropped.messages == [system("S"), user("U")]
    kept = normalised(GEMMA3, [model("A")], assistant_first="drop")
    assert kept.messages == [user(""), model("A")]
    assert normalised("gemma4", [model("A"), user("U")], assistant_first="drop").rules == ()


@pytest.mark.parametrize("name", [GEMMA2, GEMMA3, "gemma4"])
@pytest.mark.parametrize("last", [model("The answer"), model([text("The answer")])])
def test_last_answer_is_continued(name: str, last: dict[str, Any]) -> None:
    """An answer that the client has begun is continued, on every generation."""
    result = normalised(name, [user("U"), last])
    assert result.continue_final_message
    assert result.rules[-1:] == PREFILL
    assert not normalised(name, [user("U"), last], prefill=False).continue_final_message


@pytest.mark.parametrize(
    "messages",
    [
        [user("U"), model("A"), user("V")],
        [user("U"), model("A", tool_calls=[call("f")])],
        [user("U"), model("A"), system("S")],
        [user("U"), model(None, reasoning="R")],
        [user("U"), model(" \n")],
        [user("U"), model("A"), tool("R")],
    ],
)
@pytest.mark.parametrize("name", [GEMMA3, "gemma4"])
def test_what_is_not_continued(name: str, messages: list[dict[str, Any]]) -> None:
    """Only words of the assistant at the very end are a beginning; a call or silence is not."""
    assert not normalised(name, messages).continue_final_message


THOUGHT = "<|channel>thought\nHm.<channel|>"


@pytest.mark.parametrize("name", ["gemma4", "gemma4_large"])
@pytest.mark.parametrize(
    "content",
    [
        f"{THOUGHT}The Po and",
        f"The Po {THOUGHT}and",
        "The Po and<|channel>thought\nHm.",
        "The Po<channel|> and",
        [text(THOUGHT), text("The Po and")],
        [text(f"{THOUGHT}The Po and")],
    ],
)
def test_continued_answer_leaves_its_thoughts(name: str, content: Any) -> None:
    """Gemma 4's template takes thoughts out, so that an answer with some has to lose them first."""
    messages = [user("U"), model(content)]
    result = normalised(name, messages)
    assert result.rules == PREFILL
    prompt = render(name, result.messages, go_on=True)
    assert prompt.endswith("<|turn>model\nThe Po and")
    assert messages == [user("U"), model(content)]
    kept = normalised(GEMMA3, messages)
    assert kept.messages == messages


@pytest.mark.parametrize("content", [THOUGHT, f" {THOUGHT}\n", [text(THOUGHT)]])
def test_thoughts_alone_are_no_beginning(content: Any) -> None:
    """An answer of thoughts only has no words that could go on."""
    result = normalised("gemma4", [user("U"), model(content)])
    assert not result.continue_final_message
    assert render("gemma4", result.messages).endswith("<|turn>model\n")


def test_an_empty_end_continues_what_is_before_it() -> None:
    """An empty answer after an answer adds nothing to it."""
    result = normalised(GEMMA3, [user("U"), model("A"), model("")])
    assert result.messages == [user("U"), model("A")]
    assert result.rules == ("empty_content", "prefill")


def test_prompt_that_is_not_answered_is_not_continued() -> None:
    """Where the client wants no answer begun, its last message stays closed, by no rule."""
    messages = [user("U"), model("A")]
    result = normalise(messages, None, abilities(GEMMA3), Chat(), is_answered=False)
    assert (result.messages, result.rules) == (messages, ())
    assert not result.continue_final_message


def test_strict_does_not_continue() -> None:
    """chat.strict leaves the last answer closed: the client says what it wants."""
    result = normalised(GEMMA3, [user("U"), model("A")], strict=True)
    assert not result.continue_final_message
    assert result.rules == ()


@pytest.mark.parametrize(
    ("part", "url"),
    [
        ({"type": "image", "url": "https://e.com/a.png"}, "https://e.com/a.png"),
        ({"type": "image", "image": "http://e.com/a.png"}, "http://e.com/a.png"),
        ({"type": "image", "image": "data:image/png;base64,AA"}, "data:image/png;base64,AA"),
        ({"type": "image", "base64": PNG}, f"data:image/png;base64,{PNG}"),
        ({"type": "image", "image": PNG}, f"data:image/png;base64,{PNG}"),
        ({"type": "image", "base64": f"{PNG[:12]}\n{PNG[12:]}"}, f"data:image/png;base64,{PNG}"),
        ({"type": "image", "base64": "data:image/gif;base64,AA"}, "data:image/gif;base64,AA"),
        ({"type": "image_url", "image_url": "https://e.com/a.png"}, "https://e.com/a.png"),
        ({"type": "input_image", "image_url": "HTTPS://e.com/a.png"}, "HTTPS://e.com/a.png"),
        ({"type": "input_image", "image_url": {"url": "data:,x"}}, "data:,x"),
        ({"type": "image", "image_url": {"url": "data:,x"}}, "data:,x"),
    ],
)
def test_image_parts_become_image_url(part: dict[str, Any], url: str) -> None:
    """Hugging Face's and Responses' image parts become OpenAI's, on every generation."""
    for name in (GEMMA3, "gemma4"):
        result = normalised(name, [user([text("U"), part])])
        assert result.messages == [user([text("U"), image(url)])]
        assert result.rules == ("image_parts",)
    off = normalised(GEMMA3, [user([text("U"), part])], image_parts=False)
    assert off.messages == [user([text("U"), part])]


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(20), "image/jpeg"),
        (b"GIF89a" + bytes(20), "image/gif"),
        (b"GIF87a" + bytes(20), "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(20), "image/webp"),
    ],
)
def test_media_type_is_read_from_the_bytes(data: bytes, mime: str) -> None:
    """base64 without a media type gets the one that its first bytes tell."""
    encoded = base64.b64encode(data).decode()
    result = normalised(GEMMA3, [user([{"type": "image", "base64": encoded}])])
    assert result.messages == [user([image(f"data:{mime};base64,{encoded}")])]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image", "path": "/etc/passwd"}, ".path"),
        ({"type": "image", "image": "/etc/passwd"}, ".image"),
        ({"type": "image", "url": "file:///etc/passwd"}, ".url"),
        ({"type": "image", "url": PNG}, ".url"),
        ({"type": "image", "base64": base64.b64encode(b"%PDF-1.7" * 4).decode()}, ".base64"),
        ({"type": "image", "base64": "no base64!"}, ".base64"),
        ({"type": "image", "image": 7}, ".image"),
        ({"type": "image_url", "image_url": "cat.png"}, ".image_url"),
        ({"type": "input_image", "file_id": "file-1"}, ""),
        ({"type": "image"}, ""),
    ],
)
def test_images_that_are_none(part: dict[str, Any], param: str) -> None:
    """A file of the server, other formats and no image at all are refused, never opened."""
    with pytest.raises(RequestError) as caught:
        normalised("gemma4", [user("U"), user([text("V"), part])])
    assert caught.value.param == f"messages[1].content[1]{param}"
    assert "passwd" not in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("Hi", "messages"),
        ([user("U"), "V"], "messages[1]"),
        ([{"content": "U"}], "messages[0].role"),
        ([{"role": ["user"], "content": "U"}], "messages[0].role"),
        ([{"role": "critic" * 1000, "content": "U"}], "messages[0].role"),
        ([user(7)], "messages[0].content"),
        ([user({"type": "text"})], "messages[0].content"),
        ([user([text("U"), 7])], "messages[0].content[1]"),
        ([user([{"type": ["text"]}])], "messages[0].content[0]"),
        ([user([{"type": "text", "text": None}])], "messages[0].content[0].text"),
        ([user([{"type": "refusal", "text": "no"}])], "messages[0].content[0].refusal"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_message(messages: Any, param: str, strict: bool) -> None:
    """Other shapes are the client's fault, and the error says where; long text is not echoed."""
    with pytest.raises(RequestError) as caught:
        normalised(GEMMA3, messages, strict=strict)
    assert caught.value.param == param
    assert len(caught.value.message) < 300


def test_unknown_role_gets_the_known_ones() -> None:
    """The error for a role that nobody has names those that there are."""
    with pytest.raises(RequestError) as caught:
        normalised("gemma4", [{"role": "critic", "content": "U"}])
    assert caught.value.message == (
        "messages[0].role is 'critic'; use system, developer, user, assistant, model, tool or "
        "function."
    )


def test_no_messages_are_left_to_the_limits() -> None:
    """An empty list is none of our business here."""
    assert normalised(GEMMA3, []).messages == []


def test_unchanged_messages_are_the_callers_own() -> None:
    """What needs no change is not copied, which is what makes the common case cheap."""
    messages = [user("U"), model("A"), user("V")]
    result = normalised(GEMMA3, messages)
    assert result.messages is not messages
    assert all(one is other for one, other in zip(result.messages, messages, strict=True))


# Any conversation of sound shapes. Every text is a word that occurs once, given out in order.
CONTENT = st.sampled_from(
    ["", None, "absent", "blank", "text", "text", "part", "parts", "bare", "no parts", "image"]
)
ROLES = st.sampled_from(
    ["system", "developer", "user", "user", "assistant", "assistant", "model", "tool", "function"]
)
SHAPES = st.lists(st.tuples(ROLES, CONTENT, st.booleans()), min_size=1, max_size=9)


def conversation(
    shapes: list[tuple[str, Any, bool]], images: bool
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The messages, and (role, word) of each text in them."""
    words: list[tuple[str, str]] = []
    messages = [_message(role, kind, calls, images, words) for role, kind, calls in shapes]
    return messages, words


def _message(
    role: str, kind: Any, calls: bool, images: bool, words: list[tuple[str, str]]
) -> dict[str, Any]:
    def word() -> str:
        words.append((role, f"w{len(words)}w"))
        return words[-1][1]

    message: dict[str, Any] = {"role": role}
    if kind in ("", None):
        message["content"] = kind
    elif kind == "blank":
        message["content"] = " \n"
    elif kind == "text":
        message["content"] = word()
    elif kind == "part":
        message["content"] = [text(word())]
    elif kind in ("parts", "image"):
        middle = [image()] if images and kind == "image" else []
        message["content"] = [text(word()), *middle, text(word())]
    elif kind == "bare":
        message["content"] = [word(), text(word())]
    elif kind == "no parts":
        message["content"] = []
    if calls and role in ("assistant", "model"):
        message["tool_calls"] = [call("f", f'{{"a": "{word()}"}}')]
    return message


def assert_in_order(prompt: str, words: list[tuple[str, str]], in_place: bool) -> None:
    """Each word once; those that may be moved to the front in order among themselves."""
    found = re.findall(r"w\d+w", prompt)
    assert sorted(found) == sorted(word for _, word in words)
    moved = {word for role, word in words if role in ("system", "developer") and not in_place}
    assert [w for w in found if w in moved] == [w for _, w in words if w in moved]
    assert [w for w in found if w not in moved] == [w for _, w in words if w not in moved]


@settings(max_examples=600, deadline=None)
@given(shapes=SHAPES, tools=st.booleans(), merge=st.sampled_from(["leading", "user"]))
@pytest.mark.parametrize("name", [GEMMA1, GEMMA2, GEMMA3])
@example([("system", "image", False), ("system", "parts", False)], False, "user")
@example([("assistant", None, False), ("system", "text", False)], False, "leading")
@example([("tool", "image", False), ("developer", "text", False)], True, "leading")
def test_any_conversation_renders_and_keeps_its_words(
    name: str, shapes: list[tuple[str, Any, bool]], tools: bool, merge: Any
) -> None:
    """Whatever sound messages are sent: the template takes the result, which has every word."""
    messages, words = conversation(shapes, images=name == GEMMA3)
    before = copy.deepcopy(messages)
    declared = [{"type": "function", "function": {"name": "f"}}] if tools else None
    result = normalised(name, messages, declared, merge_system=merge)
    assert messages == before
    assert_alternates(name, result.messages)
    # The generation prompt is left out: a last answer would be continued instead.
    shown = render(name, result.messages, result.tools, generate=False)
    assert_in_order(shown, words, in_place=merge == "user")
    assert declared is None or declarations_text(declared) in shown
    pictures = sum(part == image() for m in messages for part in m.get("content") or ())
    assert shown.count("<start_of_image>") == pictures
    again = normalised(name, result.messages, merge_system=merge)
    assert set(again.rules) <= {"prefill"}
    assert again.messages == result.messages


def assert_alternates(name: str, messages: list[dict[str, Any]]) -> None:
    """The rules of the stock templates, said without a template."""
    opened = messages[1:] if name == GEMMA3 and messages[0]["role"] == "system" else messages
    assert opened
    assert [m["role"] for m in opened] == [("user", "assistant")[i % 2] for i in range(len(opened))]
    kinds = (str, list) if name == GEMMA3 else str
    assert all(isinstance(message["content"], kinds) for message in messages)
    assert not any("tool_calls" in message for message in messages)


@settings(max_examples=300, deadline=None)
@given(shapes=SHAPES)
def test_any_conversation_reaches_gemma_4_as_it_was(shapes: list[tuple[str, Any, bool]]) -> None:
    """Gemma 4 gets the roles in the order in which they were sent, whatever that is."""
    messages, _ = conversation(shapes, images=True)
    result = normalise(messages, None, EVERYTHING, Chat())
    assert set(result.rules) <= {"model_role", "empty_content", "prefill"}
    if "empty_content" not in result.rules:
        legacy = {"model": "assistant", "function": "tool"}
        roles = [legacy.get(message["role"], message["role"]) for message in messages]
        assert [message["role"] for message in result.messages] == roles
