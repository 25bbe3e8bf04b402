"""Every datatype, shape and encoding of each input of TensorRT-LLM's names, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx
import pytest

from tests.api.kserve.declared_inputs import MAX_TOKENS, PROMPT, TENSORRT
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
# Those that leave a greedy answer as it is.
UNCHANGED = frozenset(
    {
        *("text_input", "max_tokens", "exclude_input_in_output", "stream", "pad_id"),
        *("length_penalty", "beam_width", "seed", "random_seed"),
        *("return_num_input_tokens", "return_num_output_tokens", "return_context_logits"),
    }
)
OUTPUTS = {
    "return_log_probs": {"cum_log_probs", "output_log_probs"},
    "return_num_input_tokens": {"num_input_tokens"},
    "return_num_output_tokens": {"num_output_tokens"},
}


@pytest.fixture(scope="module")
def server(tensorrtllm_server: Server) -> Server:
    """The tiny model with TensorRT-LLM's names."""
    return tensorrtllm_server


@pytest.fixture(scope="module")
def canary() -> Mapping[str, Any]:
    """A greedy request by this contract."""
    return {"text_input": "Rome is", "max_tokens": 8}


@pytest.fixture(autouse=True)
def _unharmed(witness: Witness) -> Iterator[None]:
    yield
    witness.check_unharmed()


def test_these_are_all_inputs(witness: Witness) -> None:
    """No input of the contract is left out below."""
    check_declared(TENSORRT, witness.http)


def test_every_datatype(witness: Witness, stub: Any) -> None:
    """In every encoding the declared datatype is answered, and every other is refused."""
    for name in TENSORRT.inputs:
        check_datatypes(TENSORRT, witness.http, stub, name)


@pytest.mark.parametrize("name", TENSORRT.inputs)
def test_every_input(witness: Witness, stub: Any, name: str) -> None:
    """What is valid is answered, greedily as by the completions API, with its output; else 400."""
    check_answer = partial(_check_answer, witness.http)
    check_values(
        TENSORRT, witness.http, stub, name, num_examples=NUM_EXAMPLES, check_answer=check_answer
    )


def _check_answer(http: httpx.Client, sent: Sent, answered: Answered) -> None:
    value = sent.values[0] if sent.values else None
    asked = OUTPUTS.get(sent.name, set()) if value is True else set()
    assert answered.outputs == {"text_output", "batch_index", "sequence_index"} | asked
    num_texts = value if sent.name == "num_return_sequences" else 1
    assert len(answered.texts) == num_texts
    if sent.name not in UNCHANGED:
        return
    prompt = value.decode() if sent.name == "text_input" else PROMPT
    max_tokens = value if sent.name == "max_tokens" else MAX_TOKENS
    is_left_out = sent.name in ("stream", "exclude_input_in_output") and value
    before = "" if is_left_out else prompt
    assert answered.texts == [before + greedy(http, prompt, max_tokens)]
