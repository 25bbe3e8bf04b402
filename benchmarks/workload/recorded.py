"""
Requests and answers that were recorded, in the shapes in which datasets and logs hold them.

Chat bodies {"messages": ...}, prompts {"prompt": ...}, ShareGPT {"conversations": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.stored import read_bytes
from benchmarks.workload.text import Text

Message = dict[str, Any]
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
# OpenAI's two names, and the columns of vllm bench's and guidellm's files.
MAX_TOKENS = ("max_completion_tokens", "max_tokens", "output_tokens", "output_tokens_count")
SHAPES = (
    'a chat body {"messages": [...]}, a prompt {"prompt": ...}, '
    'or ShareGPT\'s {"conversations": [...]}'
)


@dataclass(frozen=True)
class Turn:
    """One request as recorded; `fields` are the prompt's of an Item."""

    fields: dict[str, Any]
    answer: str | None = None
    max_tokens: int | None = None

    def input_tokens(self, text: Text) -> int:
        """Length of the prompt without a chat template's own tokens, or of the new turn."""
        if (ids := self.fields.get("prompt_token_ids")) is not None:
            return len(ids)
        if (prompt := self.fields.get("prompt")) is not None:
            return text.count(prompt)
        return sum(text.count(content_text(message)) for message in self.fields["messages"])

    def output_tokens(self, text: Text) -> int | None:
        """What the request asks for, else how long its answer was."""
        if self.max_tokens is not None:
            return self.max_tokens
        return max(1, text.count(self.answer)) if self.answer else None


def entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Each JSON object of a JSON list or of JSON lines, and where it stands.

    Raises:
        WorkloadError: the file cannot be read, or something in it is no object.
    """
    content = read_bytes(path)
    if content.lstrip().startswith(b"["):
        listed = enumerate(_json(content, path.name), start=1)
        found = ((f"{path.name} entry {number}", entry) for number, entry in listed)
    else:
        lines = ((f"{path.name} line {n}", line) for n, line in enumerate(content.split(b"\n"), 1))
        found = ((where, _json(line, where)) for where, line in lines if line.strip())
    for where, entry in found:
        if not isinstance(entry, dict):
            raise WorkloadError(f"{where} is no JSON object; give {SHAPES}")
        yield where, entry


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise WorkloadError(f"{where} is no JSON: {error}; give {SHAPES}") from error


def turns_of(entry: dict[str, Any], where: str, *, split_turns: bool) -> list[Turn]:
    """
    The requests of one entry; none where a ShareGPT conversation has no question.

    Raises:
        WorkloadError: the entry has another shape.
    """
    if "conversations" in entry:
        messages = _sharegpt_messages(entry["conversations"], where)
        turns = _split(messages)
        return turns if split_turns else turns[:1]
    if "messages" in entry:
        messages = _checked_messages(entry["messages"], where)
        if split_turns:
            return _split(messages)
        return [_body(messages, _max_tokens(entry, where))]
    if "prompt" in entry:
        answer = entry.get("completion")
        return [Turn(_prompt(entry["prompt"], where), answer, _max_tokens(entry, where))]
    raise WorkloadError(f"{where} has none of messages, prompt and conversations; give {SHAPES}")


def _body(messages: list[Message], max_tokens: int | None) -> Turn:
    """A whole chat with its history; a last message of the assistant is the recorded answer."""
    if messages[-1]["role"] == "assistant" and len(messages) > 1:
        return Turn({"messages": messages[:-1]}, content_text(messages[-1]), max_tokens)
    return Turn({"messages": messages}, None, max_tokens)


def _split(messages: list[Message]) -> list[Turn]:
    """Each stretch up to an answer is a turn; one without a user in it is none."""
    turns: list[Turn] = []
    new: list[Message] = []
    for message in messages:
        if message["role"] != "assistant":
            new.append(message)
        elif any(one["role"] == "user" for one in new):
            turns.append(Turn({"messages": new}, content_text(message)))
            new = []
    if any(one["role"] == "user" for one in new):
        turns.append(Turn({"messages": new}))
    return turns


def _sharegpt_messages(conversations: Any, where: str) -> list[Message]:
    if not isinstance(conversations, list):
        raise WorkloadError(f"{where}: conversations is no list")
    messages = []
    for said in conversations:
        who = said.get("from") if isinstance(said, dict) else None
        if who not in ROLES or not isinstance(said.get("value"), str):
            known = ", ".join(ROLES)
            raise WorkloadError(
                f"{where}: a conversation's message is from {who!r}; "
                f'give {{"from": ..., "value": text}} with from one of {known}'
            )
        messages.append({"role": ROLES[who], "content": said["value"]})
    return messages


def _checked_messages(messages: Any, where: str) -> list[Message]:
    good = isinstance(messages, list) and messages
    if not good or not all(isinstance(one, dict) and "role" in one for one in messages):
        raise WorkloadError(f"{where}: messages is no list of messages with a role")
    return list(messages)


def _prompt(prompt: Any, where: str) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return {"prompt_token_ids": prompt}
    raise WorkloadError(f"{where}: prompt is neither a text nor a list of token ids")


def _max_tokens(entry: dict[str, Any], where: str) -> int | None:
    for name in MAX_TOKENS:
        if (value := entry.get(name)) is not None:
            if type(value) is not int or value < 1:
                raise WorkloadError(f"{where}: {name}={value!r} is no whole number from 1 up")
            return value
    return None


def content_text(message: Message) -> str:
    """The text of a message, also where its content is a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
