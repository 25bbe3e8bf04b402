"""A checkpoint in transformers: one generation at a time, each token told as it comes."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria
from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True)
class Sampling:
    """How to generate; a temperature of 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    ignore_eos: bool = False


@dataclass(frozen=True)
class Step:
    """One token, and the text that it completes; the text may be empty."""

    token_id: int
    text: str


class Detokenizer:
    """Text piece by piece: no piece ends in the middle of a character."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Ids before _read are text that was given out; from _start on they are decoded again, as a
        # token's text depends on the one before it.
        self._start = self._read = 0

    def add(self, token_id: int) -> str:
        """The text that this token completes."""
        self._ids.append(token_id)
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return now[len(before) :]


class Model:
    """A checkpoint's weights in bf16 on all cores, its tokenizer and its chat template."""

    def __init__(self, checkpoint: str) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.name = Path(checkpoint).name
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
        ends = self._model.generation_config.eos_token_id
        self._eos_ids = set(ends if isinstance(ends, list) else [ends])

    def chat_ids(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """The prompt of a chat, by the checkpoint's template."""
        told = self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=True
        )
        return list(told["input_ids"])

    def text_ids(self, text: str) -> list[int]:
        """The prompt of a text, with the <bos> that the tokenizer puts before it."""
        return list(self._tokenizer(text)["input_ids"])

    def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        on_step: Callable[[Step], None],
        left: threading.Event,
    ) -> str:
        """
        Generate to the end, or until `left` is set; returns OpenAI's finish reason.

        The token that ends a text is told like any other, as the server's usage counts it.
        """
        streamer = _Streamer(self._decode, on_step)
        with torch.inference_mode():
            self._model.generate(
                torch.tensor([list(prompt_ids)]),
                generation_config=self._config(sampling),
                streamer=streamer,
                stopping_criteria=[_Left(left)],
            )
        ended = streamer.last_id in self._eos_ids and not sampling.ignore_eos
        return "stop" if ended else "length"

    def _config(self, sampling: Sampling) -> Any:
        config = copy.deepcopy(self._model.generation_config)
        greedy = sampling.temperature == 0
        config.do_sample = not greedy
        config.temperature = None if greedy else sampling.temperature
        config.top_p = None if greedy else sampling.top_p
        config.top_k = None
        config.max_new_tokens = sampling.max_tokens
        config.min_new_tokens = sampling.max_tokens if sampling.ignore_eos else None
        return config

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """What `generate` calls with the prompt first, then with each token."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], on_step: Callable[[Step], None]
    ) -> None:
        self._detokenizer, self._on_step = Detokenizer(decode), on_step
        self._prompt_came = False
        self.last_id: int | None = None

    def put(self, value: Any) -> None:
        """A tensor of ids."""
        if not self._prompt_came:
            self._prompt_came = True
            return
        for token_id in value.flatten().tolist():
            self.last_id = token_id
            self._on_step(Step(token_id, self._detokenizer.add(token_id)))

    def end(self) -> None:
        """Nothing is held back: an unfinished character is no text."""


class _Left(StoppingCriteria):  # type: ignore[misc]
    """Whether the client has gone."""

    def __init__(self, left: threading.Event) -> None:
        self._left = left

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Stop all rows, or none."""
        return torch.full((input_ids.shape[0],), self._left.is_set(), dtype=torch.bool)
