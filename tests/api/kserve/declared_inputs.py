"""The inputs of the three contracts by their documentation, and which values of each are served."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.api.kserve.tensor_cases import INPUTS
from tests.api.kserve.vllm_backend import png
from tests.tiny_gemma import VOCAB_SIZE

PROMPT = "Rome is"
# A prompt of few tokens in any case: 12 leaves room and 1 does not. Half of those drawn are right.
LENGTHS = (-5, 0, 1, 12, 12, 12)
# Of new tokens: few, as each takes time.
COUNTS = (-(2**31), -1, 0, 1, 2)
MAX_TOKENS = 2


@dataclass(frozen=True)
class Declared:
    """
    One contract's inputs, as a client knows them.

    Attributes:
        inputs: The datatype of each.
        beside: What else a request has, so that the value of an input counts.
        serves: Whether values that fit the datatype and the shape are answered.
        any_size: Inputs of as many values as a client likes.
        batch: The sizes before an input's own.
        drawn: Values to draw from, where most of the datatype's would be alike, or take long.
        closed: Texts of which nothing but those is drawn.
        right: A value that is served, where `tensor_cases.value_of` is none.
    """

    inputs: Mapping[str, str]
    beside: Callable[[str], dict[str, Any]]
    serves: Callable[[str, Sequence[Any]], bool]
    any_size: frozenset[str]
    batch: tuple[int, ...] = ()
    drawn: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    right: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, num_values: int) -> list[int]:
        """The shape of an input of so many values."""
        return [*self.batch, num_values]


def is_utf8(value: bytes) -> bool:
    """Whether bytes are text."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- python-backend


def _beside_python(name: str) -> dict[str, Any]:
    others = {"text_input": PROMPT.encode(), "max_new_tokens": MAX_TOKENS}
    if name == "max_length":
        del others["max_new_tokens"]
    return others | {"do_sample": name in ("top_k", "top_p", "temperature")}


def _python_serves(name: str, values: Sequence[Any]) -> bool:
    match name:
        case "text_input":
            return len(values) >= 1 and all(map(is_utf8, values))
        case "max_new_tokens":
            return bool(values[0] >= 1)
        case "max_length":
            return bool(values[0] == LENGTHS[-1])
        case "top_k":
            return bool(values[0] >= 0)
        case "top_p":
            return bool(0 <= values[0] <= 1)
        case "temperature":
            return bool(0 < values[0] <= 2)  # vLLM's range
        case "repetition_penalty":
            return bool(0 < values[0] < math.inf)
    return True


PYTHON = Declared(
    INPUTS,
    _beside_python,
    _python_serves,
    any_size=frozenset({"text_input"}),
    drawn={"max_length": LENGTHS, "max_new_tokens": COUNTS},
    right={"max_length": LENGTHS[-1]},
)

# --- vllm-backend

SAMPLING = json.dumps({"temperature": 0, "max_tokens": MAX_TOKENS}).encode()
SAMPLINGS = (
    *(SAMPLING, b'{"temperature": "0.5", "max_tokens": "1"}', b' {"max_tokens": 2}\n', b"{}"),
)
NO_SAMPLINGS = (
    *(b"", b"[1]", b"5", b"null", b'"a"', b"{'max_tokens': 2}", SAMPLING[:-1], SAMPLING + b"}"),
    *(b'{"max_tokens": 0}', b'{"temperature": "warm"}', b'{"early_stopping": true}'),
)
PICTURE = png(1).encode()
WITH_A_PLACE = "Rome <start_of_image> is"


def _beside_vllm(name: str) -> dict[str, Any]:
    text = WITH_A_PLACE if name == "image" else PROMPT
    return {"text_input": text.encode(), "sampling_parameters": SAMPLING}


def _vllm_serves(name: str, values: Sequence[Any]) -> bool:
    match name:
        case "text_input":
            return is_utf8(values[0])
        case "image":  # none, or one for the place in the text
            return list(values) in ([], [PICTURE])
        case "sampling_parameters":
            return values[0] in SAMPLINGS or _is_empty_object(values[0])
    return True


def _is_empty_object(value: bytes) -> bool:
    try:
        return bool(json.loads(value) == {})
    except ValueError:
        return False


VLLM = Declared(
    {
        "text_input": "BYTES",
        "image": "BYTES",
        "stream": "BOOL",
        "sampling_parameters": "BYTES",
        "exclude_input_in_output": "BOOL",
        "return_finish_reason": "BOOL",
        "return_cumulative_logprob": "BOOL",
        "return_logprobs": "BOOL",
        "return_num_input_tokens": "BOOL",
        "return_num_output_tokens": "BOOL",
    },
    _beside_vllm,
    _vllm_serves,
    any_size=frozenset({"image"}),
    drawn={
        "image": (PICTURE, PICTURE, PICTURE, b"", PICTURE[:400]),
        "sampling_parameters": (*SAMPLINGS, *NO_SAMPLINGS),
    },
    right={"image": PICTURE.decode(), "sampling_parameters": SAMPLING.decode()},
)

# --- tensorrtllm

