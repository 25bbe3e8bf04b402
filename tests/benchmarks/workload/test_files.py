"""Recorded requests: chat bodies, prompts and ShareGPT conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workload import Workload, WorkloadError, materialise, parse_spec


def user(text: str) -> dict[str, Any]:
    """OpenAI's user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    """OpenAI's assistant message."""
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, Any]:
    """ShareGPT's question."""
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, Any]:
    """ShareGPT's answer."""
    return {"from": "gpt", "value": text}


def read(
    tmp_path: Path,
    entries: list[Any],
    count: int | None = None,
    num_warm_up: int = 0,
    *,
    seed: int = 1,
    as_list: bool = False,
    **fields: Any,
) -> Workload:
    """The workload of a file with these entries."""
    path = tmp_path / "data.jsonl"
    lines = "\n".join(json.dumps(entry) for entry in entries) + "\n"
    path.write_text(json.dumps(entries, indent=1) if as_list else lines)
    spec = parse_spec({"kind": "file", "path": path, **fields})
    return materialise(spec, seed, count, num_warm_up)


def share(number: int) -> dict[str, Any]:
    """A conversation of two questions, with answers of one and three words."""
    return {
        "id": number,
        "conversations": [human(f"q{number}"), gpt("a"), human("why is it so"), gpt("b c d")],
    }


def test_chat_body(tmp_path: Path) -> None:
    """A chat body is one request with its history; its last answer is the output's length."""
    history = [{"role": "system", "content": "S"}, user("Q"), assistant("A"), user("Q2")]
    workload = read(tmp_path, [{"model": "m", "messages": [*history, assistant("one two three")]}])

    assert [(i.messages, i.max_tokens) for i in workload.items] == [(history, 3)]
    assert workload.items[0].conversation is None


@pytest.mark.parametrize(
    "name", ["max_tokens", "max_completion_tokens", "output_tokens", "output_tokens_count"]
)
def test_own_max_tokens(tmp_path: Path, name: str) -> None:
    """What the request asked for comes before the length of its answer."""
    entry = {"messages": [user("Q"), assistant("one two three")], name: 7}

    assert read(tmp_path, [entry]).items[0].max_tokens == 7


def test_blank_answer(tmp_path: Path) -> None:
    """An answer without a word still asks for one token; none at all is no answer."""
    assert read(tmp_path, [{"prompt": "a", "completion": " "}]).items[0].max_tokens == 1
    with pytest.raises(WorkloadError, match="line 1 has no answer and no max_tokens"):
        read(tmp_path, [{"prompt": "a", "completion": ""}])


def test_output_comes_first(tmp_path: Path) -> None:
    """A length of output in the spec comes before all that was recorded."""
    entries = [{"prompt": "a b", "max_tokens": 7}, share(0), {"messages": [user("Q")]}]

    assert [item.max_tokens for item in read(tmp_path, entries, output=5).items] == [5, 5, 5]


def test_prompts(tmp_path: Path) -> None:
    """A prompt is text or token ids; a completion is its recorded answer."""
    entries = [{"prompt": "a b", "completion": "c d"}, {"prompt": [5, 6, 7], "max_tokens": 1}]
    text, ids = read(tmp_path, entries).items

    assert (text.prompt, text.max_tokens, text.input_len_tokens) == ("a b", 2, None)
    assert (ids.prompt_token_ids, ids.max_tokens, ids.input_len_tokens) == ([5, 6, 7], 1, 3)


@pytest.mark.parametrize("as_list", [False, True])
def test_sharegpt_first_question(tmp_path: Path, as_list: bool) -> None:
    """A ShareGPT conversation is its first question and the length of the answer to it."""
    workload = read(tmp_path, [share(0), share(1)], as_list=as_list)

    assert [(i.messages, i.max_tokens) for i in workload.items] == [
        ([user("q0")], 1),
        ([user("q1")], 1),
    ]
    assert "output as recorded; lengths of text approximate" in workload.description


def test_sharegpt_turns(tmp_path: Path) -> None:
    """With split_turns every question is a turn of a conversation, its history the server's."""
    workload = read(tmp_path, [share(0), share(1)], split_turns=True, think_s=2)

    assert [
        (i.index, i.conversation, i.turn, i.think_s, i.messages, i.max_tokens)
        for i in workload.items
    ][1:3] == [
        (1, "c0", 1, 2.0, [user("why is it so")], 3),
        (2, "c1", 0, 0.0, [user("q1")], 1),
    ]


def test_chat_body_turns(tmp_path: Path) -> None:
    """With split_turns a chat body is cut at its answers; what comes before a question is kept."""
    system = {"role": "system", "content": "S"}
    messages = [system, user("Q"), assistant("A"), user("Q2"), assistant("A B")]
    workload = read(tmp_path, [{"messages": messages}], split_turns=True)

    assert [(i.messages, i.max_tokens) for i in workload.items] == [
        ([system, user("Q")], 1),
        ([user("Q2")], 2),
    ]


