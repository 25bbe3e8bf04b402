"""What a chat template does by itself is found by trying it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gemma_serve.chat.abilities import Abilities, abilities_of
from tests.chat.conversation import EVERYTHING, GEMMA1, GEMMA2, GEMMA3, abilities

NOTHING = Abilities(False, False, False, False, False, False, False, False, False, False)


@pytest.mark.parametrize("name", [GEMMA1, GEMMA2])
def test_gemma_1_and_2_take_only_alternating_strings(name: str) -> None:
    """Gemma 1 and 2 refuse or garble everything but user and assistant strings in turn."""
    assert abilities(name) == NOTHING


def test_gemma_3_takes_one_system_text_and_parts() -> None:
    """Gemma 3 folds one system text into the first turn and takes parts, and that is all."""
    assert abilities(GEMMA3) == Abilities(
        system=True,
        later_system=False,
        developer=False,
        repeated_roles=False,
        assistant_first=False,
        tools=False,
        text_parts=True,
        null_content=False,
        system_parts=False,
        system_alone=False,
    )


@pytest.mark.parametrize("name", ["gemma4", "gemma4_large"])
def test_gemma_4_takes_everything(name: str) -> None:
    """Gemma 4 needs no help: roles in any order, tools, parts and nulls are its own."""
    assert abilities(name) == EVERYTHING


def written(messages: list[dict[str, Any]], _: Any) -> str:
    """A template that writes each content with str(), as a careless one does."""
    return "\n".join(f"{message['role']}: {message.get('content')}" for message in messages)


def test_template_that_reads_only_parts_takes_no_strings() -> None:
    """A template that goes through the parts of each content has to be given parts."""

    def parts_only(messages: list[dict[str, Any]], _: Any) -> str:
        return " ".join(part["text"] for message in messages for part in message["content"])

    assert not abilities_of(parts_only).strings
    assert abilities(GEMMA3).strings


def test_python_in_the_prompt_is_no_ability() -> None:
    """A template that writes `None` or a list's brackets does not count as taking them."""
    found = abilities_of(written)
    assert found.repeated_roles
    assert found.later_system
    assert not found.null_content
    assert not found.text_parts
    assert not found.system_parts


def test_tools_count_only_where_they_are_declared() -> None:
    """A template that shows calls and results but not the declarations does not do tools."""

    def undeclared(messages: list[dict[str, Any]], tools: Any) -> str:
        return f"{messages}"

    def declared(messages: list[dict[str, Any]], tools: Any) -> str:
        return f"{tools}{messages}"

    assert not abilities_of(undeclared).tools
    assert abilities_of(lambda m, t: declared(m, t).replace("{'type'", "")).tools


def test_silence_about_a_role_is_no_ability() -> None:
    """A template that skips the roles that it does not know can't do them."""

    def skipping(messages: list[dict[str, Any]], tools: Any) -> str:
        return " ".join(str(m["content"]) for m in messages if m["role"] in ("user", "assistant"))

    found = abilities_of(skipping)
    assert not found.system
    assert not found.developer
    assert not found.system_alone
    assert found.assistant_first


def test_template_that_always_fails_can_do_nothing() -> None:
    """A template that raises whatever it gets has no abilities, and trying it raises nothing."""

    def failing(messages: Any, tools: Any) -> str:
        raise RuntimeError

    assert abilities_of(failing) == dataclasses.replace(NOTHING, strings=False)


def test_template_that_shows_thoughts_does_not_strip_them() -> None:
    """Only Gemma 4's templates take thoughts out of earlier answers."""
    assert not abilities_of(lambda messages, _: f"{messages}").strips_thoughts
    assert not abilities(GEMMA3).strips_thoughts
    assert abilities("gemma4").strips_thoughts
