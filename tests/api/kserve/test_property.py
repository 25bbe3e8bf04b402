"""Every datatype, shape and encoding of each input of the python backend, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.api.kserve.declared_inputs import MAX_TOKENS, PROMPT, PYTHON
from tests.api.kserve.property_checks import (
    Answered,
    check_datatypes,
    check_declared,
    check_values,
    greedy,
)
from tests.api.kserve.refusals import Witness
from tests.api.kserve.sent_inputs import Sent

NUM_EXAMPLES = 60


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


def test_these_are_all_inputs(witness: Witness) -> None:
    """No input of the contract is left out below."""
    check_declared(PYTHON, witness.http)


@pytest.mark.parametrize("name", PYTHON.inputs)
def test_every_datatype(witness: Witness, stub: Any, name: str) -> None:
    """In every encoding the declared datatype is answered, and every other is refused."""
    check_datatypes(PYTHON, witness.http, stub, name)


@pytest.mark.parametrize("name", PYTHON.inputs)
def test_every_input(witness: Witness, stub: Any, name: str) -> None:
    """What is valid is answered, one text each, greedily as by the completions API; else 400."""
    check_answer = partial(_check_answer, witness.http)
    check_values(
        PYTHON, witness.http, stub, name, num_examples=NUM_EXAMPLES, check_answer=check_answer
    )


def _check_answer(http: httpx.Client, sent: Sent, answered: Answered) -> None:
    assert answered.outputs == {"text_output"}
    prompts = sent.values if sent.name == "text_input" else [PROMPT.encode()]
    assert len(answered.texts) == len(prompts)
    # A batch may round otherwise; sampling and a penalty choose other tokens.
    if len(prompts) == 1 and sent.name in ("text_input", "max_new_tokens", "stream"):
        max_tokens = sent.values[0] if sent.name == "max_new_tokens" else MAX_TOKENS
        assert answered.texts == [greedy(http, prompts[0].decode(), max_tokens).strip()]
