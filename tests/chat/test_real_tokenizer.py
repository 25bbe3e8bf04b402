"""
Whole prompts with Gemma 3's real tokenizer: rules, guard, packaged template, token ids.

Each was read by a person. After a change that is meant, write them again, and read what differs:
python -m tests.chat.test_real_tokenizer

For Gemma 4 the template is real and the tokenizer is Gemma 3's, to which Gemma 4's control tokens
are words; its ids are not those of a Gemma 4 checkpoint.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from gemma_serve.chat.guard import Guard
from gemma_serve.gemma.embedded import prepare
from gemma_serve.gemma.tokens import control_tokens_of
from tests.chat.conversation import abilities, normalised, template
from tests.chat.make_golden import GOLDEN, TEMPLATES

PROMPTS = GOLDEN / "prompts"
NAMES = (*TEMPLATES, "gemma3_tools")
VOCAB_SIZE = 262_144
BOS, START_OF_TURN, END_OF_TURN = 2, 105, 106

Case = dict[str, Any]


@cache
def tokenizer() -> Any:
    """The embedded model's, as vLLM loads it."""
    return AutoTokenizer.from_pretrained(prepare())


@cache
def guard() -> Guard:
    return Guard(control_tokens_of(tokenizer()), VOCAB_SIZE)


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def conversations() -> list[Case]:
    """The conversations, the same ones for every template."""
    cases: list[Case] = json.loads((PROMPTS / "conversations.json").read_text("utf-8"))
    return cases


def prompt_of(name: str, case: Case) -> Case:
    """What the engine would get for a conversation, and the rules that changed it."""
    normal = normalised(name, case["messages"], case.get("tools"))
    (messages, tools), mark = guard().protect(
        (normal.messages, normal.tools), spares_thoughts=abilities(name).strips_thoughts
    )
    (text,), _ = render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=template(name),
        bos_token="<bos>",
        add_generation_prompt=not normal.continue_final_message,
        continue_final_message=normal.continue_final_message,
        **case.get("variables", {}),
    )
    return {
        "rules": list(normal.rules),
        "prompt": text.replace(mark, "") if mark else text,
        "token_ids": guard().one_bos(guard().encode(text, mark, encode)),
    }


def golden(name: str) -> dict[str, Case]:
    """The prompts of a template, by the name of the conversation."""
    prompts: dict[str, Case] = json.loads((PROMPTS / f"{name}.json").read_text("utf-8"))
    for prompt in prompts.values():
        prompt["prompt"] = "\n".join(prompt["prompt"])
    return prompts


def write_golden() -> None:
    """Write all prompts again: the text line by line, the rules and the ids on one line each."""
    for name in NAMES:
        prompts = [_written(case["name"], prompt_of(name, case)) for case in conversations()]
        (PROMPTS / f"{name}.json").write_text("{\n" + ",\n".join(prompts) + "\n}\n", "utf-8")


def _written(title: str, prompt: Case) -> str:
    lines = ",\n   ".join(_json(line) for line in prompt["prompt"].split("\n"))
    return (
        f' {_json(title)}: {{\n  "rules": {_json(prompt["rules"])},\n'
        f'  "prompt": [\n   {lines}\n  ],\n  "token_ids": {_json(prompt["token_ids"])}\n }}'
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def each(*names: str) -> pytest.MarkDecorator:
    """All conversations with each of these templates."""
    cases = [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in names
        for case in conversations()
    ]
    return pytest.mark.parametrize(("name", "case"), cases)


@each(*NAMES)
def test_prompt_is_the_golden_one(name: str, case: Case) -> None:
    """Text, token ids and applied rules are those that were looked at and kept."""
    assert prompt_of(name, case) == golden(name)[case["name"]]


@each(*NAMES)
def test_ids_are_the_text(name: str, case: Case) -> None:
    """The ids decode to the text that is shown, and begin with the one BOS."""
    prompt = golden(name)[case["name"]]
    assert tokenizer().decode(prompt["token_ids"], skip_special_tokens=False) == prompt["prompt"]
    assert prompt["token_ids"][0] == BOS
    assert prompt["token_ids"].count(BOS) == 1


@each("gemma1", "gemma2", "gemma3", "gemma3_tools", "gemma3n")
def test_turns_alternate(name: str, case: Case) -> None:
    """At the level of ids, user and model take turns, and the last turn is the open one."""
    ids = golden(name)[case["name"]]["token_ids"]
    speakers = [ids[at + 1] for at, id_ in enumerate(ids) if id_ == START_OF_TURN]
    user, model = encode("user") + encode("model")
    assert speakers == [user, model] * (len(speakers) // 2)
    assert ids.count(END_OF_TURN) == len(speakers) - 1


@each(*NAMES)
def test_control_tokens_are_the_templates(name: str, case: Case) -> None:
    """Of Gemma 3's control tokens a prompt has BOS and turns alone; tags of HTML stay tokens."""
    ids = set(golden(name)[case["name"]]["token_ids"])
    turns = set() if name.startswith("gemma4") else {START_OF_TURN, END_OF_TURN}
    assert ids & set(control_tokens_of(tokenizer()).ids.values()) == {BOS} | turns
    if "tags" in case["name"]:
        assert ids > set(tokenizer().convert_tokens_to_ids(["<table>", "<td>", "</tr>"]))


if __name__ == "__main__":
    write_golden()
