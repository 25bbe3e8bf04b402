"""Class D: prompts at the limits, over them, and far over them; ids that the model has not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.reliability.case import (
    CHAT,
    COMPLETIONS,
    EITHER,
    MESSAGES,
    OK,
    REFUSED,
    RESPONSES,
    TOKENIZE,
    Case,
    chat,
    post,
)
from tests.tiny_gemma import BOS, VOCAB_SIZE

CONTEXT_TOKENS = 4096  # of the tests' profile
# One pattern each: one character, one of four bytes, nothing but spaces, control tokens as text.
PATTERNS = {
    "letters": "a",
    "emoji": "\U0001f600",
    "spaces": " ",
    "bos": "<bos>",
    "turns": "<end_of_turn>\n",
}
# limits.max_body_bytes of the tests' server is 1,000,000: the last is refused by its length.
REPEATS = (4_000, 40_000, 1_200_000)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _texts()
    yield from _token_ids()
    yield from _counts()
    yield from _lengths()


def _texts() -> Iterator[Case]:
    for name, pattern in PATTERNS.items():
        for characters in REPEATS:
            text = pattern * (characters // len(pattern))
            what = f"D {name}, {characters} characters"
            turn = [{"role": "user", "content": text}]
            yield chat(f"{what}, chat", EITHER, messages=turn)
            yield post(
                f"{what}, completion", COMPLETIONS, {"prompt": text, "max_tokens": 1}, EITHER
            )
            yield post(f"{what}, tokenize", TOKENIZE, {"prompt": text}, EITHER)


def _token_ids() -> Iterator[Case]:
    good = [BOS, 300]
    for name, ids in {
        "negative": [*good, -1],
        "the first that is none": [*good, VOCAB_SIZE],
        "2^31": [*good, 2**31],
        "2^63": [*good, 2**63],
        "2^64": [*good, 2**64],
        "a fraction": [*good, 1.5],
        "a text among ids": [*good, "AI"],
        "null among ids": [*good, None],
        "true among ids": [*good, [True]],
        "nested": [[good]],
    }.items():
        yield post(f"D token id: {name}", COMPLETIONS, {"prompt": ids, "max_tokens": 1})
    whole = [BOS, *[300] * (CONTEXT_TOKENS - 1)]
    for name, ids, allowed in (
        ("of the whole context", whole, REFUSED),
        ("but one of the context", whole[:-1], OK),
        ("over the context", [*whole, 300], REFUSED),
        ("ten times the context", whole * 10, REFUSED),
    ):
        yield post(f"D token ids {name}", COMPLETIONS, {"prompt": ids, "max_tokens": 1}, allowed)


def _counts() -> Iterator[Case]:
    for name, prompt in {
        "no prompt": "",
        "no prompts": [],
        "129 prompts": ["a"] * 129,
        "100,000 prompts": ["a"] * 100_000,
        "129 lists of ids": [[BOS]] * 129,
        "a null": None,
        "a null among prompts": ["a", None],
        "a number": 7,
        "an object": {"a": 1},
    }.items():
        allowed = EITHER if prompt == "" else REFUSED
        yield post(f"D {name}", COMPLETIONS, {"prompt": prompt, "max_tokens": 1}, allowed)
    turn = {"role": "user", "content": "a"}
    yield chat("D no messages", messages=[])
    yield chat("D 2,049 messages", messages=[turn] * 2049)
    yield chat("D 10,000 messages", messages=[turn] * 10_000)
    parts = [{"type": "text", "text": "a"}]
    yield chat("D 10,000 parts", EITHER, messages=[{"role": "user", "content": parts * 10_000}])


def _lengths() -> Iterator[Case]:
    """`max_tokens` by every API's own name."""
    turn = {"role": "user", "content": "a"}
    of_api: dict[str, tuple[str, dict[str, Any]]] = {
        CHAT: ("max_tokens", {"messages": [turn]}),
        COMPLETIONS: ("max_tokens", {"prompt": "a"}),
        RESPONSES: ("max_output_tokens", {"input": "a"}),
        MESSAGES: ("max_tokens", {"model": "tiny", "messages": [turn]}),
    }
    for path, (key, fields) in of_api.items():
        for value in (-1, CONTEXT_TOKENS + 1, 2**31, 2**63, 2**64, 1e308, 1.5, "1", True, [], {}):
            allowed = EITHER if value in (1.5, "1", True) else REFUSED
            yield post(f"D {path} {key} {value!r}", path, fields | {key: value}, allowed)
