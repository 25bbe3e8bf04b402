"""
What a whole answer tells, on each API: its text, how many tokens it has, and whose prompt it had.

An answer that is complete may still be another request's, or count its tokens wrongly.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.asked import nonce_of, traced_body

if TYPE_CHECKING:
    from tests.faults.ledger import Entry

Event = Mapping[str, Any]
Decode = Callable[[Sequence[int]], str]
# The finish reasons of an answer that is as long as it may be.
CUT = {"length", "max_tokens", "incomplete"}
# APIs that give the prompt's ids back, and those that count the answer's tokens.
WITH_IDS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
WITH_USAGE = (*WITH_IDS, "/v1/messages")


@dataclass
class Told:
    """The parts of one answer, put together."""

    text: str = ""
    usage_tokens: int | None = None
    token_ids: list[int] = field(default_factory=list)
    prompt_ids: list[int] | None = None
    whole_text: str | None = None  # that a stream repeats at its end

    def faults(self, path: str, nonce: str, num_tokens: int, decode: Decode, *, cut: bool) -> str:
        """
        What is wrong with it, nothing as a rule.

        Args:
            nonce: What its request's prompt had.
            num_tokens: The longest answer that was asked for.
            decode: The model's tokenizer.
            cut: Whether it ended for its length.
        """
        if path in WITH_IDS and (self.prompt_ids is None or nonce not in decode(self.prompt_ids)):
            return f"it answers another prompt than {nonce}"
        if self.whole_text is not None and self.whole_text != self.text:
            return "its events have another text than its end"
        if path in WITH_USAGE:
            return self._miscounted(path, num_tokens, cut=cut)
        return ""

    def _miscounted(self, path: str, num_tokens: int, *, cut: bool) -> str:
        counted = self.usage_tokens
        if path in WITH_IDS and counted != len(self.token_ids):
            return f"its usage says {counted} tokens and {len(self.token_ids)} came"
        if counted is None or counted > num_tokens or (cut and counted != num_tokens):
            return f"its usage says {counted} tokens, of {num_tokens} that were asked for"
        return ""


def told_by(events: Iterable[Event | str]) -> Told:
    """Read an answer: the events of a stream, or its one body."""
    told = Told()
    for event in events:
        if not isinstance(event, str):
            _read(event, told)
    return told


def _read(event: Event, told: Told) -> None:
    source = event["response"] if event.get("type") == "response.completed" else event
    for choice in source.get("choices") or ():
        _read_choice(choice, told)
    told.prompt_ids = source.get("prompt_token_ids") or told.prompt_ids
    told.text += _text_of(event)
    usage = source.get("usage") or {}
    counted = usage.get("completion_tokens", usage.get("output_tokens"))
    told.usage_tokens = told.usage_tokens if counted is None else counted
    if source.get("object") == "response" and source.get("output"):
        _read_response(source, told, is_streamed=source is not event)


def _read_choice(choice: Event, told: Told) -> None:
    part = choice.get("delta") or choice.get("message") or {}
    told.text += choice.get("text") or part.get("content") or ""
    told.token_ids += choice.get("token_ids") or []
    told.prompt_ids = choice.get("prompt_token_ids") or told.prompt_ids


def _text_of(event: Event) -> str:
    """The text of what is no choice of OpenAI's first two APIs."""
    kind, delta = event.get("type"), event.get("delta")
    if kind == "response.output_text.delta":
        return str(delta)
    if kind == "content_block_delta":
        return str((delta or {}).get("text") or "")
    if kind == "message":  # Anthropic's, in one piece
        return "".join(block.get("text") or "" for block in event.get("content") or ())
    return str(event.get("text_output", ""))


def _read_response(response: Event, told: Told, *, is_streamed: bool) -> None:
    blocks = (block for item in response["output"] for block in item.get("content") or ())
    text = "".join(block.get("text") or "" for block in blocks)
    if is_streamed:
        told.whole_text = text
    else:
        told.text = text
    for message in response.get("input_messages") or ():
        told.prompt_ids = message["tokens"]
    for message in response.get("output_messages") or ():
        told.token_ids += message["tokens"]


def other_alone(
    http: httpx.Client, entries: Sequence[Entry], count: int, num_tokens: int
) -> list[str]:
    """
    Ask an idle server again for some of the answers that were whole.

    Args:
        entries: Of requests with a prompt of their own (`traced_body`), greedy.
        count: How many of them, in turn of each API, streamed and not.
        num_tokens: The length that they asked for.

    Returns:
        Those that have another text now.
    """
    found = []
    for entry in _in_turn(entries, count):
        body = traced_body(entry.path, num_tokens, nonce_of(entry.id))
        answer = http.post(entry.path, json=body).raise_for_status()
        alone = told_by([answer.json()]).text
        if alone != entry.text or not alone:
            found.append(f"{entry.path} {entry.id}: {entry.text!r} under load, {alone!r} alone")
    return found


def _in_turn(entries: Sequence[Entry], count: int) -> list[Entry]:
    groups: dict[tuple[str, bool], list[Entry]] = collections.defaultdict(list)
    for entry in entries:
        if entry.is_traced:
            groups[entry.path, entry.stream].append(entry)
    chosen: list[Entry] = []
    while len(chosen) < count and any(groups.values()):
        # The last ones of each: the first were answered before the load was there.
        chosen += [group.pop() for group in groups.values() if group]
    return chosen[:count]
