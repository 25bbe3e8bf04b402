"""
How much the fields of a request may hold: one table for every protocol, before any tokenising.

vLLM looks at some of it, later; and on a GPU more allowed tokens, biases or stop ids than its
kernels have room for end the engine for everybody (vllm-project/vllm#55164).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from gemma_serve.engine.schemas import check_specification, schemas_of
from gemma_serve.errors import RequestError

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Limits

# With min_tokens, vLLM masks the model's stop ids too, in so many places.
# Source: vLLM 0.32, v1/worker/gpu/sample/logit_bias.py.
MAX_STOP_TOKEN_IDS = 128
# Integers go to the engine in 64 bits, signed.
MAX_INTEGER = 2**63 - 1


# Most fields are one of these.
_NO_NUMBERS = frozenset({bool, str, list, type(None)})


@dataclass(frozen=True)
class Limit:
    """The most that a field may hold, in items, or for a number be."""

    most: int
    items: str = ""  # what it holds; a number holds nothing
    key: str = ""  # the profile's key that raises it

    def check(self, name: str, value: Any) -> None:
        """Refuse more; a value of another type is for the request's model to refuse."""
        if self.items and isinstance(value, list | dict):
            self._check(name, len(value), f"has {len(value)} {self.items}")
        elif not self.items and isinstance(value, int) and not isinstance(value, bool):
            self._check(name, value, f"is {value}")

    def _check(self, name: str, amount: int, what: str) -> None:
        if amount > self.most:
            where = f" ({self.key})" if self.key else ""
            raise RequestError(
                f"{name} {what}; at most {self.most} are allowed{where}, so send less.", param=name
            )


@dataclass(frozen=True)
class RequestLimits:
    """The limits of one server."""

    table: Mapping[str, Limit]
    limits: Limits
    stop_token_ids: Collection[int]  # those that end every answer

    @classmethod
    def of(
        cls,
        limits: Limits,
        *,
        max_num_seqs: int,
        max_logprobs: int,
        stop_token_ids: Collection[int],
    ) -> RequestLimits:
        """
        The limits that a profile and its engine make.

        Args:
            limits: The profile's.
            max_num_seqs: Answers that the engine works on at a time.
            max_logprobs: vLLM's own; -1 is no limit.
            stop_token_ids: Ids at which every answer ends.
        """
        # Messages, their parts and tools are counted where all protocols have become chats
        # (chat/prompts.py).
        stops = Limit(limits.max_stop_strings, "strings", "limits.max_stop_strings")
        table = {
            "n": Limit(min(limits.max_n, max_num_seqs), key="limits.max_n"),
            "prompt": Limit(limits.max_prompts, "prompts", "limits.max_prompts"),
            "stop": stops,
            "stop_sequences": stops,
            # These can't be raised by a key: vLLM has no room for more.
            "stop_token_ids": Limit(limits.max_stop_token_ids, "token ids"),
            "logit_bias": Limit(limits.max_biased_token_ids, "token ids"),
            "allowed_token_ids": Limit(limits.max_biased_token_ids, "token ids"),
            "logprob_token_ids": Limit(limits.max_logprob_token_ids, "token ids"),
            "bad_words": Limit(limits.max_bad_words, "words"),
        }
        if max_logprobs >= 0:
            most = Limit(max_logprobs, key="engine.max_logprobs")
            table |= dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs"), most)
        return cls(table, limits, frozenset(stop_token_ids))

    def check(self, request: BaseModel) -> None:
        """
        Refuse a request of any protocol that holds more than it may.

        Raises:
            RequestError: with the field as `param`, its limit and the profile's key in the message.
        """
        # Not by getattr: pydantic would warn of OpenAI's deprecated fields.
        fields = request.__dict__
        for name, value in fields.items():
            if type(value) not in _NO_NUMBERS:
                _check_numbers(name, value)
        for name, limit in self.table.items():
            value = fields.get(name)
            if value is not None and not _is_one_prompt(name, value):
                limit.check(name, value)
        for name in ("stop", "stop_sequences", "bad_words"):
            _check_words(name, fields.get(name), self.limits.max_word_chars)
        self._check_stop_ids(fields)
        for name, schema in schemas_of(fields):
            check_specification(name, schema, self.limits)

    def _check_stop_ids(self, fields: Mapping[str, Any]) -> None:
        """With min_tokens all of them are masked, and those of the model take room too."""
        sent = fields.get("stop_token_ids")
        if not sent or not fields.get("min_tokens"):
            return
        most = MAX_STOP_TOKEN_IDS - len(self.stop_token_ids)
        if len(set(sent) - set(self.stop_token_ids)) > most:
            raise RequestError(
                f"stop_token_ids has {len(sent)} token ids; with min_tokens at most {most} are "
                "allowed, so send less, or leave min_tokens out.",
                param="stop_token_ids",
            )


def _is_one_prompt(name: str, value: Any) -> bool:
    # A list of numbers is the ids of one prompt, whose length is limited by the context.
    return name == "prompt" and isinstance(value, list) and bool(value) and type(value[0]) is int


def _check_words(name: str, value: Any, max_chars: int) -> None:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list):
        return
    longest = max((len(word) for word in words if isinstance(word, str)), default=0)
    if longest > max_chars:  # each is looked for in the answer again with every token
        raise RequestError(
            f"{name} has a string of {longest} characters; at most {max_chars} are allowed "
            "(limits.max_word_chars), so send a shorter one.",
            param=name,
        )


def _check_numbers(name: str, value: Any) -> None:
    """Refuse numbers that JSON or the engine has no place for, in a field or just below it."""
    for number in _numbers(value):
        if isinstance(number, float) and not math.isfinite(number):
            raise RequestError(f"{name} is not a finite number; send one.", param=name)
        if isinstance(number, int) and not -MAX_INTEGER <= number <= MAX_INTEGER:
            raise RequestError(
                f"{name} is more than 64 bits hold; send a number up to {MAX_INTEGER}.", param=name
            )


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        yield from (one for one in value.values() if isinstance(one, int | float))
    elif dataclasses.is_dataclass(value):
        yield from _numbers(vars(value))
