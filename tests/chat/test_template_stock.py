"""The templates of Gemma 1, 2 and 4 against the published ones, fetched anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chat.generated_conversations import generated
from tests.chat.make_golden import read_golden
from tests.chat.stock import IN_TRL, outcome, packaged, published


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where fetched packages are kept for the session."""
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("name", ["gemma1", "gemma2", "gemma3", "gemma4"])
@settings(max_examples=1500, deadline=None)
@given(seed=st.integers(0, 2**64 - 1))
def test_renders_what_the_published_template_renders(base: Path, name: str, seed: int) -> None:
    """Byte for byte the same text, or the same refusal, for any conversation."""
    case = generated(name, seed)
    ours, stock = packaged(name), published(base, name)
    assert outcome(ours, case.messages, case.tools, **case.variables) == outcome(
        stock, case.messages, case.tools, **case.variables
    )


@pytest.mark.parametrize("name", IN_TRL)
def test_golden_files_are_of_the_published_template(base: Path, name: str) -> None:
    """The stored texts were made with the template that is published today under that version."""
    digest = hashlib.sha256(published(base, name).encode()).hexdigest()
    assert digest == read_golden(name)["sha256"]
