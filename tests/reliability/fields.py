"""
Class C: every number that a request may hold, at its bounds and far beyond them, over four APIs.

Which numbers there are is read from the server's own OpenAPI document and, for KServe, from its
model's metadata: a field that is new is covered without a word here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.api.test_field_limits import REQUESTS
from tests.reliability.case import (
    CHAT,
    COMPLETIONS,
    EITHER,
    GENERATE,
    MESSAGES,
    OK,
    REFUSED,
    RESPONSES,
    Case,
)
from tests.reliability.sizes import CONTEXT_TOKENS
from tests.tiny_gemma import VOCAB_SIZE

INFER = "/v2/models/tiny/infer"
APIS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
# As they stand in JSON, which json.dumps would not write so.
VALUES: Mapping[str, str] = {
    "2^31": str(2**31),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "-0": "-0",
    "1e308": "1e308",
    "a text": '"1"',
    "true": "true",
    "null": "null",
    "a list": "[]",
    "an object": "{}",
}
# No number field takes them: 2^64 is more than any integer of the protocols.
NEVER = frozenset({"2^64", "a list", "an object"})
# Nor does an integer, of 64 bits with a sign or of fewer.
NEVER_WHOLE = NEVER | {"2^63", "1e308"}
MAX_NEW = (1, CONTEXT_TOKENS)
# The least and the most where the document has no bound; None: there is none.
BOUNDS: Mapping[str, tuple[float | None, float | None]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_k": (-1, None),
    "repetition_penalty": (0, None),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "logprobs": (-1, 20),
    "top_logprobs": (-1, 20),
    "prompt_logprobs": (-1, 20),
    "max_tokens": MAX_NEW,
    "max_completion_tokens": MAX_NEW,
    "max_output_tokens": MAX_NEW,
    "max_new_tokens": MAX_NEW,
    "max_length": MAX_NEW,
    "min_tokens": (0, 1),  # max_tokens is 1
    "timeout": (0, 2**53),
}
# Without one the answer is as long as the context, which is allowed and takes seconds.
NEEDED = frozenset({"max_tokens", "max_output_tokens"})
# Without these beside them, the fields are not looked at.
BESIDE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    (CHAT, "top_logprobs"): {"logprobs": True},
    (CHAT, "logprob_token_ids"): {"logprobs": True},
    (CHAT, "stream_interval"): {"stream": True},
    (CHAT, "stream_options"): {"stream": True},
    (COMPLETIONS, "logprob_token_ids"): {"logprobs": 1},
    (COMPLETIONS, "stream_interval"): {"stream": True},
    (RESPONSES, "top_logprobs"): {"include": ["message.output_text.logprobs"]},
}
# Numbers further down, in the place of the mark.
MARK = "@"
NESTED: Mapping[str, tuple[tuple[str, str], ...]] = {
    CHAT: (
        ("repetition_detection", '{"max_pattern_size": @, "min_count": 2}'),
        ("repetition_detection", '{"max_pattern_size": 2, "min_count": @}'),
        ("stream_options", '{"include_usage": @}'),
    ),
    COMPLETIONS: (("repetition_detection", '{"max_pattern_size": 2, "min_count": @}'),),
    RESPONSES: (("reasoning", '{"effort": "low", "summary": @}'), ("metadata", '{"a": @}')),
    MESSAGES: (
        ("thinking", '{"type": "enabled", "budget_tokens": @}'),
        ("metadata", '{"user_id": @}'),
    ),
    GENERATE: (
        ("parameters", '{"timeout": @}'),
        ("parameters", '{"priority": @}'),
        ("parameters", '{"sequence_id": @}'),
    ),
}
ONE_MORE_THAN_ANY = 1025
ITEMS: Mapping[str, str] = {
    "[-1]": "[-1]",
    "the first id that is none": f"[{VOCAB_SIZE}]",
    "[2^31]": f"[{2**31}]",
    "[2^63]": f"[{2**63}]",
    "[2^64]": f"[{2**64}]",
    "[-0]": "[-0]",
    "[1.5]": "[1.5]",
    "[1e308]": "[1e308]",
    "[NaN]": "[NaN]",
    "a text in it": '["AI"]',
    "a number as text in it": '["1"]',
    "[true]": "[true]",
    "[null]": "[null]",
    "[[]]": "[[]]",
    "[{}]": "[{}]",
    "too many": json.dumps(list(range(ONE_MORE_THAN_ANY))),
    "one many times": json.dumps([5] * ONE_MORE_THAN_ANY),
    "no list": "5",
    "a text": '"5"',
    "an object": "{}",
}
# What an int may be made of, or nothing to speak of.
PERHAPS_ITEMS = frozenset({"[-0]", "a number as text in it", "[true]"})
BIASES: Mapping[str, str] = {
    "-1": '{"-1": 1}',
    "the first id that is none": f'{{"{VOCAB_SIZE}": 1}}',
    "2^31": f'{{"{2**31}": 1}}',
    "2^63": f'{{"{2**63}": 1}}',
    "2^64": f'{{"{2**64}": 1}}',
    "1.5": '{"1.5": 1}',
    "1e3": '{"1e3": 1}',
    "hexadecimal": '{"0x5": 1}',
    "a text": '{"AI": 1}',
    "an empty text": '{"": 1}',
    "5,000 digits": f'{{"{"9" * 5000}": 1}}',
    "a bias of NaN": '{"5": NaN}',
    "a bias of -Infinity": '{"5": -Infinity}',
    "a bias of 1e400": '{"5": 1e400}',
    "a bias of null": '{"5": null}',
    "a bias of text": '{"5": "x"}',
    "a bias of a list": '{"5": [1]}',
    "a bias of an object": '{"5": {}}',
    "too many": json.dumps(dict.fromkeys(map(str, range(ONE_MORE_THAN_ANY)), 1)),
    "a list": "[[5, 1]]",
    "a number": "5",
    "text": '"5"',
}
# Python reads them as 5, or the engine takes as much as it has room for.
PERHAPS_BIASES: Mapping[str, str] = {
    "a space": '{" 5 ": 1}',
    "an underscore": '{"0_5": 1}',
    "Arabic digits": '{"\u0665": 1}',
    "a sign": '{"+5": 1}',
    "a bias of 101": '{"5": 101}',
    "a bias of 1e308": '{"5": 1e308}',
    "a bias of true": '{"5": true}',
    "a bias of 2^63": f'{{"5": {2**63}}}',
}
# What other servers know, what would name a file, and what is written wrong.
UNKNOWN = (
    *("lora_path", "lora_request", "model_path", "adapter", "prompt_adapter_request"),
    *("trust_remote_code", "chat_template_path", "tokenizer", "load_format", "quantization"),
    *("guided_json", "guided_regex", "functions", "function_call", "audio", "modalities"),
    *("prediction", "web_search_options", "trace_decode_token_ids", "extra_args", "skip_clone"),
    *("temprature", "Max_Tokens", "__class__", "constructor", "", "a" * 10_000, "\u202e", "a\nb"),
)
UNKNOWN_VALUES = ('"../../etc/passwd"', "[1, [2]]", '{"a": {"b": true}}', str(2**63))


@dataclass(frozen=True)
class Number:
    """A field that holds one, and what is known of it."""

    name: str
    whole: bool
    nullable: bool
    least: float | None
    most: float | None

    def values(self) -> Iterator[tuple[str, str, frozenset[int]]]:
        """What is tried, its JSON, and the statuses that it may get."""
        least, most = self.least, self.most
        if least is not None:
            yield "less than the least", _json(least - 1), REFUSED
        else:
            yield "-1", "-1", EITHER
        if most is not None:
            yield "more than the most", _json(most + 1), REFUSED
        for name, text in VALUES.items():
            if name == "null" and self.nullable and self.name in NEEDED:
                continue
            yield name, text, self._allowed(name)

    def _allowed(self, value: str) -> frozenset[int]:
        beyond = self.most is not None and value in ("2^31", "2^63", "2^64", "1e308")
        if beyond and float(json.loads(VALUES[value])) > (self.most or math.inf):
            return REFUSED
        if value == "null":
            return EITHER if self.nullable else REFUSED
        return REFUSED if value in (NEVER_WHOLE if self.whole else NEVER) else EITHER


def cases(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> Iterator[Case]:
    """
    All of them.

    Args:
        document: The server's OpenAPI document.
        metadata: Its model's, of KServe v2.
    """
    for path in APIS:
        schema = request_schema(document, path)
        for number in [*numbers(document, schema), TIMEOUT]:
            for name, text, allowed in number.values():
                yield _case(path, number.name, name, text, allowed)
        for field in lists_of_ids(document, schema):
            yield from _items(path, field)
        if "logit_bias" in schema["properties"]:
            yield from _biases(path)
    yield from _tensors(metadata)
    yield from _nested()
    yield from _unknown()


def _nested() -> Iterator[Case]:
    for path, nested in NESTED.items():
        for field, around in nested:
            for name, text in VALUES.items():
                what = around.replace(MARK, "...")
                yield _case(path, field, f"{what} {name}", around.replace(MARK, text), EITHER)


def _unknown() -> Iterator[Case]:
    for path in (*APIS, GENERATE):
        for at, field in enumerate(UNKNOWN):
            text = UNKNOWN_VALUES[at % len(UNKNOWN_VALUES)]
            yield _case(path, field, "unknown", text, EITHER)


def _items(path: str, field: str) -> Iterator[Case]:
    for name, text in ITEMS.items():
        # One id many times is one id, where more of them would be too many to hold.
        allowed = EITHER if name in PERHAPS_ITEMS or name == "one many times" else REFUSED
        yield _case(path, field, name, text, allowed)


def _biases(path: str) -> Iterator[Case]:
    most = json.dumps(dict.fromkeys(map(str, range(ONE_MORE_THAN_ANY - 1)), 1))
    yield _case(path, "logit_bias", "as many as allowed", most, OK)
    for name, text in BIASES.items():
        yield _case(path, "logit_bias", name, text, REFUSED)
    for name, text in PERHAPS_BIASES.items():
        yield _case(path, "logit_bias", name, text, EITHER)


def _tensors(metadata: Mapping[str, Any]) -> Iterator[Case]:
    """KServe's numbers, by name and as tensors."""
    for tensor in metadata["inputs"]:
        name, datatype = tensor["name"], tensor["datatype"]
        if not datatype.startswith(("INT", "UINT", "FP")):
            continue
        least, most = BOUNDS.get(name, (None, None))
        # As transformers has them: no -1 for "all", no end of the temperature, and an answer that
        # is as long as the context lets it be.
        least = 0 if name == "top_k" else least
        most = most if name == "top_p" else None
        number = Number(name, not datatype.startswith("FP"), nullable=True, least=least, most=most)
        for value, text, allowed in number.values():
            yield _case(GENERATE, name, value, text, allowed)
            yield _infer(tensor, value, text, allowed)


