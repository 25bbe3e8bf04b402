"""Every way an answer can end, as a scripted server acts it out, is reported as what it is."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from benchmarks.records import Load, RequestRecord
from tests.benchmarks.load.test_runner import items, run
from tests.benchmarks.scripted import Answer, Script, honest, sse, usage


def only(script: Script, **how: Any) -> RequestRecord:
    """The record of one request to a server with this script."""
    load = Load(mode="closed", concurrency=1)
    (record,) = run(script, load, items(1), stall_s=0.2, timeout_s=1.0, **how).records
    return record


async def lies_in_usage(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.token(1)
    await answer.token(2, finish="stop")
    await answer.event(usage(3, 99))
    await answer.end()


async def closes_early(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.token(1)
    answer.writer.close()


async def ends_without_a_reason(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.token(1)
    await answer.end()


async def error_after_200(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.token(1)
    await answer.event({"error": {"message": "the engine died", "code": 500}})
    await answer.end()


async def stalls(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.token(1)
    await asyncio.sleep(2)


async def drips_for_ever(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    while not answer.writer.is_closing():
        await answer.token(1)
        await asyncio.sleep(0.02)


async def refuses(answer: Answer, asked: dict[str, Any]) -> None:
    body = b'{"error": {"message": "too many"}}'
    await answer.raw(b"HTTP/1.1 429 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def hangs_up(answer: Answer, asked: dict[str, Any]) -> None:
    answer.writer.close()


async def speaks_no_http(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.raw(b"220 smtp ready\r\n\r\n")


async def sends_no_json(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.chunk(b"data: {not json\n\n")
    await answer.end()


async def says_nothing(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    await answer.end()


async def sends_a_page(answer: Answer, asked: dict[str, Any]) -> None:
    await answer.head()
    await answer.chunk(b"<html>welcome</html>")
    await answer.raw(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (closes_early, "early_close", "in the middle of an answer"),
        (ends_without_a_reason, "early_close", "without a finish reason"),
        (error_after_200, "sse_error", "the engine died"),
        (stalls, "stall", "no byte for 0.2 s"),
        (drips_for_ever, "timeout", "not finished after 1 s"),
        (refuses, "http_status", "429: .*too many"),
        (hangs_up, "connect", "closed the connection"),
        (speaks_no_http, "bad_answer", "no HTTP/1.1 answer"),
        (sends_no_json, "bad_answer", "no JSON"),
        (says_nothing, "no_tokens", "not one token"),
        (sends_a_page, "bad_answer", "without a single event"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_failures_by_their_names(script: Script, error: str, message: str) -> None:
    """A failure is never a success, and never another kind of failure."""
    record = only(script)

    assert record.error == error
    assert record.error_message is not None
    assert re.search(message, record.error_message)


def test_tokens_by_ids_and_by_usage_are_both_kept() -> None:
    """A usage that lies does not change the count by ids, and stands beside it."""
    record = only(lies_in_usage)

    assert (record.num_output_tokens, record.usage_output_tokens) == (2, 99)
    assert (record.token_source, record.prompt_tokens, record.error) == ("token_ids", 3, None)


def test_usage_counts_where_there_are_no_ids() -> None:
    """By usage, the total is the server's, and each event with text counts as one chunk."""
    record = only(lies_in_usage, token_source="usage")

    assert (record.num_output_tokens, len(record.chunks)) == (99, 2)
    assert record.token_source == "usage"


def test_events_are_counted_as_a_last_resort() -> None:
    """Without ids and usage the events are counted, and the source says so."""

    async def no_usage(answer: Answer, asked: dict[str, Any]) -> None:
        await answer.head()
        await answer.token(1)
        await answer.token(2, finish="stop")
        await answer.end()

    record = only(no_usage, token_source="usage")

    assert (record.num_output_tokens, record.token_source) == (2, "events")


def test_continuous_usage_gives_tokens_by_event() -> None:
    """A running usage tells how many tokens each event brought."""

    async def running(answer: Answer, asked: dict[str, Any]) -> None:
        assert asked["stream_options"]["continuous_usage_stats"] is True
        await answer.head()
        for total, finish in ((1, None), (4, None), (5, "stop")):
            choice = {"index": 0, "text": "x", "finish_reason": finish}
            await answer.event({**usage(3, total), "choices": [choice]})
        await answer.end()

    record = only(running, token_source="continuous_usage")

    assert [chunk.num_tokens for chunk in record.chunks] == [1, 3, 1]


