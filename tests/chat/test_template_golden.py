"""Every packaged template renders what the published one of its generation rendered."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.chat.generated_conversations import generated
from tests.chat.make_golden import GOLDEN, TEMPLATES, digests, read_golden, rendered
from tests.chat.stock import outcome, packaged


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in TEMPLATES
        for case in read_golden(name)["conversations"]
    ],
)
def test_renders_as_published(name: str, case: dict[str, Any]) -> None:
    """Byte for byte the published text, or a refusal in the published words."""
    assert rendered(packaged(name), case) == case["outcome"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_generated_conversations_as_published(name: str) -> None:
    """600 generated conversations give the text or the refusal that the published one gave."""
    expected = (GOLDEN / f"{name}.sha256").read_text().split()
    actual = digests(name, packaged(name))
    different = [
        seed for seed, pair in enumerate(zip(expected, actual, strict=True)) if len({*pair}) > 1
    ]
    assert not different, generated(name, different[0])


@pytest.mark.parametrize("name", TEMPLATES)
def test_most_generated_conversations_are_accepted(name: str) -> None:
    """The digests are mostly of prompts: at least 400 of the 600 conversations render."""
    cases = [generated(name, seed) for seed in range(600)]
    kinds = [outcome(packaged(name), c.messages, c.tools, **c.variables)[0] for c in cases]
    assert kinds.count("rendered") >= 400


@pytest.mark.parametrize("name", TEMPLATES)
def test_is_our_own_text(name: str) -> None:
    """A packaged template is not a copy of the published one."""
    digest = hashlib.sha256(packaged(name).encode()).hexdigest()
    assert digest != read_golden(name)["sha256"]