# Each of these counts only while sampling, which top_k makes it do.
SAMPLED = frozenset({"temperature", "top_p", "num_return_sequences"})
GUIDES = (b"a", b"(red|green)", b"[ab]+")
# The one guide beside a type fits two of them.
GUIDE_TYPES = {b"regex": True, b"json": True, b"json_schema": False, b"ebnf_grammar": False}
ONLY_FALSE = ("return_context_logits", "return_generation_logits")


def _beside_tensorrt(name: str) -> dict[str, Any]:
    others: dict[str, Any] = {"text_input": PROMPT.encode(), "max_tokens": MAX_TOKENS}
    if name in SAMPLED:
        others["top_k"] = 5
    if name == "guided_decoding_guide_type":
        others["guided_decoding_guide"] = GUIDES[0]
    if name == "guided_decoding_guide":
        others["guided_decoding_guide_type"] = b"regex"
    return others


# Numbers and flags; texts are below.
TENSORRT_RANGES: Mapping[str, Callable[[Any], bool]] = {
    "max_tokens": lambda value: value >= 1,
    "end_id": lambda value: value < VOCAB_SIZE,  # below 0 it is none
    "top_k": lambda value: value >= -1,
    "top_p": lambda value: 0 <= value <= 1,  # 0 is none
    "temperature": lambda value: 0 <= value <= 2,
    "repetition_penalty": lambda value: 0 < value < math.inf,
    "min_tokens": lambda value: 0 <= value <= MAX_TOKENS,
    "min_length": lambda value: 0 <= value <= MAX_TOKENS,
    "presence_penalty": lambda value: -2 <= value <= 2,
    "frequency_penalty": lambda value: -2 <= value <= 2,
    "seed": lambda value: value < 2**63,
    "random_seed": lambda value: value < 2**63,
    "num_return_sequences": lambda value: 1 <= value <= 3,  # of those that are drawn
    "beam_width": lambda value: value == 1,
    **dict.fromkeys(ONLY_FALSE, lambda value: not value),
}


def _tensorrt_serves(name: str, values: Sequence[Any]) -> bool:
    match name:
        case "text_input":
            return is_utf8(values[0])
        case "bad_words":  # of white space alone nothing is left to forbid
            return all(is_utf8(word) and (not word or word.decode().strip()) for word in values)
        case "stop_words":
            return all(map(is_utf8, values))
        case "guided_decoding_guide_type":
            return GUIDE_TYPES.get(values[0], False)
        case "guided_decoding_guide":
            return values[0] in GUIDES
        case _ if name in TENSORRT_RANGES:
            return TENSORRT_RANGES[name](values[0])
    return True


TENSORRT = Declared(
    {
        **dict.fromkeys(("text_input", "bad_words", "stop_words"), "BYTES"),
        **dict.fromkeys(("max_tokens", "end_id", "pad_id", "top_k", "min_tokens"), "INT32"),
        **dict.fromkeys(("min_length", "num_return_sequences", "beam_width"), "INT32"),
        **dict.fromkeys(("top_p", "temperature", "length_penalty"), "FP32"),
        **dict.fromkeys(("repetition_penalty", "presence_penalty", "frequency_penalty"), "FP32"),
        **dict.fromkeys(("seed", "random_seed"), "UINT64"),
        **dict.fromkeys(("exclude_input_in_output", "stream", "return_log_probs"), "BOOL"),
        **dict.fromkeys(("return_num_input_tokens", "return_num_output_tokens"), "BOOL"),
        **dict.fromkeys(ONLY_FALSE, "BOOL"),
        **dict.fromkeys(("guided_decoding_guide_type", "guided_decoding_guide"), "BYTES"),
    },
    _beside_tensorrt,
    _tensorrt_serves,
    any_size=frozenset({"bad_words", "stop_words"}),
    batch=(1,),
    drawn={
        "max_tokens": COUNTS,
        "end_id": (-(2**31), -1, 0, 5, VOCAB_SIZE - 1, VOCAB_SIZE, 2**31 - 1),
        "min_tokens": (-(2**31), -1, 0, 1, 2, 3, 2**31 - 1),
        "min_length": (-(2**31), -1, 0, 1, 2, 3, 2**31 - 1),
        "num_return_sequences": (-(2**31), -1, 0, 1, 2, 3, 10**6),
        "beam_width": (-1, 0, 1, 1, 1, 2, 2**31 - 1),
        "seed": (0, 1, 7, 2**63 - 1, 2**63, 2**64 - 1),
        "random_seed": (0, 1, 7, 2**63 - 1, 2**63, 2**64 - 1),
        "guided_decoding_guide_type": tuple(GUIDE_TYPES),
        "guided_decoding_guide": (*GUIDES, b"(", b"["),
    },
    closed=frozenset({"guided_decoding_guide"}),  # most words are regular expressions
    right={
        **dict.fromkeys(("min_tokens", "min_length", "beam_width"), 1),
        **dict.fromkeys(ONLY_FALSE, False),
        "guided_decoding_guide_type": "regex",
        "guided_decoding_guide": "a",
    },
)
