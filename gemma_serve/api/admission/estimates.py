"""How fast the engine is, as its last requests show: what limits and Retry-After are made of."""

from __future__ import annotations

import math

MAX_RETRY_S = 60
# Of Gemma's tokenizer on English; other languages and code have fewer. Corrected by each request.
CHARS_PER_TOKEN = 4.0


class MovingAverage:
    """An exponentially weighted moving average: 1 / weight samples are its memory."""

    def __init__(self, value: float | None = None, *, weight: float = 0.05) -> None:
        self.value, self.weight = value, weight

    def add(self, sample: float) -> None:
        """Let one more sample count."""
        known = sample if self.value is None else self.value
        self.value = known + self.weight * (sample - known)


class Estimates:
    """Averages over finished requests; each is None until there was one."""

    def __init__(self, min_prefill_tokens: int = 0) -> None:
        # A shorter prefill is one step at most, whose time says little of a longer one's.
        self.min_prefill_tokens = min_prefill_tokens
        self.prefill_tokens_per_s = MovingAverage()
        self.service_s = MovingAverage()
        self.chars_per_token = MovingAverage(CHARS_PER_TOKEN)

    def tokens_of(self, num_chars: int) -> int:
        """The tokens that so many characters will be."""
        return math.ceil(num_chars / (self.chars_per_token.value or CHARS_PER_TOKEN))

    def saw_prompt(self, num_chars: int, num_tokens: int) -> None:
        """Learn from a prompt whose characters were counted, and which is tokenised."""
        if num_chars and num_tokens:
            self.chars_per_token.add(num_chars / num_tokens)

    def saw_first_token(self, num_tokens: int, ttft_s: float) -> None:
        """Learn from a request: the tokens it brought and found before it, and its wait."""
        if num_tokens >= self.min_prefill_tokens and ttft_s > 0:
            self.prefill_tokens_per_s.add(num_tokens / ttft_s)

    def max_tokens_ahead(self, ttft_s: float) -> float:
        """
        The prompt tokens that may be before a request which is to get its first token in time.

        Prefill works through its queue like a pipe: `ttft = tokens ahead / prefill rate`, so
        `tokens ahead = prefill rate x ttft`. Never less than one step's, which nothing waits for.

        Source: Little's law; vLLM bounds the same figure by `max_num_queued_tokens`
        """
        rate = self.prefill_tokens_per_s.value
        return math.inf if rate is None else max(rate * ttft_s, self.min_prefill_tokens)

    def wait_s(self, num_waiting: int, num_running: int) -> float:
        """
        How long a queue takes: what runs, ends at `num_running / mean service time`.

        Source: Little's law, throughput = concurrency / residence time
        """
        return num_waiting * (self.service_s.value or 1.0) / max(num_running, 1)


def retry_after_s(wait_s: float) -> int:
    """Whole seconds for a Retry-After header."""
    return min(max(math.ceil(wait_s), 1), MAX_RETRY_S)
