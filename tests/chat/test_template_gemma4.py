"""What is particular to Gemma 4's two templates."""

from __future__ import annotations

import pytest

from tests.chat.stock import outcome, packaged

SMALL, LARGE = packaged("gemma4"), packaged("gemma4_large")
HI = [{"role": "user", "content": "Hi"}]


def body(template: str) -> list[str]:
    """The lines after the comment on top."""
    return template.split("-#}\n", 1)[1].splitlines()


def test_templates_differ_by_the_empty_thought() -> None:
    """The large models' template is the small ones' and one line."""
    line = '    {{- "<|channel>thought\\n<channel|>" if not thinking -}}'
    assert [text for text in body(LARGE) if text != line] == body(SMALL)
    assert body(LARGE).count(line) == 1


@pytest.mark.parametrize("template", [SMALL, LARGE], ids=["small", "large"])
def test_thinking_is_switched_in_the_system_turn(template: str) -> None:
    """With enable_thinking the prompt opens with <|think|> and leaves the thought to the model."""
    variables = {"bos_token": "<bos>", "add_generation_prompt": True, "enable_thinking": True}
    assert outcome(template, HI, **variables) == (
        "rendered",
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n",
    )


def test_large_models_get_an_empty_thought() -> None:
    """With thinking off the answer of a large model starts after an empty thought."""
    variables = {"bos_token": "<bos>", "add_generation_prompt": True}
    prompt = "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"
    assert outcome(SMALL, HI, **variables)[1] == prompt
    assert outcome(LARGE, HI, **variables)[1] == prompt + "<|channel>thought\n<channel|>"
