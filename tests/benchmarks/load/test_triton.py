"""generate_stream, and what both of Triton's protocols do where OpenAI's have a field for it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.load.protocols import SALT_DIGITS, salted
from benchmarks.records import Item, Load, RequestRecord
from tests.benchmarks.load.test_runner import Gauge, items, run
from tests.benchmarks.scripted import Answer, Script

ONE = Load(mode="closed", concurrency=1)


def only(script: Script, **how: Any) -> RequestRecord:
    """The record of one request over generate_stream."""
    options = {"contract": "vllm-backend", "token_source": "event_counts"} | how
    (record,) = run(script, ONE, items(1), protocol="triton-generate", **options).records
    return record


async def _says(answer: Answer, *events: dict[str, Any]) -> None:
    await answer.head()
    for event in events:
        await answer.event({"model_name": "m", "model_version": "1", **event})
    await answer.raw(b"0\r\n\r\n")


def _piece(text: str, tokens: int, reason: str = "None") -> dict[str, Any]:
    counts = {"num_output_tokens": tokens, "num_input_tokens": 3}
    return {"text_output": text, "finish_reason": reason, **counts}


async def vllm_backend(answer: Answer, asked: dict[str, Any]) -> None:
    await _says(answer, _piece(" a", 1), _piece(" b c", 2, "length"))


async def ends_without_a_reason(answer: Answer, asked: dict[str, Any]) -> None:
    await _says(answer, _piece(" a", 1), _piece(" b", 1))


async def python_backend(answer: Answer, asked: dict[str, Any]) -> None:
    await _says(answer, {"text_output": "a"}, {"text_output": ["b"]})


async def says_nothing_of_a_completion(answer: Answer, asked: dict[str, Any]) -> None:
    await _says(answer)


async def errs_after_200(answer: Answer, asked: dict[str, Any]) -> None:
    await _says(answer, _piece(" a", 1), {"error": "the engine died"})


def test_tokens_are_the_servers_count_of_each_event() -> None:
    """As over gRPC; the word None is no reason to have ended."""
    record = only(vllm_backend)

    assert [chunk.num_tokens for chunk in record.chunks] == [1, 2]
    assert (record.error, record.num_output_tokens, record.prompt_tokens) == (None, 3, 3)
    assert (record.token_source, record.finish_reason) == ("event_counts", "length")


def test_python_backend_is_counted_by_events() -> None:
    """Without counts and reasons the complete answer is the end, and each text is a chunk."""
    record = only(python_backend, contract="python-backend", token_source="usage")

    assert (record.error, record.num_output_tokens, record.token_source) == (None, 2, "events")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (ends_without_a_reason, "early_close"),
        (says_nothing_of_a_completion, "bad_answer"),
        (errs_after_200, "sse_error"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_failures_by_their_names(script: Script, error: str) -> None:
    """A backend that gives reasons has not finished before it gave one."""
    assert only(script).error == error


class Triton(Gauge):
    """Remembers what was asked, and answers as the vLLM backend."""

    async def __call__(self, answer: Answer, asked: dict[str, Any]) -> None:
        self.asked.append(asked)
        await vllm_backend(answer, asked)


def texts(**how: Any) -> list[str]:
    """The prompts of four requests."""
    triton = Triton()
    options = {"contract": "vllm-backend", "token_source": "event_counts"} | how
    run(triton, ONE, items(4), protocol="triton-generate", **options)
    return [asked["text_input"] for asked in triton.asked]


def test_salt_stands_in_front_of_each_prompt() -> None:
    """Without a cache_salt, digits make the first block another one; each prompt is as long."""
    first, second = texts(salt="1-0-a"), texts(salt="1-0-b")
    digits = [text[:SALT_DIGITS] for text in first + second]

    assert len(set(digits)) == 8
    assert all(one.isdigit() and one.isascii() for one in digits)
    assert [text[SALT_DIGITS:] for text in first] == [f" prompt {n}" for n in range(4)]
    assert texts(salt="1-0-a") == first


def test_prompts_that_share_have_no_salt() -> None:
    """Where prompts are to share blocks, or in a run without salt, they go as they are."""
    plain = [f"prompt {number}" for number in range(4)]

    assert texts(salt="1-0-a", salt_each=False) == plain
    assert texts() == plain
    assert salted("x", None) == "x"


def test_contract_of_vllm_asks_for_counts_only_where_they_are_read() -> None:
    """A backend of an older Triton, which refuses them, is asked without."""
    triton = Triton()
    run(triton, ONE, items(1), protocol="triton-generate", contract="vllm-backend",
        token_source="events")  # fmt: skip

    assert not [name for name in triton.asked[0] if name.startswith("return_")]


def test_conversation_is_refused() -> None:
    """A later turn without those before it would be another prompt; nothing is sent."""
    triton = Triton()
    turn = [{"role": "user", "content": "x"}]
    todo = [Item(0, 2, messages=turn, conversation="c")]

    with pytest.raises(ValueError, match=r"request 0 .* is a turn of a conversation, and triton"):
        run(triton, ONE, todo, protocol="triton-generate")
    assert triton.asked == []