def _infer(tensor: Mapping[str, Any], value: str, text: str, allowed: frozenset[int]) -> Case:
    """One tensor of one value beside the text; a list or an object is the value, not the data."""
    inputs = [
        {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Hi"]},
        {"name": "do_sample", "datatype": "BOOL", "shape": [1], "data": [True]},
    ]
    if tensor["name"] not in ("max_length", "max_new_tokens"):
        inputs.append({"name": "max_new_tokens", "datatype": "INT32", "shape": [1], "data": [1]})
    name, datatype = tensor["name"], tensor["datatype"]
    odd = f'{{"name": "{name}", "datatype": "{datatype}", "shape": [1], "data": [{text}]}}'
    body = f'{{"inputs": [{", ".join([*map(json.dumps, inputs), odd])}]}}'
    return Case(f"C {INFER} {name} {value}", INFER, body.encode(), allowed)


def _case(path: str, field: str, value: str, text: str, allowed: frozenset[int]) -> Case:
    """The smallest request of the path with this field, of which `text` is the JSON."""
    others = {name: of for name, of in REQUESTS[path].items() if name != field}
    others |= BESIDE.get((path, field), {})
    if path == GENERATE:
        others |= {"do_sample": True}
        if field == "max_length":  # the other one wins over it
            others.pop("max_new_tokens")
    parts = [f"{json.dumps(name)}: {json.dumps(of)}" for name, of in others.items()]
    body = f"{{{', '.join([*parts, f'{json.dumps(field)}: {text}'])}}}"
    return Case(f"C {path} {field[:40]} {value}", path, body.encode(), allowed)


def _json(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


# --- what the document says


def request_schema(document: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The schema of a route's body."""
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return _resolved(document, body["schema"])


def numbers(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Number]:
    """The fields of an object that may hold a number, with their bounds."""
    for name, of in schema["properties"].items():
        branches = list(_branches(document, of))
        kinds = {branch.get("type") for branch in branches}
        for branch in branches:
            if branch.get("type") not in ("integer", "number"):
                continue
            least, most = BOUNDS.get(name, (None, None))
            yield Number(
                name,
                branch["type"] == "integer",
                "null" in kinds,
                branch.get("minimum", branch.get("exclusiveMinimum", least)),
                branch.get("maximum", branch.get("exclusiveMaximum", most)),
            )


def lists_of_ids(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """The fields that hold lists of integers and nothing else: a prompt is of class D."""
    for name, of in schema["properties"].items():
        branches = [one for one in _branches(document, of) if one.get("type") != "null"]
        if [one.get("items", {}).get("type") for one in branches] == ["integer"]:
            yield name


def _branches(
    document: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    resolved = _resolved(document, schema)
    for kind in ("anyOf", "oneOf", "allOf"):
        for branch in resolved.get(kind, ()):
            yield from _branches(document, branch)
    if "type" in resolved:
        yield resolved


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


# Read from the body by the server itself, for every API.
TIMEOUT = Number("timeout", whole=False, nullable=True, least=0, most=BOUNDS["timeout"][1])
