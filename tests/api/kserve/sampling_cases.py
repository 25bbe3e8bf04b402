"""Sampling parameters of Triton's vLLM backend that must be refused."""

from __future__ import annotations

import json
from typing import Any

from tests.api.kserve.chat_cases import nested
from tests.api.kserve.refusals import MARKER

NAN, INFINITY = float("nan"), float("inf")
HUGE = 2**70
BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (0, -1, 10**6, HUGE, "x", 1.5, [], {}),
    "max_tokens": (0, -1, "x", 1.5, [], {}),
    "min_tokens": (-1, 5, 10**9, HUGE, "x"),
    "temperature": (-1, 2.5, 1e308, "nan", "x", NAN, INFINITY, [], {}),
    "top_p": (0, -1, 2, NAN, "x", []),
    "top_k": (-5, 1.5, HUGE, "x", []),
    "min_p": (-1, 2, NAN, "x"),
    "presence_penalty": (100, -100, NAN, "x"),
    "frequency_penalty": (100, -100, NAN, "x"),
    "repetition_penalty": (0, -1, NAN, INFINITY, "x"),
    "seed": (2**64, -(2**63) - 1, HUGE, "x", 1.5),
    "logprobs": (-1, -2, 30, 10**6, HUGE, "x", []),
    "logit_bias": ({"-1": 1}, {"999999": 1}, {"a": 1}, {"5": "x"}, [1], "x", 5),
    "stop": ([""], 5, [None], ["\ud800"], "\udfff", {}, [["a"]]),
    "stop_token_ids": ([-1], [2**31], [HUGE], ["a"], "x", 5, list(range(129))),
    "allowed_token_ids": ([], [-1], [5000], [2**40], "x", list(range(1025))),
    "bad_words": ([""], [5], ["\ud800"], [" "], 5),
    "ignore_eos": ("maybe", 5, []),
    "skip_special_tokens": ("maybe", 5, []),
    "truncate_prompt_tokens": (-5, 0, 10**9, HUGE, "x"),
    "response_format": (
        *(5, "x", [], {}, {"type": "x"}, {"type": "json_schema"}, {"type": "\ud800"}),
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "z"}}},
    ),
    "structured_outputs": (
        *(5, True, [], [1], {}, "{", "5", "[1]", "", {"unknown": 1}),
        *({"regex": "("}, {"regex": "{"}, {"regex": "a", "choice": ["b"]}, {"regex": "\ud800"}),
        *({"json": ""}, {"json": "x"}, {"json": {"type": "z"}}, {"json_object": False}),
        *({"grammar": ""}, {"grammar": "root ::= "}, {"choice": []}, {"choice": [5]}),
        *({"choice": ["\ud800"]}, {"structural_tag": "x"}, {"json": json.loads(nested(300))}),
        *({"json": json.loads(nested(300, in_objects=True))}, {"json": {"$ref": "#"}}),
    ),
    "lora_name": ("", "tiny", "../../x", "/etc", 5, [], {}, "\ud800"),
    # Fields of vLLM's requests that would change the prompt, or mean something else here.
    **dict.fromkeys(
        (
            *("prompt", "prompt_embeds", "echo", "stream", "model", "request_id", "priority"),
            *("kv_transfer_params", "best_of", "use_beam_search", "", "\ud800", "MAX_TOKENS"),
        ),
        (True, 1, "x"),
    ),
}
# Not even an object.
BAD_TEXTS = (
    *("", " ", "[1]", "5", "null", "true", '"a"', "{", "{}}", "{'n': 1}", MARKER),
    *(nested(900), nested(100_000, in_objects=True), '{"max_tokens": ' + "9" * 5000 + "}"),
    *('{"stop": ' + nested(900) + "}", '{"logit_bias": ' + nested(900, in_objects=True) + "}"),
)


def bad_bodies() -> list[dict[str, Any]]:
    """Bodies of /generate: the parameters in their tensor, and as request parameters."""
    pairs = [(name, value) for name, values in BAD_VALUES.items() for value in values]
    texts = [json.dumps({"max_tokens": 2} | {name: value}) for name, value in pairs]
    tensors = [{"sampling_parameters": text} for text in (*texts, *BAD_TEXTS)]
    # `priority` and `stream` are the protocol's own there, and the tensor's.
    parameters = [
        {"parameters": {"max_tokens": 2} | {name: value}}
        for name, value in pairs
        if name not in ("priority", "stream")
    ]
    return [{"text_input": MARKER} | more for more in (*tensors, *parameters)]
