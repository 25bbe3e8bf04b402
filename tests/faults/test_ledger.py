"""The ledger itself: what it calls complete, what an explicit failure, and what lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.ledger import End, Entry, end_of_answer, end_of_stream
from tests.faults.site import disagreements

WORD = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ABORT = {"choices": [{"delta": {}, "finish_reason": "abort"}]}
ANTHROPIC_STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
ERROR = {"error": {"message": "It is over.", "type": "unavailable_error", "code": "draining"}}
ANTHROPIC_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "It is over."}}
RESPONSES_ERROR = {"type": "error", "code": "engine_dead", "message": "It is over."}


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([WORD, STOP, "[DONE]"], End.COMPLETED),
        ([ANTHROPIC_STOP, {"type": "message_stop"}], End.COMPLETED),
        ([{"type": "response.completed", "response": {"status": "completed"}}], End.COMPLETED),
        ([{"text_output": "a"}], End.COMPLETED),
        ([WORD, ERROR], End.FAILED),
        ([WORD, ANTHROPIC_ERROR], End.FAILED),
        ([WORD, RESPONSES_ERROR], End.FAILED),
        ([{"text_output": "a"}, {"error": "It is over."}], End.FAILED),
        ([WORD, ERROR, "[DONE]"], End.LOST),
        ([WORD, ABORT, "[DONE]"], End.LOST),
        ([WORD, "[DONE]"], End.LOST),
        ([WORD, STOP], End.LOST),
        ([{"type": "message_start"}, {"type": "message_stop"}], End.LOST),
        ([], End.LOST),
    ],
)  # fmt: skip
def test_end_of_stream(events: list[dict[str, Any] | str], end: End) -> None:
    """Only a finish reason and the API's own last event make a stream complete."""
    assert end_of_stream(events)[0] is end


@pytest.mark.parametrize(
    ("status", "body", "end"),
    [
        (200, {"object": "chat.completion", "choices": [{"finish_reason": "length"}]},
         End.COMPLETED),
        (200, {"type": "message", "stop_reason": "max_tokens"}, End.COMPLETED),
        (200, {"object": "response", "status": "incomplete"}, End.COMPLETED),
        (503, ERROR, End.REFUSED),
        (503, {"error": "It is over."}, End.REFUSED),
        (200, {"choices": [{"finish_reason": "abort"}]}, End.LOST),
        (200, {"choices": [{"finish_reason": None}]}, End.LOST),
        (500, {}, End.LOST),
    ],
)  # fmt: skip
def test_end_of_answer(status: int, body: dict[str, Any], end: End) -> None:
    """An abort that comes with 200, and a failure that does not say what it is, are lost."""
    assert end_of_answer(status, body)[0] is end


@pytest.mark.parametrize(
    ("end", "statuses", "agree"),
    [
        (End.COMPLETED, ["200"], True),
        (End.COMPLETED, ["499"], False),
        (End.COMPLETED, [], False),
        (End.COMPLETED, ["200", "200"], False),
        (End.FAILED, ["503"], True),
        (End.FAILED, ["200"], False),
        (End.REFUSED, ["429"], True),
        (End.LEFT, ["499"], True),
        (End.LEFT, ["200"], True),
        (End.LEFT, [], True),
        (End.LEFT, ["503"], False),
        (End.UNREACHABLE, [], True),
        (End.LOST, ["200"], False),
        (End.BROKEN, ["200"], False),
    ],
)
def test_ledgers_are_joined(end: End, statuses: list[str], agree: bool) -> None:
    """Client and server have one end of each request, and the same one."""
    lines = {"1": [{"status": status} for status in statuses], "2": [{"status": "200"}]}
    assert (disagreements([Entry("/", False, end, id="1")], lines) == []) is agree


def test_answer_of_another_prompt_is_no_end() -> None:
    """Nor is one whose tokens are counted wrongly, although client and server call it complete."""
    entry = Entry("/", False, End.COMPLETED, id="1", wrong="it answers another prompt than [1]")
    assert disagreements([entry], {"1": [{"status": "200"}]}) == [f"/ 1: {entry.wrong}"]