def test_sharegpt_without_question_or_answer(tmp_path: Path) -> None:
    """Conversations that ask nothing, or were not answered, are left out and counted."""
    entries = [
        {"conversations": []},
        {"conversations": [gpt("a")]},
        {"conversations": [human("q")]},
        {"conversations": [gpt("continued"), human("q"), gpt("a b")]},
    ]
    workload = read(tmp_path, entries)

    assert [(i.messages, i.max_tokens) for i in workload.items] == [([user("q")], 2)]
    assert "; 3 left out; " in workload.description


def test_max_model_len(tmp_path: Path) -> None:
    """Requests longer than the model takes are left out, conversations cut before it."""
    entries = [{"prompt": "a b c", "max_tokens": n} for n in (1, 2, 3)]
    # The first turn of share() is 1 + 1 tokens, the second 4 + 3 more: 9.
    assert len(read(tmp_path, entries, max_model_len=5).items) == 2
    assert len(read(tmp_path, [share(0)], split_turns=True, max_model_len=8).items) == 1
    assert len(read(tmp_path, [share(0)], split_turns=True, max_model_len=9).items) == 2
    # 3 tokens and at most 3 more
    assert len(read(tmp_path, entries[:2], output="1-3", max_model_len=6).items) == 2
    with pytest.raises(WorkloadError, match="has 0 that can be sent"):
        read(tmp_path, entries, output="1-3", max_model_len=5)


def test_warm_up_from_the_end(tmp_path: Path) -> None:
    """Measured requests begin the file, warm-up ends it, and no conversation is in both."""
    entries = [share(number) for number in range(4)]
    workload = read(tmp_path, entries, None, 1, split_turns=True)

    assert [item.conversation for item in workload.items] == ["c0", "c0", "c1", "c1", "c2", "c2"]
    assert [i.messages for i in workload.warm_up] == [[user("q3")]]
    assert [i.conversation for i in workload.warm_up] == ["w0"]


def test_too_few(tmp_path: Path) -> None:
    """More requests than the file has are refused, not repeated."""
    with pytest.raises(WorkloadError) as caught:
        read(tmp_path, [share(0), share(1)], 2, 1)

    assert str(caught.value) == (
        "2 requests and 1 for the warm-up were asked for, and data.jsonl has 2 that can be sent; "
        "ask for fewer"
    )


def test_shuffle(tmp_path: Path) -> None:
    """Shuffled is the same requests in an order that the seed decides."""
    entries = [{"prompt": str(number), "max_tokens": 1} for number in range(30)]
    orders = [
        [item.prompt for item in read(tmp_path, entries, seed=seed, shuffle=True).items]
        for seed in (1, 1, 2)
    ]

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(str(number) for number in range(30))
    assert orders[0] != [str(number) for number in range(30)]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (5, "data.jsonl line 1 is no JSON object; give "),
        ({"text": "a"}, "data.jsonl line 1 has none of messages, prompt and conversations; give "),
        (
            {"prompt": "a"},
            "data.jsonl line 1 has no answer and no max_tokens, so the length of its ",
        ),
        ({"prompt": {}}, "data.jsonl line 1: prompt is neither a text nor a list of token ids"),
        ({"prompt": []}, "data.jsonl line 1: prompt is neither a text nor a list of token ids"),
        ({"messages": []}, "data.jsonl line 1: messages is no list of messages with a role"),
        ({"messages": ["a"]}, "data.jsonl line 1: messages is no list of messages with a role"),
        (
            {"prompt": "a", "max_tokens": "7"},
            "data.jsonl line 1: max_tokens='7' is no whole number from 1 up",
        ),
        (
            {"conversations": [{"from": "cat", "value": "a"}]},
            "data.jsonl line 1: a conversation's message is from 'cat'; give ",
        ),
        ({"conversations": {}}, "data.jsonl line 1: conversations is no list"),
    ],
)
def test_wrong_entries(tmp_path: Path, entry: Any, sentence: str) -> None:
    """An entry of another shape is named by its line, with what is wrong."""
    with pytest.raises(WorkloadError) as caught:
        read(tmp_path, [entry])

    assert str(caught.value).startswith(sentence)


def test_no_json(tmp_path: Path) -> None:
    """A file that is no JSON says so, as lines and as a list."""
    for content, where in (("a\n", "data.jsonl line 1 is no JSON: "), ("[1,", "data.jsonl is no ")):
        (tmp_path / "data.jsonl").write_text(content)
        with pytest.raises(WorkloadError) as caught:
            materialise(parse_spec({"kind": "file", "path": tmp_path / "data.jsonl"}), 1, 1, 0)
        assert str(caught.value).startswith(where)