def test_role_event_is_no_token() -> None:
    """The first event with only a role is the first choice, and no first token."""

    async def chat(answer: Answer, asked: dict[str, Any]) -> None:
        await answer.head()
        await answer.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        await asyncio.sleep(0.05)
        choice = {"delta": {"content": "x"}, "token_ids": [7], "finish_reason": "stop"}
        await answer.event({"choices": [choice]})
        await answer.end()

    record = only(chat, protocol="openai-chat")
    (chunk,) = record.chunks

    assert record.choice_s is not None
    assert chunk.at_s - record.choice_s > 0.03


def test_reasoning_and_tool_calls_are_tokens_too() -> None:
    """The first token counts in whatever channel it comes."""

    async def chat(answer: Answer, asked: dict[str, Any]) -> None:
        await answer.head()
        call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
        deltas = [{"reasoning_content": "hm"}, {"tool_calls": [call]}, {"content": "x"}]
        for delta in deltas:
            await answer.event({"choices": [{"delta": delta}]})
        await answer.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        await answer.event(usage(1, 3))
        await answer.end()

    record = only(chat, protocol="openai-chat", token_source="usage", keep_text=True)

    assert len(record.chunks) == 3
    assert record.text == "hmf{}x"


def test_events_of_one_read_share_its_id() -> None:
    """Events that came in one piece are told from those that came apart."""

    async def pieces(answer: Answer, asked: dict[str, Any]) -> None:
        def token(finish: str | None = None) -> bytes:
            choice = {"index": 0, "text": "x", "token_ids": [1], "finish_reason": finish}
            return sse({"choices": [choice]})

        await answer.head()
        await answer.chunk(token() + token())
        await asyncio.sleep(0.05)
        third = token("stop")
        # An event counts when its last byte is there, and an event cut in two is one.
        await answer.chunk(third[:20])
        await asyncio.sleep(0.05)
        await answer.chunk(third[20:])
        await answer.end()

    first, second, third = only(pieces).chunks

    assert first.read_id == second.read_id != third.read_id
    assert third.at_s - second.at_s > 0.08


def test_comments_and_carriage_returns() -> None:
    """Keep-alive comments are no events, and CRLF ends lines as LF does."""

    async def odd(answer: Answer, asked: dict[str, Any]) -> None:
        await answer.head()
        await answer.chunk(b": ping\r\n\r\n")
        await answer.chunk(
            b'data: {"choices": [{"text": "x", "token_ids": [1], "finish_reason": "stop"}]}\r\n\r\n'
        )
        await answer.end()

    assert only(odd).num_output_tokens == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_the_ends_of_lines_end_lines(end: str) -> None:
    """What Python calls an end of a line, and server-sent events do not, cuts no event in two."""
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"

    async def raw(answer: Answer, asked: dict[str, Any]) -> None:
        # vLLM leaves these characters in JSON as they are; control characters are escaped.
        choice = {"index": 0, "text": text, "token_ids": [1], "finish_reason": "stop"}
        said = json.dumps({"choices": [choice]}, ensure_ascii=False)
        await answer.head()
        await answer.chunk(f"event: x{end}data: {said}{end}{end}".encode())
        await answer.end()

    record = only(raw, keep_text=True)

    assert (record.error, record.num_output_tokens, record.text) == (None, 1, text)


def test_body_that_ends_with_the_connection() -> None:
    """An answer without length and chunks is complete when the server closes."""

    async def old(answer: Answer, asked: dict[str, Any]) -> None:
        choice = {"text": "x", "token_ids": [1], "finish_reason": "stop"}
        await answer.raw(b"HTTP/1.0 200 OK\r\n\r\n" + sse({"choices": [choice]}))
        answer.writer.close()

    record = only(old)

    assert (record.error, record.num_output_tokens) == (None, 1)


def test_connection_is_used_again() -> None:
    """One client keeps its connection over its requests."""
    writers = set()

    async def counted(answer: Answer, asked: dict[str, Any]) -> None:
        writers.add(answer.writer)
        await honest(answer, asked)

    run(counted, Load(mode="closed", concurrency=1), items(5))

    assert len(writers) == 1
