"""Every datatype, shape and encoding of each input of Triton's vLLM backend, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx
import pytest

from tests.api.kserve.declared_inputs import MAX_TOKENS, PROMPT, VLLM
from tests.api.kserve.property_checks import (
    Answered,
    check_datatypes,
    check_declared,
    check_values,
    greedy,
)
from tests.api.kserve.refusals import Witness
from tests.api.kserve.sent_inputs import Sent
from tests.servers import Server

NUM_EXAMPLES = 60


@pytest.fixture(scope="module")
def server(multimodal_server: Server) -> Server:
    """One that takes images too."""
    return multimodal_server


@pytest.fixture(scope="module")
def canary() -> Mapping[str, Any]:
    """A greedy request by this contract."""
    return {"text_input": "Rome is", "parameters": {"max_tokens": 8, "temperature": 0}}


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


def test_these_are_all_inputs(witness: Witness) -> None:
    """No input of the contract is left out below."""
    check_declared(VLLM, witness.http)


def test_every_datatype(witness: Witness, stub: Any) -> None:
    """In every encoding the declared datatype is answered, and every other is refused."""
    for name in VLLM.inputs:
        check_datatypes(VLLM, witness.http, stub, name)


@pytest.mark.parametrize("name", VLLM.inputs)
def test_every_input(witness: Witness, stub: Any, name: str) -> None:
    """What is valid is answered, greedily as by the completions API, with its output; else 400."""
    check_answer = partial(_check_answer, witness.http)
    check_values(
        VLLM, witness.http, stub, name, num_examples=NUM_EXAMPLES, check_answer=check_answer
    )


def _check_answer(http: httpx.Client, sent: Sent, answered: Answered) -> None:
    asked = {sent.name.removeprefix("return_")} if _is_flag(sent, "return_") else set()
    assert answered.outputs == {"text_output"} | asked
    if sent.name in ("image", "sampling_parameters"):
        assert len(answered.texts) == 1
        return
    prompt = sent.values[0].decode() if sent.name == "text_input" else PROMPT
    # A client that asks for a stream gets no prompt, on this route too.
    is_left_out = _is_flag(sent, "stream") or _is_flag(sent, "exclude_input_in_output")
    before = "" if is_left_out else prompt
    assert answered.texts == [before + greedy(http, prompt, MAX_TOKENS)]


def _is_flag(sent: Sent, name: str) -> bool:
    return sent.name.startswith(name) and bool(sent.values[0])
